/** Where a reader stands, and whether the log beneath it is still the same. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Position } from "../ConsumerStore.js"
import { fromRecorded, type RecordedEvent } from "../Event.js"
import { CorruptEvent, LedgerReplaced, type StoreError } from "../LedgerError.js"
import type { LedgerStore } from "../LedgerStore.js"
import { decode, encode, FieldIssue } from "./row.js"

type Store = Context.Tag.Service<LedgerStore>

export const positionOf = (incarnation: string, event: RecordedEvent): Position => {
  const row = encode(fromRecorded(event), Number.MAX_SAFE_INTEGER)
  return { incarnation, offset: event.offset, digest: row instanceof FieldIssue ? null : row.digest }
}

/** The position of who has dealt with everything up to the offset. */
export const positionAt = (store: Store, offset: number): Effect.Effect<Position, CorruptEvent | StoreError> =>
  Effect.flatMap(
    store.page({ filters: [], after: Math.max(0, offset - 1), through: offset, backward: false, limit: 1 }),
    ({ incarnation, rows }): Effect.Effect<Position, CorruptEvent> => {
      const row = rows[0]
      if (row === undefined) return Effect.succeed({ incarnation, offset, digest: null })
      const event = decode(row)
      return typeof event === "string"
        ? new CorruptEvent({ offset, reason: event })
        : Effect.succeed(positionOf(incarnation, event))
    }
  )

/** Fails when the log is not the one in which the position was taken. */
export const verify = (
  store: Store,
  position: Position
): Effect.Effect<void, LedgerReplaced | CorruptEvent | StoreError> =>
  Effect.flatMap(store.head, (head) => {
    const replaced = new LedgerReplaced({ expected: position.incarnation, found: head.incarnation, head: head.offset })
    if (head.incarnation !== position.incarnation || head.offset < position.offset) return replaced
    if (position.offset === 0) return Effect.void
    return Effect.flatMap(positionAt(store, position.offset), (found) =>
      found.incarnation === position.incarnation && found.digest === position.digest ? Effect.void : replaced)
  })

/** Where a reader stands, and whether the log beneath it is still the same. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Position } from "../ConsumerStore.js"
import { fromRecorded, type RecordedEvent } from "../Event.js"
import { LedgerReplaced, type StoreError } from "../LedgerError.js"
import type { LedgerStore } from "../LedgerStore.js"
import { encode, FieldIssue } from "./row.js"

type Store = Context.Tag.Service<LedgerStore>

export const positionOf = (incarnation: string, event: RecordedEvent): Position => {
  const row = encode(fromRecorded(event), Number.MAX_SAFE_INTEGER)
  return { incarnation, offset: event.offset, digest: row instanceof FieldIssue ? null : row.digest }
}

/** The position of who has dealt with everything up to the offset. */
export const positionAt = (store: Store, offset: number): Effect.Effect<Position, StoreError> =>
  Effect.map(
    store.page({ filters: [], after: offset, through: offset, backward: false, limit: 1 }),
    ({ digest, incarnation }) => ({ incarnation, offset, digest })
  )

/** Fails when the log is not the one in which the position was taken. */
export const verify = (store: Store, position: Position): Effect.Effect<void, LedgerReplaced | StoreError> =>
  Effect.flatMap(
    store.page({ filters: [], after: position.offset, through: position.offset, backward: false, limit: 1 }),
    ({ digest, head, incarnation }) =>
      incarnation === position.incarnation && head >= position.offset && digest === position.digest
        ? Effect.void
        : new LedgerReplaced({ expected: position.incarnation, found: incarnation, head })
  )

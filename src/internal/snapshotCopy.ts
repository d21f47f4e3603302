/** Copies a log through the ports of two stores. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import {
  CorruptEvent,
  type LedgerReplaced,
  type SetupError,
  type SnapshotRefused,
  type StoreError,
  StoreFailure
} from "../LedgerError.js"
import type { Head, LedgerStore, Row } from "../LedgerStore.js"
import { scan, type Seen } from "./verify.js"

export type Store = Context.Tag.Service<LedgerStore>

export interface Options {
  readonly prefix?: string | undefined
  readonly schema?: string | undefined
  readonly replace?: boolean | undefined
  readonly onProgress?:
    | ((progress: { readonly copied: number; readonly total: number }) => Effect.Effect<void>)
    | undefined
}

export interface Snapshot {
  readonly head: number
  readonly count: number
  readonly bytes: number
  readonly digest: string
  readonly incarnation: string
  readonly parent: Head
}

export type Failure = SetupError | StoreError | SnapshotRefused | LedgerReplaced | CorruptEvent

/** Appends every event up to the head, each compared with its digest, to an empty log. */
export const copy = (
  store: Store,
  destination: Store,
  head: Head,
  onProgress: Options["onProgress"]
): Effect.Effect<Seen, Failure> =>
  Effect.flatMap(
    scan(store, {
      head,
      onPage: (rows, copied): Effect.Effect<void, Failure> =>
        Effect.zipRight(appendAll(destination, rows), progress(onProgress, copied, head)),
      onProblem: corrupt
    }),
    (seen) =>
      Effect.flatMap(destination.head, ({ digest, offset }) =>
        offset === head.offset && digest === head.digest ? Effect.succeed(seen) : new StoreFailure({
          method: "snapshot",
          cause: new Error(`the copy ends at offset ${offset}, not as the ledger does at ${head.offset}`)
        }))
  )

export const corrupt = (offset: number, reason: string): CorruptEvent => new CorruptEvent({ offset, reason })

export const progress = (onProgress: Options["onProgress"], copied: number, head: Head): Effect.Effect<void> =>
  onProgress === undefined ? Effect.void : onProgress({ copied, total: head.offset })

/** What a log hands on to a copy of it that ends at `parent`. */
export const lineageOf = (store: Store, parent: Head): Effect.Effect<ReadonlyArray<Head>, StoreError> =>
  Effect.map(store.lineage, (lineage) => [parent, ...lineage])

export const resultOf = (parent: Head, incarnation: string, { bytes, checked, digest }: Seen): Snapshot => ({
  head: parent.offset,
  count: checked,
  bytes,
  digest,
  incarnation,
  parent
})

const appendAll = (destination: Store, rows: ReadonlyArray<Row>): Effect.Effect<void, StoreError> => {
  const [first, ...rest] = rows
  return first === undefined
    ? Effect.void
    : Effect.asVoid(destination.append([{ rows: [first, ...rest], condition: undefined }]))
}

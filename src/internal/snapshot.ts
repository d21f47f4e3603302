/** Copies a log through the ports of two stores. What is peculiar to SQLite files is in a module with their driver. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import {
  CorruptEvent,
  type LedgerReplaced,
  type SetupError,
  SnapshotRefused,
  type StoreError,
  StoreFailure
} from "../LedgerError.js"
import { type Head, LedgerStore, type Row } from "../LedgerStore.js"
import * as Backend from "./backend.js"
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

export const to = (store: Store, backend: Backend.Backend, options: Options): Effect.Effect<Snapshot, Failure> => {
  if (backend._tag === "Memory" || (backend._tag === "Sqlite" && backend.filename === ":memory:")) {
    return new SnapshotRefused({ reason: "is in memory: it would be gone when the snapshot is made" })
  }
  return Effect.flatMap(store.inTransaction, (inTransaction): Effect.Effect<Snapshot, Failure> => {
    if (inTransaction) {
      return new StoreFailure({ method: "snapshot", cause: new Error("in a transaction, which may yet be undone") })
    }
    return backend._tag === "Postgres" ? toPostgres(store, backend.url, options) : Effect.flatMap(
      Backend.load(() => import("./snapshotSqlite.js"), "@effect/sql-sqlite-node"),
      ({ toFile }) => toFile(store, backend.filename, options)
    )
  })
}

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

const toPostgres = (
  store: Store,
  url: Redacted.Redacted,
  { onProgress, prefix, replace, schema }: Options
): Effect.Effect<Snapshot, Failure> =>
  Effect.scoped(Effect.gen(function*() {
    const { layerUrl } = yield* Backend.load(() => import("../PgLedger.js"), "@effect/sql-pg")
    const destination = Context.get(
      yield* Layer.build(Layer.fresh(layerUrl(url, { prefix, schema, listen: false, maxConnections: 2 }))),
      LedgerStore
    )
    const [own, other] = yield* Effect.all([store.location, destination.location])
    if (own.key === other.key) return yield* new SnapshotRefused({ reason: "is the ledger itself" })
    const parent = yield* store.head
    const lineage = yield* lineageOf(store, parent)
    return yield* destination.transaction(Effect.gen(function*() {
      // this takes the lock: from here on nobody appends there
      yield* destination.incarnate(lineage)
      const { offset } = yield* destination.head
      if (offset > 0 && replace !== true) {
        return yield* new SnapshotRefused({ reason: `holds ${offset} events: ask to replace them, or name another` })
      }
      if (offset > 0) yield* destination.reset
      const { incarnation } = yield* destination.incarnate(lineage)
      const seen = yield* copy(store, destination, parent, onProgress)
      return resultOf(parent, incarnation, seen)
    }))
  }))

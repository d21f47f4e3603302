/** Where a snapshot goes. What is peculiar to SQLite files is in a module with their driver. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import { SnapshotRefused, StoreFailure } from "../LedgerError.js"
import { LedgerStore } from "../LedgerStore.js"
import * as Backend from "./backend.js"
import { copy, type Failure, lineageOf, type Options, resultOf, type Snapshot, type Store } from "./snapshotCopy.js"

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

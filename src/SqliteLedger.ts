/**
 * The ledger in a SQLite file (or in memory, by SQLite). Several processes may write to one file.
 *
 * @since 0.1.0
 */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import type * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { ConsumerStore } from "./ConsumerStore.js"
import * as readonly from "./internal/readonly.js"
import { toStoreError } from "./internal/sqlError.js"
import { assertShutsNobodyOut } from "./internal/sqliteGuests.js"
import * as sqliteStore from "./internal/sqliteStore.js"
import type { Ledger, LedgerAdmin } from "./Ledger.js"
import { type SetupError, StoreFailure } from "./LedgerError.js"
import type { LedgerStore } from "./LedgerStore.js"
import * as StoreLedger from "./StoreLedger.js"

/**
 * - `prefix`: of the names of tables and indices, `ledger_` unless told; 1 to 40 of `a-z0-9_`
 * - `durability`: `full` (the default) survives power loss; `relaxed` may lose the last commits to it, never the order
 * - `create`: whether a ledger is made where there is none, true unless told
 * - `busyTimeout`: how long a write waits for another process's, 10 seconds unless told
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends StoreLedger.Options {
  readonly prefix?: string | undefined
  readonly durability?: "full" | "relaxed" | undefined
  readonly create?: boolean | undefined
  readonly busyTimeout?: Duration.DurationInput | undefined
}

/**
 * What {@link layerReadonly} can be told; `busyTimeout` is how long a read waits where another process is in its way.
 *
 * @since 0.1.0
 * @category models
 */
export interface ReadonlyOptions extends Pick<Options, "prefix" | "busyTimeout" | "pollInterval" | "cacheBytes"> {}

/**
 * A ledger over the caller's client: one connection, and appends inside the caller's `withTransaction` are part of it.
 * The connection's `synchronous` setting is raised to FULL unless `durability` is `relaxed`, and never lowered.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Ledger | LedgerAdmin | LedgerStore | ConsumerStore, SetupError, SqliteClient.SqliteClient> =>
  over(options)

/**
 * A ledger in a file, which is created (with its folders) or reopened; `:memory:` lives as long as the Layer. The client
 * is part of the Layer, so that the program's own tables can stand beside the ledger's, in one transaction. Outside of
 * its transactions the ledger has a connection of its own: what is set with PRAGMA on the client is not set for that.
 *
 * @example
 * ```ts
 * import { Event, Ledger } from "effect-ledger"
 * import * as SqliteLedger from "effect-ledger/SqliteLedger"
 * import { Effect } from "effect"
 *
 * export const program = Effect.gen(function*() {
 *   const event = yield* Event.create({ runId: "run-1", turn: 0, kind: "run.started", actor: "conductor", payload: {} })
 *   return yield* Ledger.append(event)
 * }).pipe(Effect.provide(SqliteLedger.layerFile("runs/agents.db")))
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerFile = (
  name: string,
  options: Options = {}
): Layer.Layer<
  Ledger | LedgerAdmin | LedgerStore | ConsumerStore | SqliteClient.SqliteClient | SqlClient.SqlClient,
  SetupError
> => over(options, name).pipe(Layer.provideMerge(clientLayer(name, options.create === false ? "open" : "create")))

/**
 * A ledger in a file that is there, for reading only, while others write to it or not. It is all that reads: queries,
 * subscriptions, projections in memory, `Verify`, `Trace`, `Snapshot`. Whatever would write fails with `StoreFailure`,
 * and the file is not touched.
 *
 * Where a writer has used it and none has it open, SQLite puts its two companions (`-wal`, empty, and `-shm`) beside the
 * file. Where it may not, or the file is another user's, whom they would keep from writing, this is `StoreUnavailable`
 * until a writer has the file open. A snapshot needs no companions.
 *
 * Fails with `StoreFailure` where there is no file, or no ledger in it.
 *
 * @example
 * ```ts
 * import { Event, Ledger } from "effect-ledger"
 * import * as SqliteLedger from "effect-ledger/SqliteLedger"
 * import { Console, Effect, Stream } from "effect"
 *
 * export const watch = Stream.runForEach(Ledger.subscribe(), (event) => Console.log(Event.summary(event))).pipe(
 *   Effect.provide(SqliteLedger.layerReadonly("runs/agents.db"))
 * )
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerReadonly = (
  name: string,
  options: ReadonlyOptions = {}
): Layer.Layer<Ledger | LedgerStore, SetupError> =>
  readonly.layer(
    Effect.flatMap(SqliteClient.SqliteClient, (client) =>
      sqliteStore.make(client, {
        prefix: options.prefix ?? "ledger_",
        busyTimeout: options.busyTimeout ?? "10 seconds",
        // no setting of the file, and none that is for writing
        owned: false,
        file: undefined,
        durability: "relaxed",
        create: false,
        isLost: () => false
      })),
    options
  ).pipe(Layer.provide(clientLayer(name, "read")))

const over = (options: Options, name?: string) => {
  // in full: a program may go to another folder
  const file = name === undefined || isInMemory(name) ? undefined : Path.resolve(name)
  return StoreLedger.layerWith(options).pipe(
    Layer.provideMerge(Layer.scopedContext(
      Effect.flatMap(SqliteClient.SqliteClient, (client) =>
        sqliteStore.make(client, {
          prefix: options.prefix ?? "ledger_",
          busyTimeout: options.busyTimeout ?? "10 seconds",
          durability: options.durability ?? "full",
          create: options.create,
          owned: name !== undefined,
          file,
          isLost: file === undefined ? () => false : lossOf(file)
        }))
    ))
  )
}

// the client throws where it cannot open, and sets WAL mode itself before anybody could wait for a lock
const clientLayer = (
  name: string,
  mode: "create" | "open" | "read"
): Layer.Layer<SqliteClient.SqliteClient | SqlClient.SqlClient, SetupError> =>
  Layer.suspend(() => {
    if (!isInMemory(name)) {
      if (mode === "create") Fs.mkdirSync(Path.dirname(Path.resolve(name)), { recursive: true })
      else if (!Fs.existsSync(name)) throw new Error(`there is no file ${name}`)
      // SQLite would call it an error of the disk
      if (mode === "read" && Fs.statSync(name).isDirectory()) {
        throw Object.assign(new Error("it is a folder"), { code: "SQLITE_CANTOPEN" })
      }
      if (mode === "read") assertShutsNobodyOut(name)
      // SQLite would open it for reading alone, and stay so when it has become writable
      if (mode !== "read" && Fs.existsSync(name)) Fs.accessSync(name, Fs.constants.R_OK | Fs.constants.W_OK)
    }
    return SqliteClient.layer({ filename: name, readonly: mode === "read", disableWAL: true })
  }).pipe(
    Layer.catchAllCause((cause) => {
      const error = toStoreError("open", Cause.squash(cause), false)
      return Layer.fail<SetupError>(
        error._tag === "TransactionAborted" ? new StoreFailure({ method: "open", cause: error }) : error
      )
    })
  )

const isInMemory = (name: string): boolean => name === ":memory:" || name === ""

/**
 * Whether there is another file at the path than there is now, or nothing in it: who opens that after a crash throws the
 * write-ahead log away. It costs a few microseconds.
 */
const lossOf = (path: string): () => boolean => {
  const look = () => Fs.statSync(path, { throwIfNoEntry: false })
  const opened = look()
  return () => {
    const found = look()
    return found === undefined || found.size === 0 || found.ino !== opened?.ino || found.dev !== opened.dev
  }
}

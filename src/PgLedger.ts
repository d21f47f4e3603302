/**
 * The ledger in Postgres, 15 or later. Any number of processes may write to it.
 *
 * @since 0.1.0
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Pg from "pg"
import * as ConnectionString from "pg-connection-string"
import type { ConsumerStore } from "./ConsumerStore.js"
import * as pgRoles from "./internal/migrations/pgRoles.js"
import { listen } from "./internal/pgListen.js"
import * as pgStore from "./internal/pgStore.js"
import * as readonly from "./internal/readonly.js"
import { toStoreError } from "./internal/sqlError.js"
import type { Ledger, LedgerAdmin } from "./Ledger.js"
import { type InvalidQuery, type SetupError, type StoreError, StoreFailure } from "./LedgerError.js"
import type { LedgerStore } from "./LedgerStore.js"
import * as StoreLedger from "./StoreLedger.js"

/**
 * - `prefix`: of the names of tables, indices and functions, `ledger_` unless told; 1 to 40 of `a-z0-9_`
 * - `schema`: where they are, created when it is missing; the connection's current schema unless told
 * - `create`: whether a ledger is made where there is none, true unless told
 * - `durability`: `full` (the default) survives a crash of the server; `relaxed` commits without waiting for its disk
 * - `lockTimeout`: how long an append waits for another transaction that appends, 10 seconds unless told
 * - `maxLockHold`: how long a transaction of the caller's may stand idle once it has appended, and others wait for it;
 *   then the server ends it with its connection, and its next statement fails. For ever, unless told, or set on the server
 * - `listen`: false where LISTEN cannot work, as behind a transaction pooler; subscribers then look four times a second,
 *   and statements are not prepared. Otherwise they have one connection of their own, as long as there are any
 * - `listenUrl`: where that connection is made instead, for a pooler beside which the same database can be reached
 *   directly; statements are not prepared either
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends StoreLedger.Options {
  readonly prefix?: string | undefined
  readonly schema?: string | undefined
  readonly create?: boolean | undefined
  readonly durability?: "full" | "relaxed" | undefined
  readonly lockTimeout?: Duration.DurationInput | undefined
  readonly maxLockHold?: Duration.DurationInput | undefined
  readonly listen?: boolean | undefined
  readonly listenUrl?: Redacted.Redacted | undefined
}

/**
 * What {@link layerUrl} also takes: the size of its pool (10 connections unless told) and how long it may take to get a
 * connection (5 seconds unless told).
 *
 * @since 0.1.0
 * @category models
 */
export interface UrlOptions extends Options {
  readonly maxConnections?: number | undefined
  readonly connectTimeout?: Duration.DurationInput | undefined
}

/**
 * What {@link layerReadonly} can be told.
 *
 * @since 0.1.0
 * @category models
 */
export interface ReadonlyOptions extends
  Pick<
    UrlOptions,
    | "prefix"
    | "schema"
    | "listen"
    | "listenUrl"
    | "maxConnections"
    | "connectTimeout"
    | "commitTimeout"
    | "pollInterval"
    | "cacheBytes"
  >
{}

/**
 * A ledger over the caller's client. Appends and reads inside the caller's `withTransaction` are part of it.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Ledger | LedgerAdmin | LedgerStore | ConsumerStore, SetupError, PgClient.PgClient> =>
  over(options, undefined)

/**
 * A ledger at a connection URL, with a pool of its own. `sslmode` and the other parameters of `pg` are understood. The
 * client is part of the Layer, so that the program's own tables can stand beside the ledger's, in one transaction.
 *
 * @example
 * ```ts
 * import { Ledger } from "effect-ledger"
 * import * as PgLedger from "effect-ledger/PgLedger"
 * import { Effect, Redacted } from "effect"
 *
 * export const head = Ledger.latestOffset.pipe(
 *   Effect.provide(PgLedger.layerUrl(Redacted.make("postgresql://ada:secret@localhost/agents"), { schema: "ledger" }))
 * )
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerUrl = (
  url: Redacted.Redacted,
  options: UrlOptions = {}
): Layer.Layer<
  Ledger | LedgerAdmin | LedgerStore | ConsumerStore | PgClient.PgClient | SqlClient.SqlClient,
  SetupError
> => withPool(url, options, (pool) => Layer.provideMerge(over(options, pool), clientLayer(pool)))

/**
 * A ledger that is there, for reading only: as a role that may only read (see {@link roles}), or from a standby. It is all
 * that reads: queries, subscriptions, projections in memory, `Verify`, `Trace`, `Snapshot`. Whatever would write fails
 * with `StoreFailure`, and the server is asked for nothing that it would have to write down. On a standby nobody can
 * LISTEN: subscribers look four times a second until it is promoted.
 *
 * A standby may be behind: a cursor that the primary gave can lie beyond its head, and fails with `LedgerReplaced`.
 *
 * Fails with `StoreFailure` where there is no ledger, which on a standby may also mean that it has not arrived yet.
 *
 * @example
 * ```ts
 * import { Event, Ledger } from "effect-ledger"
 * import * as PgLedger from "effect-ledger/PgLedger"
 * import { Console, Effect, Redacted, Stream } from "effect"
 *
 * const standby = Redacted.make("postgresql://ledger_reader:secret@standby/agents")
 *
 * export const watch = Stream.runForEach(Ledger.subscribe(), (event) => Console.log(Event.summary(event))).pipe(
 *   Effect.provide(PgLedger.layerReadonly(standby, { schema: "ledger" }))
 * )
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerReadonly = (
  url: Redacted.Redacted,
  options: ReadonlyOptions = {}
): Layer.Layer<Ledger | LedgerStore, SetupError> =>
  withPool(
    url,
    options,
    (pool) => readonly.layer(open({ ...options, create: false }, pool), options).pipe(Layer.provide(clientLayer(pool)))
  )

/**
 * Who has which rights to a ledger, by the names of roles:
 *
 * - `owner`: owns the ledger, and can do anything with it. The owner stays who it is, unless told
 * - `writer`: reads, runs consumers and projections, and appends by calling the append function; has no right to insert,
 *   change or remove an event
 * - `reader`: can select, and nothing else
 * - `prefix`: of the ledger's names, `ledger_` unless told
 * - `schema`: where it is, `public` unless told
 *
 * @since 0.1.0
 * @category models
 */
export interface Roles {
  readonly owner?: string | undefined
  readonly writer: string
  readonly reader: string
  readonly prefix?: string | undefined
  readonly schema?: string | undefined
}

/**
 * The SQL that gives roles their rights to a ledger that is there, as one script. A role that does not exist is made, and
 * cannot log in; no password is set. What the writer and the reader (and `PUBLIC`) were granted on the ledger before is
 * taken away, so that running it again, or after a change, leaves what it says. It ends with an error, and changes
 * nothing, where a role has more rights from elsewhere: as a superuser, or a member of another role.
 *
 * A superuser can run it, and without `owner` also the ledger's owner, who must have the right to create roles where one
 * is missing.
 *
 * Fails with `InvalidQuery`, whose `path` is the field, when a name is empty, longer than 63 bytes, reserved by Postgres,
 * given twice, or has control characters, a backslash or `$$`.
 *
 * @example
 * ```ts
 * import * as PgLedger from "effect-ledger/PgLedger"
 * import { Console, Effect } from "effect"
 *
 * export const main = PgLedger.roles({ writer: "ledger_writer", reader: "ledger_reader", schema: "ledger" }).pipe(
 *   Effect.flatMap(Console.log)
 * )
 * ```
 *
 * @since 0.1.0
 * @category roles
 */
export const roles = (roles: Roles): Effect.Effect<string, InvalidQuery> =>
  Effect.map(Effect.suspend(() => pgRoles.statements(roles)), pgRoles.script)

/**
 * Runs what {@link roles} answers, in one transaction: that of the caller, where there is one.
 *
 * Also fails with `StoreFailure` where there is no such ledger, the client's role may not do it, or one of the roles has
 * more rights from elsewhere.
 *
 * @since 0.1.0
 * @category roles
 */
export const applyRoles: (roles: Roles) => Effect.Effect<void, InvalidQuery | StoreError, PgClient.PgClient> = Effect
  .fn(
    "PgLedger.applyRoles"
  )(function*(roles: Roles) {
    const client = yield* PgClient.PgClient
    const statements = yield* pgRoles.statements(roles)
    yield* Effect.provideService(pgStore.applyRoles(statements), SqlClient.SqlClient, client)
  })

const over = (options: Options, pool: Pg.Pool | undefined) =>
  StoreLedger.layerWith(options).pipe(Layer.provideMerge(Layer.scopedContext(open(options, pool))))

const open = (options: Options, pool: Pg.Pool | undefined) =>
  Effect.gen(function*() {
    const client = yield* PgClient.PgClient
    const { listenUrl: url } = options
    if (url !== undefined) yield* Effect.mapError(configOf(url), connectError)
    return yield* pgStore.make(client, {
      prefix: options.prefix ?? "ledger_",
      schema: options.schema,
      listen: (channel) =>
        options.listen === false
          ? Stream.repeatEffect(Effect.sleep("250 millis"))
          : listen(url === undefined ? client.config : { url }, channel),
      create: options.create,
      durability: options.durability ?? "full",
      lockTimeout: options.lockTimeout ?? "10 seconds",
      commitTimeout: options.commitTimeout ?? "1 minute",
      maxLockHold: options.maxLockHold,
      pool,
      prepared: options.listen !== false && url === undefined
    })
  })

const withPool = <A>(
  url: Redacted.Redacted,
  options: UrlOptions,
  use: (pool: Pg.Pool) => Layer.Layer<A, SetupError>
): Layer.Layer<A, SetupError> => Layer.unwrapScoped(Effect.map(Effect.mapError(pool(url, options), connectError), use))

const clientLayer = (pool: Pg.Pool): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SetupError> =>
  Layer.scopedContext(
    Effect.map(
      PgClient.fromPool({ acquire: Effect.succeed(pool) }),
      (client) => Context.make(PgClient.PgClient, client).pipe(Context.add(SqlClient.SqlClient, client))
    )
  ).pipe(Layer.provide(Reactivity.layer), Layer.mapError(connectError))

const connectError = (error: unknown): SetupError => {
  const failure = toStoreError("connect", error, false)
  return failure._tag === "TransactionAborted" ? new StoreFailure({ method: "connect", cause: failure }) : failure
}

// as separate fields: a connection string could be printed from the pool's options, password and all
const configOf = (url: Redacted.Redacted): Effect.Effect<Pg.ClientConfig, SqlError> =>
  Effect.try({
    try: () => ConnectionString.parseIntoClientConfig(Redacted.value(url)),
    // what the parser throws may quote the URL
    catch: () => new SqlError({ cause: new Error("the connection URL cannot be read"), message: "connect" })
  })

const pool = (url: Redacted.Redacted, options: UrlOptions) =>
  Effect.acquireRelease(
    Effect.map(
      configOf(url),
      (config) => {
        const pool = new Pg.Pool({
          ...config,
          max: options.maxConnections ?? 10,
          connectionTimeoutMillis: Duration.toMillis(options.connectTimeout ?? "5 seconds"),
          keepAlive: true,
          keepAliveInitialDelayMillis: 10_000
        })
        // an idle connection that dies is replaced when the next one is needed
        pool.on("error", () => {})
        return pool
      }
    ),
    (pool) => Effect.promise(() => pool.end()).pipe(Effect.interruptible, Effect.timeoutOption("1 second"))
  )

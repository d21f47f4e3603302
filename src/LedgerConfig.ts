/**
 * The Layer selected from config: `DATABASE_URL` decides where the log lives.
 *
 * | `DATABASE_URL` | backend |
 * |---|---|
 * | unset, empty, blank, `memory:` | memory |
 * | `sqlite://`, `sqlite::memory:`, `:memory:` | SQLite in memory |
 * | `sqlite:///runs/a.db`, `sqlite:////var/a.db`, `file:…`, a bare path | a SQLite file, relative or absolute |
 * | `postgres://…`, `postgresql://…`, `postgresql+driver://…` | Postgres |
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type { ConsumerStore } from "./ConsumerStore.js"
import * as internal from "./internal/backend.js"
import type { Ledger, LedgerAdmin } from "./Ledger.js"
import { type SetupError, StoreFailure } from "./LedgerError.js"
import type { LedgerStore } from "./LedgerStore.js"
import * as MemoryLedger from "./MemoryLedger.js"
import type * as StoreLedger from "./StoreLedger.js"

/**
 * Where a ledger lives.
 *
 * @since 0.1.0
 * @category models
 */
export type Backend = internal.Backend

/**
 * What the environment says.
 *
 * @since 0.1.0
 * @category models
 */
export interface LedgerConfig {
  readonly backend: Backend
  readonly prefix: string | undefined
  readonly schema: string | undefined
  readonly durability: "full" | "relaxed" | undefined
}

/**
 * What {@link layerUrl} can be told, of which each backend takes what has a meaning there: `schema` is for Postgres only,
 * and a ledger in memory has neither `prefix` nor `durability`. With `create: false` a ledger that is not there is a
 * `StoreFailure`, and one in memory never is.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends StoreLedger.Options {
  readonly prefix?: string | undefined
  readonly schema?: string | undefined
  readonly create?: boolean | undefined
  readonly durability?: "full" | "relaxed" | undefined
}

// an empty variable is what a compose file makes of one that is not set
const name = (variable: string) =>
  Config.string(variable).pipe(
    Config.validate({
      message: "expected 1 to 40 lowercase letters, digits and underscores that do not begin with a digit",
      validation: (value) => value.trim() === "" || /^[a-z_][a-z0-9_]{0,39}$/.test(value)
    }),
    // an empty variable is what a compose file makes of one that is not set
    Config.map((value) => value.trim() === "" ? undefined : value),
    optional
  )

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(config, undefined)

/**
 * Reads `DATABASE_URL`, `LEDGER_PREFIX`, `LEDGER_SCHEMA`, `LEDGER_DURABILITY` (`full` or `relaxed`) and
 * `LEDGER_REQUIRE_DURABLE` (with `true`, a missing `DATABASE_URL` is an error instead of a ledger in memory). What has no
 * meaning for the backend that is selected is read, and changes nothing: see {@link Options}.
 *
 * @example
 * ```ts
 * import { LedgerConfig } from "effect-ledger"
 * import { Config } from "effect"
 *
 * // reads AUDIT_DATABASE_URL, AUDIT_LEDGER_PREFIX, …
 * export const audit = LedgerConfig.layerConfig(Config.nested(LedgerConfig.config, "AUDIT"))
 * ```
 *
 * @since 0.1.0
 * @category config
 */
export const config: Config.Config<LedgerConfig> = Config.all({
  url: Config.redacted("DATABASE_URL").pipe(Config.withDefault(Redacted.make(""))),
  prefix: name("LEDGER_PREFIX"),
  schema: name("LEDGER_SCHEMA"),
  durability: optional(
    Config.map(Config.literal("full", "relaxed", "")("LEDGER_DURABILITY"), (value) => value === "" ? undefined : value)
  ),
  requireDurable: Config.boolean("LEDGER_REQUIRE_DURABLE").pipe(Config.withDefault(false))
}).pipe(
  Config.mapOrFail(({ durability, prefix, requireDurable, schema, url }) =>
    requireDurable && Redacted.value(url).trim() === ""
      ? Either.left(ConfigError.MissingData(
        ["DATABASE_URL"],
        "LEDGER_REQUIRE_DURABLE is true: set DATABASE_URL to a SQLite file (sqlite:///runs/a.db) or a Postgres URL"
      ))
      : Either.map(internal.parseUrl(url), (backend) => ({ backend, prefix, schema, durability }))
  )
)

/**
 * The ledger that `DATABASE_URL` selects. Drivers are imported when they are selected, not before.
 *
 * @example
 * ```ts
 * import { Ledger, LedgerConfig } from "effect-ledger"
 * import { Effect } from "effect"
 *
 * export const main = Ledger.latestOffset.pipe(Effect.provide(LedgerConfig.layer))
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<
  Ledger | LedgerAdmin | LedgerStore | ConsumerStore,
  ConfigError.ConfigError | SetupError
> = Layer
  .suspend(() => layerConfig(config))

/**
 * The ledger that a config selects.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (
  config: Config.Config<LedgerConfig>
): Layer.Layer<Ledger | LedgerAdmin | LedgerStore | ConsumerStore, ConfigError.ConfigError | SetupError> =>
  Layer.unwrapEffect(Effect.map(config, (read) => layerBackend(read.backend, read)))

/**
 * The ledger at a URL, in any form that `DATABASE_URL` may have.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerUrl = (
  url: Redacted.Redacted,
  options: Options = {}
): Layer.Layer<Ledger | LedgerAdmin | LedgerStore | ConsumerStore, ConfigError.ConfigError | SetupError> =>
  Layer.unwrapEffect(
    Effect.map(Effect.suspend(() => internal.parseUrl(url)), (backend) => layerBackend(backend, options))
  )

const layerBackend = (
  backend: Backend,
  options: Options
): Layer.Layer<Ledger | LedgerAdmin | LedgerStore | ConsumerStore, SetupError> => {
  switch (backend._tag) {
    case "Memory":
      return options.create === false
        ? Layer.fail(new StoreFailure({ method: "open", cause: new Error("there is no ledger in memory to open") }))
        : Layer.orDie(MemoryLedger.layerWith(options))
    case "Sqlite":
      return Layer.unwrapEffect(Effect.map(
        internal.load(() => import("./SqliteLedger.js"), "@effect/sql-sqlite-node"),
        (module) => module.layerFile(backend.filename, options)
      ))
    case "Postgres":
      return Layer.unwrapEffect(Effect.map(
        internal.load(() => import("./PgLedger.js"), "@effect/sql-pg"),
        (module) => module.layerUrl(backend.url, options)
      ))
  }
}

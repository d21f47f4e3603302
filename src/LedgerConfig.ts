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
import { fileURLToPath } from "node:url"
import type { ConsumerStore } from "./ConsumerStore.js"
import type { Ledger, LedgerAdmin } from "./Ledger.js"
import { DriverMissing, type SetupError, StoreFailure } from "./LedgerError.js"
import type { LedgerStore } from "./LedgerStore.js"
import * as MemoryLedger from "./MemoryLedger.js"
import type * as StoreLedger from "./StoreLedger.js"

/**
 * Where a ledger lives.
 *
 * @since 0.1.0
 * @category models
 */
export type Backend =
  | { readonly _tag: "Memory" }
  | { readonly _tag: "Sqlite"; readonly filename: string }
  | { readonly _tag: "Postgres"; readonly url: Redacted.Redacted }

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
 * What {@link layerUrl} can be told: `schema` is for Postgres only.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends StoreLedger.Options {
  readonly prefix?: string | undefined
  readonly schema?: string | undefined
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
 * `LEDGER_REQUIRE_DURABLE` (with `true`, a missing `DATABASE_URL` is an error instead of a ledger in memory).
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
  durability: optional(Config.literal("full", "relaxed")("LEDGER_DURABILITY")),
  requireDurable: Config.boolean("LEDGER_REQUIRE_DURABLE").pipe(Config.withDefault(false))
}).pipe(
  Config.mapOrFail(({ durability, prefix, requireDurable, schema, url }) =>
    requireDurable && Redacted.value(url).trim() === ""
      ? Either.left(ConfigError.MissingData(
        ["DATABASE_URL"],
        "LEDGER_REQUIRE_DURABLE is true: set DATABASE_URL to a SQLite file (sqlite:///runs/a.db) or a Postgres URL"
      ))
      : Either.map(parseUrl(url), (backend) => ({ backend, prefix, schema, durability }))
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
    Effect.map(Effect.suspend(() => parseUrl(url)), (backend) => layerBackend(backend, options))
  )

const layerBackend = (
  backend: Backend,
  options: Options
): Layer.Layer<Ledger | LedgerAdmin | LedgerStore | ConsumerStore, SetupError> => {
  switch (backend._tag) {
    case "Memory":
      return Layer.orDie(MemoryLedger.layerWith(options))
    case "Sqlite":
      return Layer.unwrapEffect(Effect.map(
        load(() => import("./SqliteLedger.js"), "@effect/sql-sqlite-node"),
        (module) => module.layerFile(backend.filename, options)
      ))
    case "Postgres":
      return Layer.unwrapEffect(Effect.map(
        load(() => import("./PgLedger.js"), "@effect/sql-pg"),
        (module) => module.layerUrl(backend.url, options)
      ))
  }
}

const load = <A>(module: () => Promise<A>, driver: string): Effect.Effect<A, SetupError> =>
  Effect.tryPromise({
    try: module,
    catch: (cause) =>
      cause instanceof Error && "code" in cause && cause.code === "ERR_MODULE_NOT_FOUND"
        // which brings what it needs itself
        ? new DriverMissing({ package: driver })
        : new StoreFailure({ method: "import", cause })
  })

const memory: Backend = { _tag: "Memory" }
const sqlite = (filename: string): Backend => ({ _tag: "Sqlite", filename })

const parseUrl = (redacted: Redacted.Redacted): Either.Either<Backend, ConfigError.ConfigError> => {
  const url = Redacted.value(redacted).trim()
  if (url === "" || url === "memory:") return Either.right(memory)
  if (url === ":memory:") return Either.right(sqlite(":memory:"))
  // one letter is a drive of Windows
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(url)?.[1]?.toLowerCase()
  switch (scheme?.replace(/\+.*$/, "")) {
    case undefined:
      // a file of that name would put a password into a listing of its folder
      return /\/\/[^/]*@/.test(url) ? invalid("a URL needs a scheme and a colon") : Either.right(sqlite(url))
    case "postgres":
    case "postgresql":
      return Either.right({ _tag: "Postgres", url: Redacted.make(`postgresql:${url.slice(url.indexOf(":") + 1)}`) })
    case "sqlite":
      return parseSqlite(url.slice(url.indexOf(":") + 1))
    case "file":
      return parseFile(url)
    default:
      return invalid(`the scheme "${scheme}" is not supported: use postgresql, sqlite, file, memory, or a path`)
  }
}

// as SQLAlchemy writes them: three slashes and a relative path, four and an absolute one
const parseSqlite = (rest: string): Either.Either<Backend, ConfigError.ConfigError> => {
  if (rest.includes("?")) return invalid("a sqlite URL takes no parameters")
  const path = decode(/^\/\/(?:\/(.*))?$/.exec(rest)?.[1] ?? (rest === "//" ? "" : rest))
  if (path === undefined || path.startsWith("//")) {
    return invalid("a sqlite URL has three slashes before a relative path and four before an absolute one")
  }
  return Either.right(sqlite(path === "" || path === ":memory:" ? ":memory:" : path))
}

const parseFile = (url: string): Either.Either<Backend, ConfigError.ConfigError> => {
  try {
    const path = url.startsWith("file:/") ? fileURLToPath(url) : decode(url.slice("file:".length))
    if (path !== undefined && path !== "") return Either.right(sqlite(path))
  } catch {
    // said below
  }
  return invalid("a file URL is file:relative/path or file:///absolute/path")
}

const decode = (path: string): string | undefined => {
  try {
    return decodeURIComponent(path)
  } catch {
    return undefined
  }
}

const invalid = (message: string) => Either.left(ConfigError.InvalidData(["DATABASE_URL"], message))

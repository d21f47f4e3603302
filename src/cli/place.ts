/** Which ledger a command is about: from `--url` and the environment to the Layer. */
import * as Options from "@effect/cli/Options"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as ConnectionString from "pg-connection-string"
import type { ConsumerStore } from "../ConsumerStore.js"
import * as Backend from "../internal/backend.js"
import * as postgres from "../internal/migrations/postgres.js"
import * as sqlite from "../internal/migrations/sqlite.js"
import type { Ledger, LedgerAdmin } from "../Ledger.js"
import * as LedgerConfig from "../LedgerConfig.js"
import type { SetupError, StoreError } from "../LedgerError.js"
import type { LedgerStore } from "../LedgerStore.js"

/** The command was used wrongly: nothing was done. */
export class Usage extends Data.TaggedError("Usage")<{ readonly message: string }> {}

/** What every command that is about a ledger understands. */
export const options = {
  url: Options.redacted("url").pipe(
    Options.withDescription("Where the ledger is: a path, a SQLite URL or a Postgres URL (DATABASE_URL unless told)."),
    Options.optional
  ),
  prefix: Options.text("prefix").pipe(
    Options.withDescription("The prefix of its table names (LEDGER_PREFIX, or ledger_ unless told)."),
    Options.optional
  ),
  schema: Options.text("schema").pipe(
    Options.withDescription("Its Postgres schema (LEDGER_SCHEMA unless told)."),
    Options.optional
  ),
  json: Options.boolean("json").pipe(Options.withDescription("Print JSON: one value, or a line for each of many."))
}

export interface Flags {
  readonly url: Option.Option<Redacted.Redacted>
  readonly prefix: Option.Option<string>
  readonly schema: Option.Option<string>
}

/** The ledger that a command is about, as far as people are told. */
export class Place extends Context.Tag("effect-ledger/cli/Place")<Place, {
  readonly backend: "SQLite" | "Postgres"
  /** A URL without a password, or a path. */
  readonly shown: string
  /** What is typed to confirm a reset. */
  readonly name: string
  readonly prefix: string
  readonly schema: string | null
  readonly durability: "full" | "relaxed"
  readonly setUpVersion: number
  readonly bytes: Effect.Effect<number, StoreError>
}>() {}

export type Services = Place | Ledger | LedgerAdmin | LedgerStore | ConsumerStore

/** The Layer of the ledger that the flags and the environment name. With `create: false` it has to be there. */
export const layer = (
  flags: Flags,
  create: boolean
): Layer.Layer<Services, Usage | ConfigError.ConfigError | SetupError> =>
  Layer.unwrapEffect(Effect.gen(function*() {
    const config = yield* read(flags)
    const { backend, durability = "full", prefix = "ledger_", schema } = config
    const options = { prefix, schema, durability, create }
    const place = (rest: Pick<Context.Tag.Service<Place>, "backend" | "shown" | "name" | "setUpVersion" | "bytes">) =>
      Place.of({ prefix, schema: schema ?? null, durability, ...rest })
    switch (backend._tag) {
      case "Memory":
        return yield* nowhere
      case "Sqlite": {
        const { filename } = backend
        if (filename === ":memory:") return yield* nowhere
        const { layerFile } = yield* Backend.load(() => import("../SqliteLedger.js"), "@effect/sql-sqlite-node")
        return Layer.succeed(
          Place,
          place({
            backend: "SQLite",
            shown: filename,
            name: named(Path.basename(filename), config),
            setUpVersion: sqlite.version,
            bytes: Effect.sync(() => sizeOf(filename) + sizeOf(`${filename}-wal`))
          })
        ).pipe(Layer.provideMerge(layerFile(filename, options)))
      }
      case "Postgres": {
        const { url } = backend
        const { database, shown } = describe(url)
        const { layerUrl } = yield* Backend.load(() => import("../PgLedger.js"), "@effect/sql-pg")
        const { size } = yield* Backend.load(() => import("../internal/pgStore.js"), "@effect/sql-pg")
        return Layer.effect(
          Place,
          Effect.contextWith((context: Context.Context<Effect.Effect.Context<ReturnType<typeof size>>>) =>
            place({
              backend: "Postgres",
              shown,
              name: named(database, config),
              setUpVersion: postgres.version,
              bytes: Effect.provide(size(prefix, schema), context)
            })
          )
        ).pipe(Layer.provideMerge(layerUrl(url, options)))
      }
    }
  }))

const read = (flags: Flags): Effect.Effect<LedgerConfig.LedgerConfig, ConfigError.ConfigError> => {
  const given = new Map<string, string>()
  if (Option.isSome(flags.url)) given.set("DATABASE_URL", Redacted.value(flags.url.value))
  if (Option.isSome(flags.prefix)) given.set("LEDGER_PREFIX", flags.prefix.value)
  if (Option.isSome(flags.schema)) given.set("LEDGER_SCHEMA", flags.schema.value)
  // whether memory is allowed is answered here
  given.set("LEDGER_REQUIRE_DURABLE", "false")
  return Effect.withConfigProvider(
    Config.unwrap(LedgerConfig.config),
    ConfigProvider.fromMap(given).pipe(ConfigProvider.orElse(() => ConfigProvider.fromEnv()))
  )
}

const nowhere = new Usage({
  message:
    "which ledger? Give --url, or set DATABASE_URL, to a SQLite file (runs/agents.db, sqlite:///runs/agents.db) " +
    "or a Postgres URL (postgresql://…); a ledger in memory would end with this command"
})

// several ledgers may share a database: those that were asked for by name are called by it
const named = (database: string, { prefix, schema }: LedgerConfig.LedgerConfig): string =>
  [database, schema, prefix].filter((part) => part !== undefined).join(".")

const sizeOf = (path: string): number => Fs.statSync(path, { throwIfNoEntry: false })?.size ?? 0

/** Only what is no secret: parameters may hold passwords too. */
const describe = (url: Redacted.Redacted): { readonly database: string; readonly shown: string } => {
  try {
    const { database, host, port, user } = ConnectionString.parse(Redacted.value(url))
    const name = database ?? user ?? "postgres"
    return {
      database: name,
      shown: `postgresql://${user === undefined ? "" : `${user}@`}${host ?? ""}${port ? `:${port}` : ""}/${name}`
    }
  } catch {
    return { database: "postgres", shown: "postgresql:…" }
  }
}

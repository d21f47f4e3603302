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
import type * as PgLedger from "../PgLedger.js"
import type * as SqliteLedger from "../SqliteLedger.js"

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
  /** No ledger of another one can be opened. */
  readonly setUpVersion: number
  readonly bytes: Effect.Effect<number, StoreError>
}>() {}

/** For a command that only looks: the ledger has to be there, and is left as it is. */
export const reading = (flags: Flags): Located<Ledger | LedgerStore> =>
  located(flags, {
    sqlite: ({ layerReadonly }, filename, options) => layerReadonly(filename, options),
    postgres: ({ layerReadonly }, url, options) => layerReadonly(url, options)
  })

/** For a command that changes a ledger, which has to be there. */
export const changing = (flags: Flags): Located<Services> => located(flags, writing(false))

/** For a command that makes the ledger where there is none. */
export const making = (flags: Flags): Located<Services> => located(flags, writing(true))

/** Where a URL of another place leads: a file or a server. */
export const parse = (url: Redacted.Redacted): Effect.Effect<Backend.Backend, Usage | ConfigError.ConfigError> =>
  Effect.tap(Backend.parseUrl(url), (backend): Effect.Effect<unknown, Usage> => {
    if (backend._tag === "Postgres") return describe(backend.url)
    return backend._tag === "Memory" || backend.filename === ":memory:"
      ? new Usage({ message: "what is in memory ends with this command: name a file or a Postgres URL" })
      : Effect.void
  })

type Services = Ledger | LedgerAdmin | LedgerStore | ConsumerStore
type Located<A> = Layer.Layer<Place | A, Usage | ConfigError.ConfigError | SetupError>

interface Opening<A> {
  readonly sqlite: (module: typeof SqliteLedger, filename: string, options: Options) => Layer.Layer<A, SetupError>
  readonly postgres: (module: typeof PgLedger, url: Redacted.Redacted, options: Options) => Layer.Layer<A, SetupError>
}
type Options = Pick<LedgerConfig.Options, "prefix" | "schema" | "durability">

const writing = (create: boolean): Opening<Services> => ({
  sqlite: ({ layerFile }, filename, options) => layerFile(filename, { ...options, create }),
  postgres: ({ layerUrl }, url, options) => layerUrl(url, { ...options, create })
})

const located = <A>(flags: Flags, open: Opening<A>): Located<A> =>
  Layer.unwrapEffect(Effect.gen(function*() {
    const { backend, durability = "full", prefix: given, schema: configured } = yield* read(flags)
    const prefix = given ?? "ledger_"
    const place = (
      schema: string | undefined,
      database: string,
      rest: Pick<Context.Tag.Service<Place>, "backend" | "shown" | "setUpVersion" | "bytes">
    ) =>
      Layer.succeed(
        Place,
        // several ledgers may share a database: those that were asked for by name are called by it
        { prefix, schema: schema ?? null, durability, name: join([database, schema, given]), ...rest }
      )
    switch (backend._tag) {
      case "Memory":
        return yield* nowhere
      case "Sqlite": {
        const { filename } = backend
        if (filename === ":memory:") return yield* nowhere
        if (isGiven(flags.schema)) return yield* noSchema("--schema", filename)
        const module = yield* Backend.load(() => import("../SqliteLedger.js"), "@effect/sql-sqlite-node")
        return Layer.merge(
          place(undefined, Path.basename(filename), {
            backend: "SQLite",
            shown: filename,
            setUpVersion: sqlite.version,
            bytes: Effect.sync(() => sizeOf(filename) + sizeOf(`${filename}-wal`))
          }),
          open.sqlite(module, filename, { prefix, durability })
        )
      }
      case "Postgres": {
        const { url } = backend
        const { database, shown } = yield* describe(url)
        const module = yield* Backend.load(() => import("../PgLedger.js"), "@effect/sql-pg")
        const { size } = yield* Backend.load(() => import("../internal/pgStore.js"), "@effect/sql-pg")
        return Layer.merge(
          place(configured, database, {
            backend: "Postgres",
            shown,
            setUpVersion: postgres.version,
            bytes: size(url, prefix, configured)
          }),
          open.postgres(module, url, { prefix, schema: configured, durability })
        )
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

/** Whether a flag says something: an empty one is what a script makes of a variable that is not set. */
export const isGiven = (flag: Option.Option<string>): boolean => Option.exists(flag, (text) => text.trim() !== "")

/** A flag that would be ignored, by somebody who means it. */
export const noSchema = (flag: string, filename: string): Usage =>
  new Usage({ message: `${flag} is for Postgres, and ${filename} is a SQLite file: leave it out, or use a prefix` })

const join = (parts: ReadonlyArray<string | undefined>): string => parts.filter((part) => part !== undefined).join(".")

const sizeOf = (path: string): number => Fs.statSync(path, { throwIfNoEntry: false })?.size ?? 0

/** Only what is no secret: parameters may hold passwords too. */
const describe = (
  url: Redacted.Redacted
): Effect.Effect<{ readonly database: string; readonly shown: string }, Usage> =>
  Effect.try({
    try: () => {
      const { database, host, port, user } = ConnectionString.parseIntoClientConfig(Redacted.value(url))
      const name = database || user || "postgres"
      return {
        database: name,
        shown: `postgresql://${user ? `${user}@` : ""}${host ?? ""}${port ? `:${port}` : ""}/${name}`
      }
    },
    // what the parser throws may quote the URL
    catch: () =>
      new Usage({
        message: "the connection URL cannot be read: expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, " +
          "with parameters whose files are there"
      })
  })

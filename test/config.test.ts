import { PgClient } from "@effect/sql-pg"
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Redacted from "effect/Redacted"
import { randomUUID } from "node:crypto"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { inspect } from "node:util"
import { afterAll, beforeAll, inject } from "vitest"
import * as Event from "../src/Event.js"
import * as Ledger from "../src/Ledger.js"
import * as LedgerConfig from "../src/LedgerConfig.js"
import * as PgLedger from "../src/PgLedger.js"
import { type PostgresServer, startPostgres } from "./support/postgres.js"

type Environment = Readonly<Record<string, string>>

describe("DATABASE_URL", () => {
  const memory = { _tag: "Memory" }
  const sqlite = (filename: string) => ({ _tag: "Sqlite", filename })

  it.effect("selects memory when it is not set", () =>
    Effect.gen(function*() {
      expect(yield* read({})).toStrictEqual({
        backend: memory,
        prefix: undefined,
        schema: undefined,
        durability: undefined
      })
    }))

  it.effect.each<[string, object]>([
    ["", memory],
    ["  \t\n", memory],
    ["memory:", memory],
    [" memory: ", memory],
    [":memory:", sqlite(":memory:")],
    ["sqlite://", sqlite(":memory:")],
    ["sqlite:///", sqlite(":memory:")],
    ["sqlite::memory:", sqlite(":memory:")],
    ["sqlite:///:memory:", sqlite(":memory:")],
    ["sqlite:///runs/a.db", sqlite("runs/a.db")],
    ["sqlite:///a%20b.db", sqlite("a b.db")],
    ["sqlite:////var/a.db", sqlite("/var/a.db")],
    ["sqlite+aiosqlite:////var/a.db", sqlite("/var/a.db")],
    ["SQLite:///runs/a.db", sqlite("runs/a.db")],
    ["sqlite:runs/a.db", sqlite("runs/a.db")],
    ["  sqlite:///runs/a.db  ", sqlite("runs/a.db")],
    ["file:runs/a.db", sqlite("runs/a.db")],
    ["file:./a.db", sqlite("./a.db")],
    ["runs/a.db", sqlite("runs/a.db")],
    ["./a b.db", sqlite("./a b.db")],
    ["/var/a.db", sqlite("/var/a.db")],
    ["a%20b.db", sqlite("a%20b.db")],
    ["C:\\runs\\a.db", sqlite("C:\\runs\\a.db")],
    ...(path.sep === "/" ? [["file:///var/a%20b.db", sqlite("/var/a b.db")]] satisfies Array<[string, object]> : [])
  ])("%j", ([url, expected]) =>
    Effect.gen(function*() {
      expect((yield* read({ DATABASE_URL: url })).backend).toStrictEqual(expected)
    }))

  it.effect.each([
    ["postgres://ada:secret@db.example/agents", "postgresql://ada:secret@db.example/agents"],
    ["postgresql://ada:secret@db.example/agents", "postgresql://ada:secret@db.example/agents"],
    ["postgresql+psycopg://ada:secret@db.example:5433/agents", "postgresql://ada:secret@db.example:5433/agents"],
    ["postgres+asyncpg://ada:p%40ss@db.example/agents", "postgresql://ada:p%40ss@db.example/agents"],
    ["POSTGRES://ada:secret@db.example/agents", "postgresql://ada:secret@db.example/agents"],
    [" postgres://ada:secret@db.example/agents\n", "postgresql://ada:secret@db.example/agents"],
    [
      "postgresql://ada:npg_x@ep-a-1-pooler.eu-central-1.aws.neon.tech/db?sslmode=require&channel_binding=require",
      "postgresql://ada:npg_x@ep-a-1-pooler.eu-central-1.aws.neon.tech/db?sslmode=require&channel_binding=require"
    ]
  ])("%j is Postgres", ([url, expected]) =>
    Effect.gen(function*() {
      const config = yield* read({ DATABASE_URL: url! })
      if (config.backend._tag !== "Postgres") throw new Error(config.backend._tag)
      expect(Redacted.value(config.backend.url)).toBe(expected)
      // whoever prints the config sees no password
      expect(`${JSON.stringify(config)}${inspect(config, { depth: 10 })}${String(config.backend.url)}`).not.toMatch(
        /secret|p%40ss|npg_x/
      )
    }))

  it.effect.each([
    ["mysql://ada:secret@db.example/agents", "mysql"],
    ["MySQL+pymysql://ada:secret@db.example/agents", "mysql+pymysql"],
    ["redis://:secret@db.example", "redis"],
    ["https://ada:secret@db.example/", "https"],
    ["postgresq://ada:secret@db.example/agents", "postgresq"],
    ["sqlite3:///secret.db", "sqlite3"]
  ])("%j is refused, by its scheme only", ([url, scheme]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(read({ DATABASE_URL: url! }))
      expect(ConfigError.isInvalidData(error) && error.path).toStrictEqual(["DATABASE_URL"])
      expect(String(error)).toContain(`"${scheme}"`)
      expect(rendered(error)).not.toMatch(/secret|db\.example/)
    }))

  it.effect.each([
    "sqlite://secret/a.db",
    "sqlite://///secret.db",
    "sqlite:///%zzsecret",
    "file:",
    "file:%zzsecret",
    "file://secret.example/a.db",
    "postgres//ada:secret@db.example/agents",
    "ada:secret@db.example/agents",
    "//ada:secret@db.example/agents"
  ])("%j is refused, and not shown", (url) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(read({ DATABASE_URL: url }))
      expect(ConfigError.isInvalidData(error) && error.path).toStrictEqual(["DATABASE_URL"])
      expect(rendered(error)).not.toMatch(/secret|db\.example/)
    }))
})

describe("the other variables", () => {
  it.effect("are read", () =>
    Effect.gen(function*() {
      expect(
        yield* read({
          DATABASE_URL: "a.db",
          LEDGER_PREFIX: "audit_",
          LEDGER_SCHEMA: "tenant_7",
          LEDGER_DURABILITY: "relaxed"
        })
      ).toStrictEqual({
        backend: { _tag: "Sqlite", filename: "a.db" },
        prefix: "audit_",
        schema: "tenant_7",
        durability: "relaxed"
      })
      expect((yield* read({ LEDGER_DURABILITY: "full" })).durability).toBe("full")
      expect((yield* read({ LEDGER_PREFIX: "a".repeat(40) })).prefix).toHaveLength(40)
    }))

  it.effect.each<[string, string]>(
    [
      ...["A", "1a", "a-b", "a b", "a\"b", "a;drop", "ä", "a".repeat(41)].flatMap((
        value
      ): Array<[string, string]> => [
        ["LEDGER_PREFIX", value],
        ["LEDGER_SCHEMA", value]
      ]),
      ["LEDGER_DURABILITY", "FULL"],
      ["LEDGER_DURABILITY", "none"],
      ["LEDGER_REQUIRE_DURABLE", "perhaps"]
    ]
  )("%s=%j is refused instead of taken for the default", ([variable, value]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(read({ [variable]: value }))
      expect(ConfigError.isInvalidData(error) && error.path).toStrictEqual([variable])
    }))

  it.effect("an empty name is one that is not set", () =>
    Effect.gen(function*() {
      const { durability, prefix, schema } = yield* read({
        LEDGER_PREFIX: "",
        LEDGER_SCHEMA: " ",
        LEDGER_DURABILITY: ""
      })
      expect(durability).toBeUndefined()
      expect([prefix, schema]).toStrictEqual([undefined, undefined])
    }))

  it.effect("parameters of a SQLite URL are refused instead of taken for a part of the name", () =>
    Effect.gen(function*() {
      expect(ConfigError.isInvalidData(yield* Effect.flip(read({ DATABASE_URL: "sqlite:///a.db?mode=ro" })))).toBe(true)
    }))

  it.effect.each<Environment>([{}, { DATABASE_URL: "" }, { DATABASE_URL: "  " }])(
    "LEDGER_REQUIRE_DURABLE refuses a ledger that nobody placed: %j",
    (environment) =>
      Effect.gen(function*() {
        for (const yes of ["true", "yes", "on", "1"]) {
          const error = yield* Effect.flip(read({ ...environment, LEDGER_REQUIRE_DURABLE: yes }))
          expect(ConfigError.isMissingData(error) && error.path).toStrictEqual(["DATABASE_URL"])
          expect(String(error)).toMatch(/set DATABASE_URL to .*sqlite:\/\/\/.*Postgres/)
        }
        expect((yield* read({ ...environment, LEDGER_REQUIRE_DURABLE: "false" })).backend._tag).toBe("Memory")
      })
  )

  it.effect("LEDGER_REQUIRE_DURABLE lets a database be selected", () =>
    Effect.gen(function*() {
      const config = yield* read({ DATABASE_URL: "a.db", LEDGER_REQUIRE_DURABLE: "true" })
      expect(config.backend._tag).toBe("Sqlite")
    }))

  it.effect("can be nested, and errors then name the whole path", () =>
    Effect.gen(function*() {
      const nested = (environment: Environment) =>
        Effect.withConfigProvider(
          Config.nested(LedgerConfig.config, "AUDIT"),
          ConfigProvider.fromMap(new Map(Object.entries(environment)), { pathDelim: "_" })
        )
      expect(
        yield* nested({
          AUDIT_DATABASE_URL: "a.db",
          AUDIT_LEDGER_PREFIX: "x_",
          DATABASE_URL: "b.db",
          LEDGER_PREFIX: "y_"
        })
      ).toMatchObject({ backend: { filename: "a.db" }, prefix: "x_" })
      const missing = yield* Effect.flip(nested({ AUDIT_LEDGER_REQUIRE_DURABLE: "true", DATABASE_URL: "b.db" }))
      expect(ConfigError.isMissingData(missing) && missing.path).toStrictEqual(["AUDIT", "DATABASE_URL"])
      const invalid = yield* Effect.flip(nested({ AUDIT_DATABASE_URL: "mysql://ada:secret@h/d" }))
      expect(ConfigError.isInvalidData(invalid) && invalid.path).toStrictEqual(["AUDIT", "DATABASE_URL"])
      expect(rendered(invalid)).not.toContain("secret")
    }))
})

describe("the Layer that is selected", () => {
  const appendOne = Effect.gen(function*() {
    const event = yield* Event.create({ runId: "r", turn: 0, kind: "run.started", actor: "ada", payload: { a: 1 } })
    return yield* Ledger.append(event)
  })

  it.live.each<Environment>([{}, { DATABASE_URL: ":memory:" }])(
    "%j: a new ledger each time",
    (environment) =>
      Effect.gen(function*() {
        for (const _ of [1, 2]) {
          expect(yield* Effect.provide(appendOne, layer(environment))).toMatchObject({ _tag: "Appended", offset: 1 })
        }
      })
  )

  it.live.each<[string, (file: string) => string]>([
    ["a sqlite URL with an absolute path", (file) => `sqlite:///${file}`],
    ["a sqlite URL with a relative path", (file) => `sqlite:///${path.relative(process.cwd(), file)}`],
    ["a file URL", (file) => `file://${file}`],
    ["a relative file URL", (file) => `file:${path.relative(process.cwd(), file)}`],
    ["a bare path", (file) => file],
    ["a bare relative path", (file) => path.relative(process.cwd(), file)]
  ])("%s: the file is created with its folder, and opened again", ([_, url]) =>
    Effect.gen(function*() {
      const folder = yield* temporaryFolder
      const file = path.join(folder, "runs", "a.db")
      const ledger = layer({ DATABASE_URL: url(file), LEDGER_PREFIX: "log_" })
      yield* Effect.provide(appendOne, ledger)
      expect(yield* Effect.provide(appendOne, ledger)).toMatchObject({ _tag: "Appended", offset: 2 })
      expect(fs.readFileSync(file).subarray(0, 15).toString()).toBe("SQLite format 3")
      // the prefix was heeded: under the default one there is another ledger
      expect(yield* Effect.provide(Ledger.latestOffset, layer({ DATABASE_URL: url(file) }))).toBe(0)
    }).pipe(Effect.scoped))

  it.live("Postgres, in the schema that is asked for", () =>
    Effect.gen(function*() {
      const url = inject("databaseUrl")
      const schema = yield* temporarySchema
      const environment = { DATABASE_URL: url.replace(/^postgres(ql)?:/, "postgresql+psycopg:"), LEDGER_SCHEMA: schema }
      expect(yield* Effect.provide(appendOne, layer(environment))).toMatchObject({ offset: 1 })
      expect(yield* Effect.provide(appendOne, layer(environment))).toMatchObject({ offset: 2 })
      expect(yield* Effect.provide(Ledger.latestOffset, LedgerConfig.layerUrl(Redacted.make(url), { schema }))).toBe(2)
      const tables = yield* Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`SELECT table_name FROM information_schema.tables WHERE table_schema = ${schema}`
      ).pipe(Effect.provide(client))
      expect(tables.map((row) => String(row["table_name"]))).toContain("ledger_events")
    }).pipe(Effect.scoped))

  it.live.each(["", "memory:", ":memory:"])(
    "%j with create: false is a StoreFailure: nothing was there before",
    (url) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(
          Effect.provide(Ledger.latestOffset, LedgerConfig.layerUrl(Redacted.make(url), { create: false }))
        )
        expect(error).toMatchObject({ _tag: "StoreFailure", method: "open" })
        expect(error.message).toContain("there is no ledger")
      })
  )

  it.live("in memory there is nothing that a prefix, a schema or the durability could change", () =>
    Effect.gen(function*() {
      const environment = { LEDGER_PREFIX: "log_", LEDGER_SCHEMA: "tenant_7", LEDGER_DURABILITY: "relaxed" }
      expect(yield* Effect.provide(appendOne, layer(environment))).toMatchObject({ _tag: "Appended", offset: 1 })
    }))

  it.live("fails with the ConfigError, through layer, layerConfig and layerUrl", () =>
    Effect.gen(function*() {
      const url = "mysql://ada:secret@h/d"
      const layers = [
        layer({ DATABASE_URL: url }),
        LedgerConfig.layerConfig(Config.nested(LedgerConfig.config, "AUDIT")).pipe(
          Layer.provide(Layer.setConfigProvider(provider({ "AUDIT.DATABASE_URL": url })))
        ),
        LedgerConfig.layerUrl(Redacted.make(url))
      ]
      for (const one of layers) {
        const exit = yield* Effect.exit(Effect.scoped(Layer.build(one)))
        const failure = Exit.isFailure(exit) ? Cause.failureOption(exit.cause) : exit
        expect(failure).toMatchObject({ value: { _op: "InvalidData" } })
        expect(rendered(exit)).not.toContain("secret")
      }
    }))
})

describe("the password", () => {
  // a server that asks for one, whatever server the other tests were given
  let server: PostgresServer
  beforeAll(async () => {
    server = await startPostgres()
  })
  afterAll(() => server.stop())

  const password = `pw-${randomUUID()}`

  const withPassword = (change: (url: URL) => void): string => {
    const url = new URL(server.url)
    url.password = password
    change(url)
    return url.href
  }

  it.live.each<[string, (url: URL) => void, ReadonlyArray<string>]>([
    ["the server refuses it", () => {}, ["StoreUnavailable", "StoreFailure"]],
    ["nobody listens", (url) => void (url.port = "1"), ["StoreUnavailable"]],
    ["the host does not exist", (url) => void (url.hostname = "no-such-host.invalid"), ["StoreUnavailable"]],
    ["the database does not exist", (url) => void (url.pathname = "/no_such_database"), [
      "StoreUnavailable",
      "StoreFailure"
    ]],
    ["the server speaks no TLS", (url) => void url.searchParams.set("sslmode", "require"), [
      "StoreUnavailable",
      "StoreFailure"
    ]],
    ["a parameter names a file that is not there", (url) => void url.searchParams.set("sslrootcert", "/no/such/file"), [
      "StoreFailure"
    ]]
  ])("appears in no error and no log line when %s", ([_, change, tags]) =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const capture = Logger.make((options) => {
        lines.push(rendered(options.message), Cause.pretty(options.cause), rendered(Array.from(options.annotations)))
      })
      const exit = yield* Ledger.latestOffset.pipe(
        Effect.provide(layer({ DATABASE_URL: withPassword(change) })),
        Effect.sandbox,
        Effect.tapError((cause) => Effect.logError("could not open", cause)),
        Effect.unsandbox,
        Effect.provide(Logger.replace(Logger.defaultLogger, capture)),
        Logger.withMinimumLogLevel(LogLevel.All),
        Effect.exit
      )
      if (Exit.isSuccess(exit)) throw new Error("it opened")
      const failure = Cause.failureOption(exit.cause)
      expect(failure._tag === "Some" ? failure.value._tag : Cause.pretty(exit.cause)).toSatisfy((tag) =>
        tags.includes(tag)
      )
      const all = `${rendered(exit)}\n${rendered(Cause.squash(exit.cause))}\n${Cause.pretty(exit.cause)}\n${
        lines.join("\n")
      }`
      expect(lines.join("\n")).toContain("could not open")
      expect(all).not.toContain(password)
    }))

  it.live("appears nowhere in the client that the Layer gives, nor in the Layer's services", () =>
    Effect.gen(function*() {
      const schema = "any"
      const url = server.url
      const context = yield* Layer.build(PgLedger.layerUrl(Redacted.make(url), { schema }))
      const secret = decodeURIComponent(new URL(url).password)
      expect(secret.length).toBeGreaterThan(8)
      const pg = Context.get(context, PgClient.PgClient)
      yield* pg`SELECT 1`
      const shown = `${inspect(pg, { depth: 10 })}${inspect(pg.config, { depth: 10 })}${
        inspect(context, { depth: 10 })
      }`
      expect(shown).not.toContain(secret)
      expect(shown).not.toContain(url)
      expect(JSON.stringify(pg.config)).not.toContain(secret)
      // the proof that it could have been seen
      expect(inspect({ pool: { options: { connectionString: url } } }, { depth: 10 })).toContain(secret)
    }).pipe(Effect.scoped))

  it.live("appears in no error of a statement that fails", () =>
    Effect.gen(function*() {
      const schema = "any"
      const url = server.url
      const context = yield* Layer.build(PgLedger.layerUrl(Redacted.make(url), { schema }))
      const exit = yield* Effect.exit(Context.get(context, PgClient.PgClient)`SELECT * FROM no_such_table`)
      expect(Exit.isFailure(exit)).toBe(true)
      expect(rendered(exit)).toContain("no_such_table")
      expect(rendered(exit)).not.toContain(decodeURIComponent(new URL(url).password))
    }).pipe(Effect.scoped))
})

const provider = (environment: Environment) => ConfigProvider.fromMap(new Map(Object.entries(environment)))

const read = (environment: Environment) => Effect.withConfigProvider(LedgerConfig.config, provider(environment))

const layer = (environment: Environment) =>
  LedgerConfig.layer.pipe(Layer.provide(Layer.setConfigProvider(provider(environment))))

const client = Layer.unwrapEffect(
  Effect.sync(() => PgClient.layer({ url: Redacted.make(inject("databaseUrl")), connectTimeout: "10 seconds" }))
)

const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "effect-ledger-config-"))),
  (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true, force: true }))
)

const temporarySchema = Effect.acquireRelease(
  Effect.sync(() => `config_${randomUUID().slice(0, 8)}`),
  (schema) =>
    Effect.flatMap(PgClient.PgClient, (sql) => sql.unsafe(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)).pipe(
      Effect.provide(client),
      Effect.orDie
    )
)

/** Everything that a program could print of a value, with the causes of errors and members that are not enumerable. */
const rendered = (value: unknown): string => {
  const parts: Array<string> = []
  const seen = new Set<unknown>()
  const visit = (one: unknown): void => {
    if (typeof one !== "object" || one === null || seen.has(one)) return
    seen.add(one)
    parts.push(inspect(one, { depth: 10, showHidden: true }), String(one))
    if (one instanceof Error) parts.push(one.message, one.stack ?? "")
    if (Cause.isCause(one)) parts.push(Cause.pretty(one, { renderErrorCause: true }))
    if ("cause" in one) visit(one.cause)
    if ("error" in one) visit(one.error)
  }
  visit(value)
  try {
    parts.push(JSON.stringify(value) ?? "")
  } catch {
    // a cycle, which inspect has shown
  }
  return parts.join("\n")
}

/** Databases as the Python ledgers wrote them, made here by the drivers, and what is imported from them. */
import { afterAll, beforeAll, describe, expect, inject, it } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { ConfigError, DateTime, Effect, Logger, LogLevel, Redacted } from "effect"
import { createHash, randomBytes } from "node:crypto"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { Client } from "pg"
import { Ancestor, type Event, Ledger, LedgerError, MemoryLedger } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { event } from "./contract/fixtures.js"
import { expectEvents, failure, open, over, recordedAt } from "./contract/handle.js"

const root = Fs.mkdtempSync(join(tmpdir(), "effect-ledger-ancestor-"))
const url = inject("databaseUrl")
const prefix = `ancestor_${randomBytes(4).toString("hex")}`
const schemas: Array<string> = []
let postgres: Client

beforeAll(async () => {
  postgres = new Client(url)
  await postgres.connect()
})
afterAll(async () => {
  Fs.rmSync(root, { recursive: true, force: true })
  for (const schema of schemas) await postgres.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)
  await postgres.end()
})

/** A row of the ancestor's table; what is not given is as in a plain one. */
type Row = Readonly<Record<string, unknown>>

const columns = ["id", "run_id", "turn", "kind", "actor", "payload", "created_at"] as const
const later = ["schema_version", "session_id", "model_profile", "model_id"] as const

const row = (offset: number, over: Row = {}): Row => ({
  offset,
  id: `e${offset}`,
  run_id: "run-1",
  turn: 0,
  kind: "agent.spoke",
  actor: "ada",
  payload: "{\"said\": \"caf\\u00e9\"}",
  created_at: "2026-01-01 00:00:00.000000",
  schema_version: 1,
  session_id: null,
  model_profile: null,
  model_id: null,
  ...over
})

const eventOf = (offset: number, over: Partial<Event.Event> = {}): Event.Event =>
  event(`e${offset}`, { payload: { said: "café" }, ...over })

// what SQLAlchemy 2 writes for the ancestor's table
const sqliteTable = `CREATE TABLE events (
	"offset" INTEGER NOT NULL,
	id VARCHAR(64) NOT NULL,
	run_id VARCHAR NOT NULL,
	turn INTEGER NOT NULL,
	kind VARCHAR NOT NULL,
	actor VARCHAR NOT NULL,
	payload TEXT NOT NULL,
	created_at DATETIME NOT NULL,
	schema_version INTEGER DEFAULT '1' NOT NULL,
	session_id VARCHAR,
	model_profile VARCHAR,
	model_id VARCHAR,
	PRIMARY KEY ("offset"),
	UNIQUE (id)
)`
const postgresTable = sqliteTable
  .replace("\"offset\" INTEGER", "\"offset\" SERIAL")
  .replace("DATETIME", "TIMESTAMP WITH TIME ZONE")
const indices = ["actor", "kind", "model_id", "run_id", "session_id"]
  .map((column) => `CREATE INDEX ix_events_${column} ON events (${column})`)
  .concat("CREATE INDEX ix_events_run_offset ON events (run_id, \"offset\")")

/** As the ledger for SQLite alone had it, before later columns came. */
const olderTable = `CREATE TABLE events (
  "offset" INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, run_id TEXT NOT NULL, turn INTEGER NOT NULL,
  kind TEXT NOT NULL, actor TEXT NOT NULL, payload TEXT NOT NULL, created_at TEXT NOT NULL
)`
const looseTable = `CREATE TABLE events ("offset" INTEGER PRIMARY KEY, ${[...columns, ...later].join(", ")})`

interface Database {
  readonly url: Redacted.Redacted
  readonly insert: (rows: ReadonlyArray<Row>) => Effect.Effect<void>
}

const sqlite = (
  rows: ReadonlyArray<Row>,
  table = sqliteTable,
  pragma = "journal_mode = delete"
): Database & { readonly file: string; readonly client: Sqlite.Database } => {
  const file = join(Fs.mkdtempSync(join(root, "s-")), "old.db")
  const client = new Sqlite(file)
  client.pragma(pragma)
  client.exec([table, ...(table === sqliteTable ? indices : [])].join(";\n"))
  const insert = (rows: ReadonlyArray<Row>) =>
    client.transaction(() => {
      for (const row of rows) {
        const keys = Object.keys(row)
        client.prepare(
          `INSERT INTO events (${keys.map((key) => `"${key}"`).join(", ")}) VALUES (${keys.map(() => "?").join(", ")})`
        ).run(Object.values(row))
      }
    })()
  insert(rows)
  return { url: Redacted.make(file), file, client, insert: (rows) => Effect.sync(() => insert(rows)) }
}

const inPostgres = (
  rows: ReadonlyArray<Row>,
  table = postgresTable,
  settings = ""
): Effect.Effect<Database & { readonly schema: string }> =>
  Effect.promise(async () => {
    const schema = `${prefix}_${schemas.length}`
    schemas.push(schema)
    await postgres.query(`CREATE SCHEMA ${schema}`)
    await postgres.query(`SET search_path = ${schema}`)
    await postgres.query([table, ...(table === postgresTable ? indices : [])].join(";\n"))
    const insert = async (rows: ReadonlyArray<Row>) => {
      for (const row of rows) {
        const keys = Object.keys(row)
        await postgres.query(
          `INSERT INTO ${schema}.events (${keys.map((key) => `"${key}"`).join(", ")}) VALUES (${
            keys.map((_, n) => `$${n + 1}`).join(", ")
          })`,
          Object.values(row)
        )
      }
    }
    await insert(rows)
    const address = new URL(url)
    address.searchParams.set("options", `-c search_path=${schema} ${settings}`)
    return {
      schema,
      url: Redacted.make(address.href.replaceAll("+", "%20").replace(/^postgres(ql)?:/, "postgresql+psycopg:")),
      insert: (rows) => Effect.promise(() => insert(rows))
    }
  })

const databases: Record<string, (rows: ReadonlyArray<Row>) => Effect.Effect<Database>> = {
  SQLite: (rows) => Effect.sync(() => sqlite(rows)),
  Postgres: (rows) => inPostgres(rows.map((row) => ({ ...row, created_at: `${String(row.created_at)}+00` })))
}

const nothing = { appended: 0, duplicates: 0, divergent: 0, invalid: 0, divergentIds: [], invalidRows: [] }
const without = ({ offset }: Row, ...keys: ReadonlyArray<string>): Row =>
  Object.fromEntries(Object.entries(row(Number(offset))).filter(([key]) => !keys.includes(key)))
const ids = Effect.map(Ledger.events, (all) => all.map(({ id }) => id))

for (const [name, database] of Object.entries(databases)) {
  describe(`what both have in common: ${name}`, () => {
    it.live("is imported in the order of its offsets, whatever holes they have, and twice is once", () =>
      Effect.gen(function*() {
        const offsets = Array.from({ length: 2500 }, (_, n) => 3 * n + 2)
        const source = yield* database(offsets.map((offset) => row(offset)))
        yield* source.insert([
          row(-5, {
            run_id: "run \u{1f4be}",
            turn: 2 ** 31 - 1,
            kind: "run.started",
            actor: "a\nb",
            schema_version: 4,
            session_id: "s",
            model_profile: "p",
            model_id: "m",
            payload: "{\"b\": [1.0, 1e22, null], \"a\": {}}",
            created_at: "2026-01-01 00:00:00.999999"
          })
        ])
        const told: Array<Ancestor.Imported> = []
        const imported = yield* Ancestor.importFrom(source.url, {
          onProgress: (progress) => Effect.sync(() => void told.push(progress))
        })
        expect(imported).toStrictEqual({ ...nothing, offset: 7499, head: 7499, appended: 2501 })
        expect(told.map(({ appended, head, offset }) => [appended, offset, head])).toStrictEqual([
          [1000, 2996, 7499],
          [2000, 5996, 7499],
          [2501, 7499, 7499]
        ])
        const expected = [
          eventOf(-5, {
            runId: "run \u{1f4be}",
            turn: 2 ** 31 - 1,
            kind: "run.started",
            actor: "a\nb",
            schemaVersion: 4,
            sessionId: "s",
            modelProfile: "p",
            modelId: "m",
            payload: { a: {}, b: [1, 1e22, null] },
            createdAt: DateTime.unsafeMake("2026-01-01T00:00:00.999Z")
          }),
          ...offsets.map((offset) => eventOf(offset))
        ]
        expectEvents(yield* Ledger.events, recordedAt(1, expected))
        yield* source.insert([row(9000)])
        const again = yield* Ancestor.importFrom(source.url)
        expect(again).toStrictEqual({ ...nothing, offset: 9000, head: 9000, appended: 1, duplicates: 2501 })
        const rest = yield* Ancestor.importFrom(source.url, { after: 7496 })
        expect(rest).toStrictEqual({ ...nothing, offset: 9000, head: 9000, duplicates: 2 })
      }).pipe(Effect.provide(MemoryLedger.layer)))

    it.live("an id that is recorded with other content is reported, and stands", () =>
      Effect.gen(function*() {
        yield* Ledger.append(eventOf(2, { actor: "bob" }))
        const { url } = yield* database([row(1), row(2), row(3)])
        const imported = yield* Ancestor.importFrom(url)
        expect(imported).toMatchObject({ appended: 2, duplicates: 0, divergent: 1, divergentIds: ["e2"] })
        expect((yield* Ledger.events).map(({ actor }) => actor)).toStrictEqual(["bob", "ada", "ada"])
      }).pipe(Effect.provide(MemoryLedger.layer), Logger.withMinimumLogLevel(LogLevel.Error)))

    it.scopedLive("is cut off by a failing ledger, and repeated as it is", () =>
      Effect.gen(function*() {
        const { store } = yield* open(MemoryLedger.layer)
        let writes = 0
        const failing = over(store, (store) => ({
          append: (groups) =>
            ++writes === 2 ? new LedgerError.StoreUnavailable({ reason: "gone" }) : store.append(groups)
        }))
        yield* Effect.gen(function*() {
          const { url } = yield* database(Array.from({ length: 30 }, (_, n) => row(n + 1)))
          expect((yield* failure(Ancestor.importFrom(url, { batchSize: 10 })))._tag).toBe("StoreUnavailable")
          expect(yield* Ledger.latestOffset).toBe(10)
          expect(yield* Ancestor.importFrom(url)).toMatchObject({ appended: 20, duplicates: 10 })
          expect(yield* ids).toStrictEqual(Array.from({ length: 30 }, (_, n) => `e${n + 1}`))
        }).pipe(Effect.provide(failing))
      }))

    it.live("large payloads come in pages of a bounded size; one that is too large is not read", () =>
      Effect.gen(function*() {
        const large = (offset: number, length: number) =>
          row(offset, { payload: JSON.stringify({ text: String(offset % 10).repeat(length) }) })
        const rows = [...Array.from({ length: 15 }, (_, n) => large(n + 1, 900_000)), large(16, 5_000_000), row(17)]
        const { url } = yield* database(rows)
        const told: Array<number> = []
        const imported = yield* Ancestor.importFrom(url, {
          maxPayloadBytes: 2_000_000,
          onInvalid: "skip",
          onProgress: ({ offset }) => Effect.sync(() => void told.push(offset))
        })
        expect(imported).toMatchObject({ offset: 17, appended: 16, invalid: 1 })
        expect(imported.invalidRows).toStrictEqual([{ offset: 16, reason: "payload: is larger than 2000000 bytes" }])
        expect(told.length).toBeGreaterThan(3)
        // here it is read, and the ledger has a limit too
        const refused = yield* failure(Ancestor.importFrom(url))
        expect(refused).toStrictEqual(
          new LedgerError.CorruptEvent({ offset: 16, reason: "payload.text: is too large" })
        )
      }).pipe(Effect.provide(MemoryLedger.layer)))
  })
}

describe("times", () => {
  const times: ReadonlyArray<readonly [text: string, iso: string]> = [
    ["2026-01-01 12:00:00.000000", "2026-01-01T12:00:00.000Z"],
    ["2026-01-01 12:00:00.123456", "2026-01-01T12:00:00.123Z"],
    ["2026-01-01T12:00:00", "2026-01-01T12:00:00.000Z"],
    ["2026-01-01T12:00:00.1", "2026-01-01T12:00:00.100Z"],
    ["2026-01-01T12:00:00+00:00", "2026-01-01T12:00:00.000Z"],
    ["2026-01-01T12:00:00.999999+02:00", "2026-01-01T10:00:00.999Z"],
    ["2026-01-01T12:00:00.5-05:30", "2026-01-01T17:30:00.500Z"],
    ["2026-01-01 12:00:00Z", "2026-01-01T12:00:00.000Z"],
    ["1969-12-31 23:59:59.999999", "1969-12-31T23:59:59.999Z"],
    ["0001-01-01 00:00:00.000000", "0001-01-01T00:00:00.000Z"],
    ["9999-12-31 23:59:59.999999", "9999-12-31T23:59:59.999Z"]
  ]
  const rows = times.map(([created_at], n) => row(n + 1, { created_at }))
  const expected = times.map(([, iso]) => iso)
  const imported = Effect.fnUntraced(function*(url: Redacted.Redacted) {
    yield* Ancestor.importFrom(url)
    return (yield* Ledger.events).map(({ createdAt }) => DateTime.formatIso(createdAt))
  })

  for (const [name, table] of [["SqlAlchemyLedger", sqliteTable], ["SQLiteLedger", olderTable]] as const) {
    it.effect(`in SQLite, of ${name}: a naive one is UTC, a zone is honoured, microseconds are cut off`, () =>
      Effect.gen(function*() {
        const held = table === olderTable
          ? rows.map(({ created_at, offset }) => ({ ...without({ offset }, ...later), created_at }))
          : rows
        expect(yield* imported(sqlite(held, table).url)).toStrictEqual(expected)
      }).pipe(Effect.provide(MemoryLedger.layer)))
  }

  const settings = ["", "-c timezone=America/New_York -c datestyle=German"]
  for (const type of ["TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITHOUT TIME ZONE", "TEXT"]) {
    for (const setting of settings) {
      it.live(`in Postgres, as ${type}${setting === "" ? "" : ", whatever the session says"}`, () =>
        Effect.gen(function*() {
          // a column without zones drops them, one with zones takes a naive time for its session's
          const zoned = /Z$|[+-]\d\d:\d\d$/
          const naive = type !== "TIMESTAMP WITH TIME ZONE"
          const held = times.map(([text], n) =>
            row(n + 1, { created_at: naive || zoned.test(text) ? text : `${text}Z` })
          )
          const table = postgresTable.replace("TIMESTAMP WITH TIME ZONE", type)
          const dropped = times.map(([text, iso]) =>
            type.includes("WITHOUT")
              ? `${text.replace(zoned, "").replace(" ", "T").padEnd(20, ".").slice(0, 23).padEnd(23, "0")}Z`
              : iso
          )
          expect(yield* imported((yield* inPostgres(held, table, setting)).url)).toStrictEqual(dropped)
        }).pipe(Effect.provide(MemoryLedger.layer)))
    }
  }
})

describe("columns", () => {
  it.effect("those that came later may be missing in SQLite, one by one or all", () =>
    Effect.forEach([[...later], ...later.map((column) => [column])], (missing) =>
      Effect.gen(function*() {
        const held = [...columns, ...later].filter((column) => !(missing as ReadonlyArray<string>).includes(column))
        const full = row(1, { schema_version: 3, session_id: "s", model_profile: "p", model_id: "m" })
        const { url } = sqlite(
          [Object.fromEntries(Object.entries(full).filter(([key]) => key === "offset" || held.includes(key as "id")))],
          `CREATE TABLE events ("offset" INTEGER PRIMARY KEY, ${held.join(", ")})`
        )
        expect(yield* Ancestor.importFrom(url)).toMatchObject({ appended: 1 })
        const has = (column: typeof later[number]) => !(missing as ReadonlyArray<string>).includes(column)
        expectEvents(
          yield* Ledger.events,
          recordedAt(1, [eventOf(1, {
            schemaVersion: has("schema_version") ? 3 : 1,
            sessionId: has("session_id") ? "s" : null,
            modelProfile: has("model_profile") ? "p" : null,
            modelId: has("model_id") ? "m" : null
          })])
        )
      }).pipe(Effect.provide(MemoryLedger.layer))))

  it.live("and in Postgres, where the payload may also be of a JSON type", () =>
    Effect.gen(function*() {
      const table = olderTable.replace("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGSERIAL PRIMARY KEY")
        .replace("payload TEXT", "payload JSONB").replace("created_at TEXT", "created_at TIMESTAMPTZ")
      const { url } = yield* inPostgres([{ ...without(row(1), ...later), created_at: "2026-01-01Z" }], table)
      expect(yield* Ancestor.importFrom(url)).toMatchObject({ appended: 1 })
      expectEvents(yield* Ledger.events, recordedAt(1, [eventOf(1)]))
    }).pipe(Effect.provide(MemoryLedger.layer)))

  it.live("others are refused, as is a database that is none of the ancestor's", () =>
    Effect.gen(function*() {
      const found = (url: Redacted.Redacted) =>
        Effect.map(failure(Ancestor.importFrom(url)), (error) =>
          error instanceof LedgerError.IncompatibleStore ? error.found : String(error))
      const extra = "ALTER TABLE events ADD COLUMN tenant TEXT; ALTER TABLE events ADD COLUMN cost INTEGER"
      const other = "CREATE TABLE event (id TEXT)"
      const short =
        "CREATE TABLE events (\"offset\" INTEGER PRIMARY KEY, id TEXT, run_id TEXT, turn INTEGER, kind TEXT)"
      const makers: ReadonlyArray<(table: string) => Effect.Effect<Database>> = [
        (table) => Effect.sync(() => sqlite([], table)),
        (table) => inPostgres([], table)
      ]
      for (const make of makers) {
        const at = (table: string) => Effect.flatMap(make(table), ({ url }) => found(url))
        expect(yield* at(other)).toBe("no table \"events\"")
        expect(yield* at(short)).toBe("a table \"events\" without actor, payload, created_at")
        expect(yield* at(`${olderTable.replace(/INTEGER PRIMARY KEY AUTOINCREMENT/, "INTEGER PRIMARY KEY")};${extra}`))
          .toBe(
            "a table \"events\" with the unknown tenant, cost"
          )
      }
    }).pipe(Effect.provide(MemoryLedger.layer)))
})

describe("rows that are no events", () => {
  const invalid: ReadonlyArray<readonly [over: Row, reason: string | RegExp]> = [
    [{ id: "" }, /^id: expected 1 to 64/],
    [{ id: "x".repeat(65) }, /^id: expected at most 64/],
    [{ id: null }, "id: expected a string, not null"],
    [{ run_id: "x".repeat(256) }, /^run_id: expected at most 255/],
    [{ run_id: "a\0b" }, /^run_id: a NUL/],
    [{ turn: -1 }, /^turn: /],
    [{ turn: 1.5 }, /^turn: /],
    [{ turn: "one" }, /^turn: /],
    [{ turn: 2 ** 31 }, /^turn: /],
    [{ kind: "spoke" }, /^kind: /],
    [{ kind: "agent_spoke" }, /^kind: /],
    [{ actor: "" }, /^actor: /],
    [{ payload: "{" }, "payload: is not JSON"],
    [{ payload: "{\"n\": NaN}" }, "payload: is not JSON"],
    [{ payload: "[]" }, "payload: expected a JSON object"],
    [{ payload: "null" }, "payload: expected a JSON object"],
    [{ payload: null }, "payload: expected JSON text"],
    [{ payload: Buffer.from("{}") }, "payload: expected JSON text"],
    [{ payload: "{\"a\": \"\\ud800\"}" }, "payload.a: a lone surrogate is not a character"],
    [{ payload: "{\"n\": 12345678901234567890}" }, /^payload: the integer 12345678901234567890 is no double/],
    [{ created_at: "garbage" }, /^created_at: /],
    [{ created_at: "2026-02-30 00:00:00" }, /^created_at: /],
    [{ created_at: "0001-01-01T00:00:00+01:00" }, /^created_at: /],
    [{ created_at: 1767225600 }, /^created_at: /],
    [{ created_at: null }, /^created_at: /],
    [{ schema_version: 0 }, /^schema_version: /],
    [{ schema_version: null }, /^schema_version: /],
    [{ session_id: "" }, /^session_id: /],
    [{ model_id: 7 }, /^model_id: /]
  ]

  it.effect("stop the import with their offset, once those before them are recorded", () =>
    Effect.forEach(invalid, ([over, reason]) =>
      Effect.gen(function*() {
        const error = yield* failure(
          Ancestor.importFrom(sqlite([row(1), row(2), row(5, over), row(6)], looseTable).url)
        )
        expect(error).toBeInstanceOf(LedgerError.CorruptEvent)
        expect((error as LedgerError.CorruptEvent).offset).toBe(5)
        expect((error as LedgerError.CorruptEvent).reason).toMatch(reason)
        expect(yield* ids).toStrictEqual(["e1", "e2"])
      }).pipe(Effect.provide(MemoryLedger.layer))))

  it.effect("are skipped and reported when told, exactly, in a list of the first 100", () =>
    Effect.gen(function*() {
      const rows = Array.from({ length: 300 }, (_, n) =>
        row(n + 1, n % 2 === 0 ? invalid[n / 2 % invalid.length]![0] : {}))
      const { url } = sqlite(rows, looseTable)
      const { invalidRows, ...imported } = yield* Ancestor.importFrom(url, { onInvalid: "skip", batchSize: 7 })
      expect(imported).toMatchObject({ offset: 300, appended: 150, invalid: 150 })
      expect(invalidRows.map(({ offset }) =>
        offset
      )).toStrictEqual(Array.from({ length: 100 }, (_, n) => 2 * n + 1))
      expect(yield* ids).toStrictEqual(Array.from({ length: 150 }, (_, n) => `e${2 * n + 2}`))
    }).pipe(Effect.provide(MemoryLedger.layer)))

  it.live("as are times that only Postgres has", () =>
    Effect.gen(function*() {
      const times = ["infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "10000-01-01 00:00:00+00"]
      const { url } = yield* inPostgres(times.map((created_at, n) => row(n + 1, { created_at })))
      const { invalid, invalidRows } = yield* Ancestor.importFrom(url, { onInvalid: "skip" })
      expect(invalid).toBe(4)
      for (const { reason } of invalidRows) expect(reason).toMatch(/^created_at: /)
    }).pipe(Effect.provide(MemoryLedger.layer)))
})

describe("the database is only read", () => {
  const hashOf = (file: string) => createHash("sha256").update(Fs.readFileSync(file)).digest("hex")

  it.effect("a SQLite file stays as it is, by every form of its URL, and none is created", () =>
    Effect.gen(function*() {
      const { client, file } = sqlite([row(1)])
      client.close()
      Fs.chmodSync(file, 0o444)
      const before = hashOf(file)
      for (const form of [file, `sqlite:///${file}`, `sqlite+pysqlite:///${file}`, `file://${file}`]) {
        expect((yield* Ancestor.importFrom(Redacted.make(form))).head).toBe(1)
      }
      expect(hashOf(file)).toBe(before)
      expect(Fs.readdirSync(dirname(file))).toStrictEqual([basename(file)])

      const missing = join(dirname(file), "none.db")
      const error = yield* failure(Ancestor.importFrom(Redacted.make(missing)))
      expect(error).toMatchObject({ _tag: "StoreFailure", method: "open" })
      expect(String(error)).toContain(`ENOENT`)
      expect(yield* failure(Ancestor.importFrom(Redacted.make(dirname(file))))).toBeInstanceOf(
        LedgerError.StoreUnavailable
      )
      const text = join(dirname(file), "text.db")
      Fs.writeFileSync(text, "not a database ".repeat(100))
      expect(String(yield* failure(Ancestor.importFrom(Redacted.make(text))))).toContain("file is not a database")
      expect(Fs.readdirSync(dirname(file))).toStrictEqual([basename(file), "text.db"])
      for (const form of ["", "memory:", ":memory:", "sqlite://"]) {
        expect(ConfigError.isConfigError(yield* failure(Ancestor.importFrom(Redacted.make(form))))).toBe(true)
      }
    }).pipe(Effect.provide(MemoryLedger.layer)))

  it.effect("what a killed writer left in its WAL is read, and left there", () =>
    Effect.gen(function*() {
      const { client, file } = sqlite([row(1)], sqliteTable, "journal_mode = wal")
      const folder = Fs.mkdtempSync(join(root, "w-"))
      for (const name of Fs.readdirSync(dirname(file))) Fs.copyFileSync(join(dirname(file), name), join(folder, name))
      client.close()
      const copy = join(folder, basename(file))
      const before = [hashOf(copy), hashOf(`${copy}-wal`)]
      expect(Fs.statSync(`${copy}-wal`).size).toBeGreaterThan(0)
      expect(yield* Ancestor.importFrom(Redacted.make(copy))).toMatchObject({ appended: 1 })
      expect([hashOf(copy), hashOf(`${copy}-wal`)]).toStrictEqual(before)
    }).pipe(Effect.provide(MemoryLedger.layer)))

  for (const mode of ["wal", "delete"]) {
    it.effect(`a program that still writes to it, in journal mode ${mode}, is not held up`, () =>
      Effect.gen(function*() {
        const source = sqlite(Array.from({ length: 50 }, (_, n) => row(n + 1)), sqliteTable, `journal_mode = ${mode}`)
        source.client.pragma("busy_timeout = 0")
        let written = 50
        const imported = yield* Ancestor.importFrom(source.url, {
          batchSize: 10,
          onProgress: () => written < 60 ? source.insert([row(++written)]) : Effect.void
        })
        expect(imported).toMatchObject({ head: 50, appended: 50 })
        expect(written).toBe(55)
        expect(yield* Ancestor.importFrom(source.url)).toMatchObject({ appended: 5, duplicates: 50 })
        source.client.close()
      }).pipe(Effect.provide(MemoryLedger.layer)))
  }

  it.live("Postgres is asked in a READ ONLY transaction, on a connection that is closed afterwards", () =>
    Effect.gen(function*() {
      const { schema, url } = yield* inPostgres([row(1)])
      yield* Effect.promise(() =>
        postgres.query(`
          CREATE TABLE ${schema}.reads (at int8);
          ALTER TABLE ${schema}.events RENAME TO held;
          CREATE FUNCTION ${schema}.noted() RETURNS SETOF ${schema}.held LANGUAGE sql VOLATILE AS
            'INSERT INTO ${schema}.reads VALUES (1); SELECT * FROM ${schema}.held';
          CREATE VIEW ${schema}.events AS SELECT * FROM ${schema}.noted()`)
      )
      const error = yield* failure(Ancestor.importFrom(url))
      expect(String(error)).toContain("cannot execute INSERT in a read-only transaction")
      const open = Effect.promise(() =>
        postgres.query(`SELECT 1 FROM pg_stat_activity WHERE application_name = 'effect-ledger ancestor'`)
      )
      yield* Effect.repeat(open, { until: ({ rows }) => rows.length === 0 })
    }).pipe(Effect.provide(MemoryLedger.layer)))

  it.live("what fails says nothing of the password", () =>
    Effect.gen(function*() {
      const secret = "correct-horse"
      const address = new URL(url)
      address.password = secret
      address.port = "1"
      const unreachable = yield* failure(Ancestor.importFrom(Redacted.make(address.href)))
      expect(unreachable).toBeInstanceOf(LedgerError.StoreUnavailable)
      const unreadable = yield* failure(Ancestor.importFrom(Redacted.make(`postgresql://ada:${secret}@host:port/x`)))
      expect(unreadable).toBeInstanceOf(LedgerError.StoreFailure)
      const unknown = yield* failure(Ancestor.importFrom(Redacted.make(`mysql://ada:${secret}@host/x`)))
      expect(ConfigError.isConfigError(unknown)).toBe(true)
      for (const error of [unreachable, unreadable, unknown]) {
        expect(`${String(error)} ${JSON.stringify(error)}`).not.toContain(secret)
      }
    }).pipe(Effect.provide(MemoryLedger.layer)))
})

describe("into a ledger in the same database", () => {
  const rows = Array.from({ length: 1500 }, (_, n) => row(n + 1))
  const expected = recordedAt(1, rows.map((_, n) => eventOf(n + 1)))

  it.live("of SQLite", () =>
    Effect.gen(function*() {
      const { client, file, url } = sqlite(rows)
      client.close()
      yield* Effect.gen(function*() {
        expect(yield* Ancestor.importFrom(url)).toMatchObject({ appended: 1500 })
        expectEvents(yield* Ledger.events, expected)
      }).pipe(Effect.provide(SqliteLedger.layerFile(file)))
    }))

  it.live("of Postgres", () =>
    Effect.gen(function*() {
      const held = rows.map((_, n) => row(n + 1, { created_at: "2026-01-01 00:00:00+00" }))
      const { schema, url: source } = yield* inPostgres(held)
      yield* Effect.gen(function*() {
        expect(yield* Ancestor.importFrom(source)).toMatchObject({ appended: 1500 })
        expectEvents(yield* Ledger.events, expected)
      }).pipe(Effect.provide(PgLedger.layerUrl(Redacted.make(url), { schema, maxConnections: 2 })))
    }))
})

/** Ledgers that are opened for reading: nothing is written, by opening or after, and nothing is missed. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { Context, Effect, Fiber, Layer, Logger, Option, Redacted, Schema, type Scope, Stream } from "effect"
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Client } from "pg"
import { inject } from "vitest"
import {
  ConsumerStore,
  Event,
  Ledger,
  type LedgerError,
  LedgerStore,
  Projection,
  Snapshot,
  Trace,
  Verify
} from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { startPostgres } from "./support/postgres.js"
import { finished, folder, postgres, start, until } from "./support/running.js"

let made = 0
const event = Effect.suspend(() =>
  Effect.orDie(Event.create({
    id: `e${++made}`,
    runId: "run",
    turn: 1,
    kind: "agent.spoke",
    actor: "ada",
    payload: { n: made }
  }))
)
const append = Effect.flatMap(event, Ledger.append)
const dense = (count: number) => Array.from({ length: count }, (_, index) => index + 1)
const counting = Projection.make({
  name: "counting",
  version: 1,
  initial: 0,
  apply: (count) => count + 1,
  schema: Schema.Number
})

/** The offsets that a subscription gives, up to a number of them, as they come. */
const subscribed = (total: number) =>
  Effect.gen(function*() {
    const seen: Array<number> = []
    const fiber = yield* Ledger.subscribe().pipe(
      Stream.take(total),
      Stream.runForEach(({ offset }) => Effect.sync(() => void seen.push(offset))),
      Effect.fork
    )
    return { seen, all: Effect.as(Fiber.join(fiber), seen) }
  })

/** Everything that would write is a failure that says why. */
const refusesWrites = Effect.gen(function*() {
  const incarnation = yield* Ledger.incarnation
  const store = yield* LedgerStore.LedgerStore
  const one = yield* event
  const attempts: ReadonlyArray<
    Effect.Effect<unknown, LedgerError.StoreError | { readonly _tag: string }, Ledger.Ledger>
  > = [
    Ledger.append(one),
    Ledger.appendAll([one, yield* event]),
    Ledger.appendIf({ noneMatch: { runId: "none" }, after: 0 }, [one]),
    Effect.all([Ledger.append(one), append], { concurrency: "unbounded" }),
    store.reset,
    store.incarnate(),
    store.transaction(Effect.void)
  ]
  for (const attempt of attempts) {
    const error = yield* Effect.flip(attempt)
    assert.strictEqual(error._tag, "StoreFailure")
    assert.include(
      (error as LedgerError.StoreFailure).message,
      "opened for reading only; open it with a Layer that writes"
    )
  }
  assert.strictEqual(yield* Ledger.incarnation, incarnation)
  assert.deepStrictEqual(yield* Ledger.get(one.id), Option.none())
  const context = yield* Effect.context<never>()
  assert.isTrue(Option.isNone(Context.getOption(context, Ledger.LedgerAdmin)))
  assert.isTrue(Option.isNone(Context.getOption(context, ConsumerStore.ConsumerStore)))
})

/** All that reads does. */
const reads = (count: number): Effect.Effect<void, unknown, Ledger.Ledger | LedgerStore.LedgerStore | Scope.Scope> =>
  Effect.gen(function*() {
    const path = yield* folder
    assert.deepStrictEqual((yield* Ledger.events).map(({ offset }) => offset), dense(count))
    assert.strictEqual((yield* Stream.runCollect(Ledger.read({ direction: "backward", limit: 2 }))).length, 2)
    const counted = yield* Projection.open(counting)
    assert.strictEqual((yield* counted.awaitOffset(count)).state, count)
    const report = yield* Verify.run()
    assert.deepStrictEqual([report.checked, report.problems], [count, []])
    assert.strictEqual((yield* Trace.toFile(Path.join(path, "trace.jsonl"))).count, count)
    const copy = Path.join(path, "copy.db")
    const snapshot = yield* Snapshot.to(copy)
    assert.deepStrictEqual([snapshot.count, snapshot.digest], [count, report.digest])
    // in one file, without any companion
    assert.strictEqual(yield* Effect.provide(Ledger.latestOffset, SqliteLedger.layerReadonly(copy)), count)
    assert.deepStrictEqual(Fs.readdirSync(path).toSorted(), ["copy.db", "trace.jsonl"])
  })

describe("a SQLite file for reading", () => {
  const fileIn = Effect.map(folder, (path) => Path.join(path, "a.db"))
  const read = <A, E>(
    file: string,
    effect: Effect.Effect<A, E, Ledger.Ledger | LedgerStore.LedgerStore>,
    options?: SqliteLedger.ReadonlyOptions
  ) => Effect.provide(effect, SqliteLedger.layerReadonly(file, options))

  it.scopedLive(
    "is followed while another process writes to it, and refuses to be written to",
    () =>
      Effect.gen(function*() {
        const file = yield* fileIn
        yield* Effect.provide(append, SqliteLedger.layerFile(file))
        yield* Effect.gen(function*() {
          const { all, seen } = yield* subscribed(301)
          yield* until(() => seen.length === 1)
          const writer = yield* start("writer.ts", ["a", "300", "10"], { DATABASE_URL: `sqlite:///${file}` })
          yield* until(() => seen.length > 100, [writer])
          yield* refusesWrites
          yield* finished(writer)
          assert.deepStrictEqual(yield* all, dense(301))
          yield* reads(301)
        }).pipe(Effect.provide(SqliteLedger.layerReadonly(file)))
      }),
    60_000
  )

  it.scopedLive("is not touched, and neither is what is not a ledger of this release", () =>
    Effect.gen(function*() {
      const file = yield* fileIn
      const path = Path.dirname(file)
      yield* Effect.provide(append, SqliteLedger.layerFile(file))
      const state = (name: string) => {
        const { mtimeNs } = Fs.statSync(name, { bigint: true })
        return { mtimeNs, bytes: Fs.readFileSync(name).toString("base64") }
      }
      const untouched = <A, E, R>(name: string, effect: Effect.Effect<A, E, R>) =>
        Effect.gen(function*() {
          const before = state(name)
          const answer = yield* effect
          assert.deepStrictEqual(state(name), before)
          return answer
        })
      yield* untouched(file, read(file, refusesWrites))
      // of what stands beside it while it is open nothing has content
      assert.strictEqual(Fs.statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0, 0)
      assert.strictEqual(yield* read(file, Ledger.latestOffset), 1)
      const fails = (name: string, options?: SqliteLedger.ReadonlyOptions) =>
        Effect.flip(read(name, Ledger.latestOffset, options))

      const missing = Path.join(path, "runs", "none.db")
      const error = yield* fails(missing)
      assert.deepStrictEqual([error._tag, error.message], ["StoreFailure", `open: there is no file ${missing}`])
      assert.isFalse(Fs.existsSync(Path.dirname(missing)))
      assert.strictEqual((yield* fails(":memory:"))._tag, "StoreFailure")
      assert.strictEqual((yield* fails(file, { prefix: "Bad-" }))._tag, "StoreFailure")
      const other = yield* untouched(file, fails(file, { prefix: "other_" }))
      assert.deepStrictEqual(
        [other._tag, other.message],
        ["StoreFailure", "open: there is no ledger with the prefix other_"]
      )
      const foreign = Path.join(path, "foreign.db")
      const notes = new Sqlite(foreign)
      notes.exec("CREATE TABLE notes (text)")
      notes.close()
      assert.strictEqual((yield* untouched(foreign, fails(foreign)))._tag, "StoreFailure")
      // still no WAL
      assert.isFalse(Fs.existsSync(`${foreign}-shm`))
      const newer = new Sqlite(file)
      newer.exec("UPDATE ledger_meta SET version = 99")
      newer.close()
      const refused = yield* untouched(file, fails(file))
      assert.strictEqual(refused._tag, "IncompatibleStore")
      assert.include(refused.message, "99")
    }))

  it.scopedLive("that was left by a crash is read with its log, which is left for a writer", () =>
    Effect.gen(function*() {
      const file = yield* fileIn
      const crashed = yield* fileIn
      yield* Effect.gen(function*() {
        yield* append
        yield* append
        for (const suffix of ["", "-wal"]) Fs.copyFileSync(file + suffix, crashed + suffix)
      }).pipe(Effect.provide(SqliteLedger.layerFile(file)))
      const contents = () => ["", "-wal"].map((suffix) => Fs.readFileSync(crashed + suffix).toString("base64"))
      const before = contents()
      assert.strictEqual(yield* read(crashed, Ledger.latestOffset), 2)
      assert.deepStrictEqual(contents(), before)
    }))

  it.scopedLive(
    "may be one that the reader must not write, in a folder where it must not either",
    () =>
      Effect.gen(function*() {
        const file = yield* fileIn
        const path = Path.dirname(file)
        const reader = (total: number) => start("reader.ts", [file, String(total)], {})
        yield* Effect.gen(function*() {
          yield* append
          Fs.chmodSync(file, 0o444)
          Fs.chmodSync(`${file}-wal`, 0o444)
          Fs.chmodSync(`${file}-shm`, 0o444)
          Fs.chmodSync(path, 0o555)
          const following = yield* reader(3)
          yield* until(() => following.lines.length === 1, [following])
          yield* append
          yield* append
          yield* finished(following)
          assert.deepStrictEqual(following.lines, ["1", "2", "3"])
        }).pipe(Effect.provide(SqliteLedger.layerFile(file)))
        // the writer has taken the companions away, and the reader can make none
        const alone = reader(1).pipe(Effect.tap(finished), Effect.map(({ lines }) => lines))
        if (process.getuid?.() !== 0) Fs.chmodSync(path, 0o555)
        assert.match((yield* alone)[0] ?? "", /^StoreUnavailable /)
        if (process.getuid?.() === 0) {
          // another user may, and would keep the owner from writing
          Fs.chmodSync(path, 0o777)
          assert.match((yield* alone)[0] ?? "", /^StoreUnavailable open: the file is another user's/)
          assert.deepStrictEqual(Fs.readdirSync(path), ["a.db"])
          yield* Effect.provide(Snapshot.to(Path.join(path, "copy.db")), SqliteLedger.layerFile(file))
          const copied = yield* start("reader.ts", [Path.join(path, "copy.db"), "3"], {})
          yield* finished(copied)
          assert.deepStrictEqual(copied.lines, ["1", "2", "3"])
        }
        Fs.chmodSync(path, 0o755)
      }),
    60_000
  )
})

const opened = (url: string, options: PgLedger.ReadonlyOptions) => PgLedger.layerReadonly(Redacted.make(url), options)

const session = <A>(url: string, use: (client: Client) => Promise<A>): Effect.Effect<A> =>
  Effect.acquireUseRelease(
    Effect.promise(async () => {
      const client = new Client(url)
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => use(client)),
    (client) => Effect.promise(() => client.end())
  )

describe("Postgres for reading", () => {
  it.scopedLive("as the reader: everything that reads works, and nothing that writes", () =>
    Effect.gen(function*() {
      const url = inject("databaseUrl")
      const schema = `t${randomBytes(8).toString("hex")}`
      const [writer, reader] = [`writer_${schema}`, `reader_${schema}`]
      const owned = yield* Layer.build(PgLedger.layerUrl(Redacted.make(url), { schema, maxConnections: 2 }))
      yield* Effect.provide(append, owned)
      yield* Effect.provide(
        PgLedger.applyRoles({ writer, reader, schema }),
        PgClient.layer({ url: Redacted.make(url), maxConnections: 1 })
      )
      yield* session(url, (client) => client.query(`ALTER ROLE ${reader} LOGIN PASSWORD 'open'`))
      const asReader = new URL(url)
      asReader.username = reader
      asReader.password = "open"
      yield* Effect.gen(function*() {
        const { all, seen } = yield* subscribed(3)
        yield* until(() => seen.length === 1)
        yield* Effect.provide(Effect.zipRight(append, append), owned)
        assert.deepStrictEqual(yield* all, [1, 2, 3])
        yield* refusesWrites
        yield* reads(3)
      }).pipe(Effect.provide(opened(asReader.href, { schema, maxConnections: 2 })))

      // nothing is made where there is nothing
      const none = yield* Effect.flip(Effect.provide(Ledger.latestOffset, opened(url, { schema: `${schema}_none` })))
      assert.deepStrictEqual(
        [none._tag, none.message],
        ["StoreFailure", `open: there is no ledger with the prefix ledger_ in schema ${schema}_none`]
      )
      const schemas = yield* session(
        url,
        (client) => client.query("SELECT FROM pg_namespace WHERE nspname = $1", [`${schema}_none`])
      )
      assert.strictEqual(schemas.rowCount, 0)
      yield* session(url, (client) => client.query(`UPDATE ${schema}.ledger_meta SET version = 99`))
      const newer = yield* Effect.flip(Effect.provide(Ledger.latestOffset, opened(asReader.href, { schema })))
      assert.strictEqual(newer._tag, "IncompatibleStore")
      yield* session(
        url,
        (client) => client.query(`DROP OWNED BY ${writer}, ${reader}; DROP ROLE ${writer}; DROP ROLE ${reader}`)
      )
    }))

  it.scopedLive(
    "on a hot standby: it is followed by looking, said once, until it is promoted",
    () =>
      Effect.gen(function*() {
        const primary = yield* postgres
        const owned = yield* Layer.build(PgLedger.layerUrl(Redacted.make(primary.url), { maxConnections: 2 }))
        yield* Effect.provide(append, owned)
        const standby = yield* Effect.acquireRelease(
          Effect.promise(() => startPostgres({ standbyOf: primary })),
          (server) => Effect.promise(() => server.stop())
        )
        const warnings: Array<string> = []
        const logged = Logger.replace(
          Logger.defaultLogger,
          Logger.make(({ logLevel, message }) => {
            if (logLevel.label === "WARN") warnings.push(String(message))
          })
        )
        const log = () => Fs.readFileSync(Path.join(Path.dirname(standby.dataDir), "log"), "utf8")
        const listener = session(standby.url, async (client) =>
          (await client.query("SELECT query FROM pg_stat_activity WHERE application_name = 'effect-ledger listener'"))
            .rows.map(({ query }) =>
              String(query)
            ))
        yield* Effect.gen(function*() {
          const { all, seen } = yield* subscribed(6)
          yield* until(() => seen.length === 1)
          yield* Effect.provide(Effect.zipRight(append, append), owned)
          yield* until(() => seen.length === 3)
          yield* refusesWrites
          yield* reads(3)
          assert.notMatch(log(), /ERROR|FATAL/)
          // it keeps its connection, and asks on it
          const before = yield* session(standby.url, async (client) =>
            (await client.query("SELECT now() AS now")).rows[0].now)
          const asked = (since: unknown) =>
            session(standby.url, async (client) =>
              (await client.query(
                "SELECT FROM pg_stat_activity WHERE application_name = 'effect-ledger listener' AND query_start > $1 " +
                  "AND backend_start < $1 AND query LIKE '%pg_is_in_recovery%'",
                [since]
              )).rowCount === 1)
          yield* Effect.repeat(Effect.zipLeft(asked(before), Effect.sleep("50 millis")), {
            until: (found) =>
              found
          })
          assert.deepStrictEqual(warnings, [
            "cannot listen for notifications; looking regularly until it works,the server is a standby"
          ])
          assert.notMatch(log(), /ERROR|FATAL/)

          yield* session(standby.url, (client) =>
            client.query("SELECT pg_promote()"))
          const promoted = PgLedger.layerUrl(Redacted.make(standby.url), { maxConnections: 2 })
          yield* Effect.provide(append, promoted)
          yield* until(() => seen.length === 4)
          yield* Effect.repeat(Effect.zipLeft(listener, Effect.sleep("50 millis")), {
            until: ([query]) => query?.startsWith("LISTEN") === true
          })
          yield* Effect.provide(Effect.zipRight(append, append), promoted)
          assert.deepStrictEqual(yield* all, dense(6))
          yield* refusesWrites
          assert.strictEqual(yield* Ledger.latestOffset, 6)
          assert.strictEqual(warnings.length, 1)
        }).pipe(Effect.provide([opened(standby.url, { maxConnections: 2 }), logged]))
      }),
    120_000
  )
})

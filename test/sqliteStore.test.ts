/** What only SQLite can show. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { assert, describe, it } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { Context, DateTime, Duration, Effect, Exit, Fiber, Layer, Stream } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Event, Ledger } from "../src/index.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { runScript } from "./support/processes.js"

const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)
const file = Effect.map(folder, (path) => Path.join(path, "runs", "a.db"))

/** The file as a stranger's program sees it. */
const raw = <A>(path: string, use: (db: Sqlite.Database) => A): Effect.Effect<A> =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Sqlite(path)),
    (db) => Effect.sync(() => use(db)),
    (db) => Effect.sync(() => db.close())
  )

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
const offsets = Effect.map(Ledger.events, (all) => all.map(({ offset }) => offset))
const dense = (count: number) => Array.from({ length: count }, (_, index) => index + 1)
const appendOnce = (path: string) => Effect.provide(append, SqliteLedger.layerFile(path))

describe("SQLite duplicates", () => {
  it.scopedLive("are compared by what is recorded, also where that was changed under its digest", () =>
    Effect.gen(function*() {
      const path = yield* file
      const batch = yield* Effect.all([event, event])
      yield* Effect.gen(function*() {
        yield* Ledger.appendAll(batch)
        yield* raw(path, (db) => {
          db.exec("DROP TRIGGER ledger_no_update")
          db.prepare("UPDATE ledger_events SET payload = '{}' WHERE id = ?").run(batch[0]!.id)
        })
        const again = [...(yield* Ledger.appendAll(batch)), ...(yield* Effect.forEach(batch, Ledger.append))]
        assert.deepStrictEqual(
          again.map((receipt) => receipt._tag === "Duplicate" && receipt.identical),
          [false, true, false, true]
        )
      }).pipe(Effect.provide(SqliteLedger.layerFile(path)))
    }))
})

describe("SQLite set-up", () => {
  it.scopedLive(
    "8 processes that start at once on one new path all come up and leave no hole",
    () =>
      Effect.gen(function*() {
        const path = yield* file
        Fs.mkdirSync(Path.dirname(path))
        const env = { DATABASE_URL: `sqlite:///${path}` }
        yield* Effect.promise(() =>
          Promise.all(Array.from({ length: 8 }, (_, n) => runScript("appender.ts", [`p${n}`, "50"], env)))
        )
        yield* Effect.gen(function*() {
          assert.deepStrictEqual(yield* offsets, dense(8 * 50))
          for (const runId of yield* Ledger.runs) {
            const turns = (yield* Ledger.eventsForRun(runId)).map(({ turn }) => turn)
            assert.deepStrictEqual(turns, dense(50).map((n) => n - 1))
          }
        }).pipe(Effect.provide(SqliteLedger.layerFile(path)))
      }),
    120_000
  )

  it.scopedLive("a newer set-up, a file that is no database, a folder and a bad prefix are refused", () =>
    Effect.gen(function*() {
      const path = yield* file
      yield* appendOnce(path)
      yield* raw(path, (db) => db.exec("UPDATE ledger_meta SET version = 99"))
      const newer = yield* Effect.flip(appendOnce(path))
      assert.strictEqual(newer._tag, "IncompatibleStore")
      const text = Path.join(Path.dirname(path), "notes.txt")
      Fs.writeFileSync(
        text,
        "this is not a database, but it is long enough to look like the header of one: ".repeat(20)
      )
      assert.strictEqual((yield* Effect.flip(appendOnce(text)))._tag, "StoreFailure")
      assert.strictEqual((yield* Effect.flip(appendOnce(Path.dirname(path))))._tag, "StoreUnavailable")
      const prefix = yield* Effect.flip(
        Effect.provide(append, SqliteLedger.layerFile(":memory:", { prefix: "no-good" }))
      )
      assert.strictEqual(prefix._tag, "StoreFailure")
    }))

  it.scopedLive("with create: false nothing is made, in a file of ours or over the caller's client", () =>
    Effect.gen(function*() {
      const path = yield* file
      Fs.mkdirSync(Path.dirname(path))
      yield* raw(path, (db) => db.exec("CREATE TABLE notes (text)"))
      const before = Fs.readFileSync(path)
      const layers = [
        SqliteLedger.layerFile(path, { create: false }),
        SqliteLedger.layer({ create: false }).pipe(
          Layer.provide(SqliteClient.layer({ filename: path, disableWAL: true }))
        )
      ]
      for (const layer of layers) {
        const error = yield* Effect.flip(Effect.provide(append, layer))
        assert.deepStrictEqual(
          [error._tag, error.message],
          ["StoreFailure", "open: there is no ledger with the prefix ledger_"]
        )
        assert.isTrue(Fs.readFileSync(path).equals(before))
      }
    }))

  it.scopedLive.each(["append", "read"] as const)(
    "a program that does nothing but %s lets its own timers run",
    (what) =>
      Effect.gen(function*() {
        const statement = what === "read" ? Ledger.latestOffset : append
        const bell = { rung: false }
        setTimeout(() => {
          bell.rung = true
        }, 30)
        const begun = performance.now()
        while (!bell.rung && performance.now() - begun < 1000) yield* statement
        assert.isTrue(bell.rung)
      }).pipe(Effect.provide(Layer.unwrapScoped(Effect.map(file, (path) => SqliteLedger.layerFile(path)))))
  )

  it.scopedLive("what the program does on the client of the Layer is not disturbed by appends beside it", () =>
    Effect.gen(function*() {
      const sql = yield* SqliteClient.SqliteClient
      yield* sql`CREATE TABLE notes (text TEXT)`
      const order: Array<string> = []
      const noted = (what: string) => Effect.sync(() => order.push(what))
      // it has read before it writes: another's commit in between would make its snapshot too old
      const transaction = sql.withTransaction(Effect.gen(function*() {
        yield* sql`SELECT count(*) FROM notes`
        yield* Effect.sleep("50 millis")
        yield* sql`INSERT INTO notes VALUES ('mine')`
        yield* noted("transaction")
      }))
      const beside = Effect.zipRight(Effect.sleep("10 millis"), Effect.zipRight(append, noted("append")))
      yield* Effect.all([transaction, beside], { concurrency: 2 })
      assert.deepStrictEqual(order, ["transaction", "append"])

      // a large batch lets the program breathe, and holds the write lock meanwhile
      const batch = yield* Effect.all(Array.from({ length: 3000 }, () => event))
      let notes = 0
      const writer = yield* Effect.fork(
        Effect.forever(Effect.zipRight(
          Effect.tap(sql`INSERT INTO notes VALUES ('more')`, () => Effect.sync(() => notes++)),
          Effect.sleep("1 millis")
        ))
      )
      const [took] = yield* Effect.timed(Ledger.appendAll(batch))
      assert.isBelow(Duration.toSeconds(took), 4)
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(writer)))
      assert.isAbove(notes, 0)
    }).pipe(Effect.provide(Layer.unwrapScoped(Effect.map(file, (path) => SqliteLedger.layerFile(path))))))

  it.scopedLive("is durable unless told otherwise, and raises but never lowers the caller's client", () =>
    Effect.gen(function*() {
      const path = yield* file
      const settings = (db: SqliteClient.SqliteClient) =>
        Effect.all([
          db.unsafe("PRAGMA synchronous").values,
          db.unsafe("PRAGMA journal_mode").values,
          db.unsafe("PRAGMA busy_timeout").values
        ]).pipe(Effect.map((values) => values.map((rows) => rows[0]?.[0])))
      const own = Effect.flatMap(SqliteClient.SqliteClient, settings)
      const after = Effect.zipRight(append, own)
      assert.deepStrictEqual(yield* Effect.provide(after, SqliteLedger.layerFile(path)), [2, "wal", 5000])
      assert.deepStrictEqual(
        yield* Effect.provide(after, SqliteLedger.layerFile(path, { durability: "relaxed" })),
        [1, "wal", 5000]
      )
      const over = (synchronous: number, options?: SqliteLedger.Options) =>
        Effect.gen(function*() {
          const client = yield* SqliteClient.SqliteClient
          yield* client.unsafe(`PRAGMA synchronous = ${synchronous}`)
          yield* client.unsafe("PRAGMA busy_timeout = 77")
          return yield* Effect.provide(after, SqliteLedger.layer(options))
        }).pipe(Effect.provide(SqliteClient.layer({ filename: path })))
      assert.deepStrictEqual(yield* over(1), [2, "wal", 77])
      assert.deepStrictEqual(yield* over(3), [3, "wal", 77])
      assert.deepStrictEqual(yield* over(1, { durability: "relaxed" }), [1, "wal", 77])
    }))
})

describe("SQLite guards its table", () => {
  it.scopedLive("change, removal, replacement, holes and stray rows are refused", () =>
    Effect.gen(function*() {
      const path = yield* file
      yield* Effect.provide(Effect.all([append, append, append]), SqliteLedger.layerFile(path))
      const columns = `"offset", id, run_id, turn, kind, actor, payload, created_at, schema_version, digest`
      const insert = (over: Record<string, string>, how = "INSERT") =>
        `${how} INTO ledger_events (${columns}) VALUES (${
          Object.values({
            offset: "4",
            id: "'x'",
            run: "'r'",
            turn: "0",
            kind: "'a.b'",
            actor: "'a'",
            payload: "'{}'",
            created: "0",
            version: "1",
            digest: "zeroblob(32)",
            ...over
          }).join(", ")
        })`
      const known = yield* raw(
        path,
        (db) => db.prepare<[], { id: string }>("SELECT id FROM ledger_events LIMIT 1").get()
      )
      const forbidden = [
        "UPDATE ledger_events SET turn = 9",
        "DELETE FROM ledger_events",
        insert({ offset: "2" }, "REPLACE"),
        insert({ offset: "2" }, "INSERT OR REPLACE"),
        insert({ id: `'${known?.id}'` }, "REPLACE"),
        insert({ id: `'${known?.id}'`, offset: "1" }, "INSERT OR REPLACE"),
        insert({ id: `'${known?.id}'` }, "INSERT OR IGNORE"),
        "UPDATE OR REPLACE ledger_events SET id = 'x'",
        insert({ offset: "5" }),
        insert({ offset: "0" }),
        insert({ id: "''" }),
        insert({ id: `'${"x".repeat(65)}'` }),
        insert({ turn: "-1" }),
        insert({ turn: "'one'" }),
        insert({ kind: "'nodots'" }),
        insert({ kind: "'a.B'" }),
        insert({ kind: "'a.b' || char(10)" }),
        insert({ kind: "'a..b'" }),
        insert({ payload: "'[]'" }),
        insert({ payload: "'no json'" }),
        insert({ created: "253402300800000" }),
        insert({ version: "0" }),
        insert({ digest: "zeroblob(3)" })
      ]
      for (const text of forbidden) {
        assert.throws(
          () => {
            const db = new Sqlite(path)
            try {
              db.exec(text)
            } finally {
              db.close()
            }
          },
          Sqlite.SqliteError,
          undefined,
          text
        )
      }
      yield* raw(path, (db) => db.exec(`BEGIN; ${insert({})}; ROLLBACK`))
      assert.deepStrictEqual(yield* Effect.provide(offsets, SqliteLedger.layerFile(path)), [1, 2, 3])
      // a person can query the payload
      const seen = yield* raw(path, (db) => db.prepare("SELECT payload->>'n' AS n, created_at FROM ledger_view").get())
      assert.match(String((seen as { created_at: string }).created_at), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
    }))
})

describe("SQLite read by time", () => {
  it.scopedLive("where a span is missing nothing is passed over", () =>
    Effect.gen(function*() {
      const path = yield* file
      const time = (n: number) => DateTime.unsafeMake(1_760_000_000_000 + n)
      yield* Effect.gen(function*() {
        const timed = (_: unknown, n: number) => Effect.map(event, (one) => Object.assign(one, { createdAt: time(n) }))
        yield* Ledger.appendAll(yield* Effect.all(Array.from({ length: 13_000 }, timed)))
        yield* raw(path, (db) => db.exec("DELETE FROM ledger_spans WHERE through = 8192"))
        // all of them in the span that nothing is known of
        const filter = { createdFrom: time(5000), createdUntil: time(5010) }
        for (const direction of ["forward", "backward"] as const) {
          assert.strictEqual(yield* Stream.runCount(Ledger.read({ filter, direction })), 10)
        }
      }).pipe(Effect.provide(SqliteLedger.layerFile(path)))
    }))
})

describe("SQLite beside other writers", () => {
  it.scopedLive(
    "the write-ahead log stays short beside who appends one by one, until somebody appends batches",
    () =>
      Effect.gen(function*() {
        const path = yield* file
        const size = (at = path) => Fs.statSync(`${at}-wal`).size
        yield* Effect.gen(function*() {
          yield* Effect.repeatN(append, 600)
          assert.isBelow(size(), 5_000_000)
          const text = "x".repeat(1000)
          const batch = Effect.map(
            Effect.all(dense(1000).map(() => event)),
            (all) => all.map((one): Event.Event => ({ ...one, payload: { text } }))
          )
          yield* Effect.repeatN(Effect.flatMap(batch, Ledger.appendAll), 9)
          assert.isAbove(size(), 8_000_000)
          assert.isBelow(size(), 2 ** 24)
        }).pipe(Effect.provide(SqliteLedger.layerFile(path)))
        const relaxed = yield* file
        yield* Effect.repeatN(append, 1000).pipe(
          Effect.zipRight(Effect.sync(() => assert.isAbove(size(relaxed), 8_000_000))),
          Effect.provide(SqliteLedger.layerFile(relaxed, { durability: "relaxed" }))
        )
        const patient = yield* file
        yield* Effect.repeatN(append, 9000).pipe(
          Effect.zipRight(Effect.sync(() => assert.isBelow(size(patient), 5_000_000))),
          Effect.zipRight(Effect.repeatN(append, 2000)),
          Effect.zipRight(Effect.sync(() => assert.isAbove(size(patient), 8_000_000))),
          Effect.provide(SqliteLedger.layerFile(patient))
        )
      }),
    60_000
  )

  it.scopedLive("what the log of a long reader took is given back when the reader is gone", () =>
    Effect.gen(function*() {
      const path = yield* file
      const wal = () => Fs.statSync(`${path}-wal`).size
      yield* Effect.gen(function*() {
        yield* append
        const text = "x".repeat(1_000_000)
        const large = Effect.map(event, (one): Event.Event => ({ ...one, payload: { text } }))
        yield* Effect.acquireUseRelease(
          Effect.sync(() => {
            const db = new Sqlite(path)
            db.exec("BEGIN")
            db.prepare("SELECT count(*) FROM ledger_events").get()
            return db
          }),
          () => Effect.replicateEffect(Effect.flatMap(large, Ledger.append), 40),
          (db) => Effect.sync(() => db.close())
        )
        assert.isAbove(wal(), 40_000_000)
        // the first carries the log over into the file, the second begins it anew
        yield* append
        yield* append
        assert.isAtMost(wal(), 2 ** 24)
        assert.deepStrictEqual(yield* offsets, dense(43))
      }).pipe(Effect.provide(SqliteLedger.layerFile(path)))
    }))

  it.scopedLive("an append waits for another process's transaction without blocking the program", () =>
    Effect.gen(function*() {
      const path = yield* file
      yield* Effect.gen(function*() {
        yield* append
        const other = new Sqlite(path)
        other.exec("BEGIN IMMEDIATE")
        const waiting = yield* Effect.fork(append)
        // the event loop turns many times meanwhile
        for (let turn = 0; turn < 100; turn++) {
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 1)))
        }
        assert.isNull(waiting.unsafePoll())
        other.exec("COMMIT")
        other.close()
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "Appended")
      }).pipe(Effect.provide(SqliteLedger.layerFile(path)))
    }))

  it.scopedLive("so does one in a transaction of the caller's, and it is recorded with it", () =>
    Effect.gen(function*() {
      const path = yield* file
      yield* Effect.gen(function*() {
        const sql = yield* SqliteClient.SqliteClient
        yield* append
        const other = new Sqlite(path)
        other.exec("BEGIN IMMEDIATE")
        const waiting = yield* Effect.fork(sql.withTransaction(append))
        yield* Effect.sleep("50 millis")
        assert.isNull(waiting.unsafePoll())
        other.exec("COMMIT")
        other.close()
        assert.strictEqual((yield* Fiber.join(waiting)).offset, 2)
        assert.deepStrictEqual(yield* offsets, [1, 2])
      }).pipe(Effect.provide(SqliteLedger.layerFile(path)))
    }))

  it.scopedLive("a lock that is held for too long is StoreUnavailable, and the ledger works again after it", () =>
    Effect.gen(function*() {
      const path = yield* file
      yield* Effect.gen(function*() {
        yield* append
        const other = new Sqlite(path)
        other.exec("BEGIN IMMEDIATE")
        assert.strictEqual((yield* Effect.flip(append))._tag, "StoreUnavailable")
        assert.strictEqual(yield* Ledger.latestOffset, 1)
        other.close()
        assert.strictEqual((yield* append)._tag, "Appended")
      }).pipe(Effect.provide(SqliteLedger.layerFile(path, { busyTimeout: "100 millis" })))
    }))

  it.scopedLive("in a transaction whose snapshot is outdated an append is TransactionAborted", () =>
    Effect.gen(function*() {
      const path = yield* file
      const context = yield* Layer.build(SqliteLedger.layerFile(path))
      const sql = Context.get(context, SqliteClient.SqliteClient)
      const ledger = Context.get(context, Ledger.Ledger)
      yield* ledger.append(yield* event)
      const error = yield* Effect.flip(sql.withTransaction(Effect.gen(function*() {
        yield* sql`SELECT * FROM ledger_events`
        yield* raw(path, (db) => db.exec("CREATE TABLE other (x)"))
        return yield* ledger.append(yield* event)
      })))
      assert.strictEqual((error as { _tag: string })._tag, "TransactionAborted")
      // repeated as a whole it works, and a transaction that begins with the append cannot be outdated
      yield* sql.withTransaction(Effect.flatMap(event, ledger.append))
      assert.strictEqual(yield* ledger.latestOffset, 2)
    }))

  it.scopedLive("a transaction of another client is not joined", () =>
    Effect.gen(function*() {
      const path = yield* file
      const ledger = Context.get(yield* Layer.build(SqliteLedger.layerFile(path)), Ledger.Ledger)
      const other = Context.get(
        yield* Layer.build(SqliteClient.layer({ filename: ":memory:" })),
        SqliteClient.SqliteClient
      )
      const exit = yield* Effect.exit(
        other.withTransaction(Effect.zipRight(Effect.flatMap(event, ledger.append), Effect.fail("roll back")))
      )
      assert.isTrue(Exit.isFailure(exit))
      assert.strictEqual(yield* ledger.latestOffset, 1)
    }))

  it.scopedLive("while a large batch is written, other fibers' statements wait outside its transaction", () =>
    Effect.gen(function*() {
      const path = yield* file
      const context = yield* Layer.build(SqliteLedger.layerFile(path))
      const sql = Context.get(context, SqliteClient.SqliteClient)
      const ledger = Context.get(context, Ledger.Ledger)
      const batch = yield* Effect.all(Array.from({ length: 5000 }, () => event))
      const seen = new Set<number>()
      const writer = yield* Effect.fork(ledger.appendAll(batch))
      while (writer.unsafePoll() === null) {
        const [row] = yield* sql<{ n: number }>`SELECT count(*) AS n FROM ledger_events`
        seen.add(row?.n ?? -1)
        seen.add(yield* ledger.latestOffset)
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      }
      yield* Fiber.join(writer)
      seen.delete(0)
      seen.delete(5000)
      assert.deepStrictEqual(Array.from(seen), [])
    }))
})

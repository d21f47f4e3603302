/** Faults of the place, on SQLite: what one gets, what it says, and that the ledger works again when the place does. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { assert, describe, it } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { Context, Effect, Fiber, Layer, Metric, type Scope, Stream } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Ledger, LedgerMetrics } from "../src/index.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { asNobody, event, fails, fill, folder, holder, needsMount, smallDisk, whileReadOnly } from "./support/faults.js"

const append = Effect.flatMap(event(), Ledger.append)
const events = (count: number, bytes = 0) => Effect.all(Array.from({ length: count }, () => event(bytes)))
const ids = Effect.map(Ledger.events, (all) => all.map(({ id }) => id))
const file = Effect.map(folder, (path) => Path.join(path, "a.db"))

/** A ledger of some events, closed. */
const filled = Effect.tap(
  file,
  (path) => Effect.provide(Effect.flatMap(events(300, 200), Ledger.appendAll), SqliteLedger.layerFile(path))
)

const open = (path: string, options: SqliteLedger.Options = {}) => SqliteLedger.layerFile(path, options)
const opening = (path: string) => Effect.provide(append, open(path))

const raw = (path: string, text: string): void => {
  const db = new Sqlite(path)
  db.exec(text)
  db.close()
}

describe("a full disk", () => {
  interface Disk {
    readonly layer: Layer.Layer<Ledger.Ledger | SqliteClient.SqliteClient, unknown>
    readonly fill: Effect.Effect<void, never, SqliteClient.SqliteClient>
    readonly free: Effect.Effect<void, never, SqliteClient.SqliteClient>
    /** SQLite itself undoes all of a transaction whose pages found no room, and a statement that asks for one too many. */
    readonly undoes: boolean
  }

  const run = (text: string) =>
    Effect.flatMap(SqliteClient.SqliteClient, (sql) => Effect.orDie(Effect.asVoid(sql.unsafe(text))))

  /** The limit that SQLite knows itself, for a connection: the same error, on every system. */
  const limited: Effect.Effect<Disk, never, Scope.Scope> = Effect.map(file, (path) => ({
    layer: SqliteLedger.layer().pipe(Layer.provideMerge(SqliteClient.layer({ filename: path }))),
    fill: run("PRAGMA max_page_count = 1"),
    free: run("PRAGMA max_page_count = 1000000000"),
    undoes: false
  }))

  const mounted: typeof limited = Effect.map(smallDisk(4096), (path) => {
    let free = () => {}
    return {
      layer: open(Path.join(path, "a.db")),
      fill: Effect.sync(() => {
        free = fill(path)
      }),
      free: Effect.sync(() => free()),
      undoes: true
    }
  })

  const full = (disk: Effect.Effect<Disk, unknown, Scope.Scope>): void => {
    it.scopedLive("nothing acknowledged is lost, and with room it goes on", () =>
      Effect.flatMap(disk, ({ fill, free, layer }) =>
        Effect.gen(function*() {
          const acknowledged: Array<string> = []
          const write = Effect.flatMap(event(2000), (one) =>
            Effect.tap(Ledger.append(one), () => Effect.sync(() => acknowledged.push(one.id))))
          for (let n = 0; n < 50; n++) {
            yield* write
          }
          yield* fill
          // pages that are begun may take a few more
          const refused = yield* Effect.flip(Effect.forever(write)).pipe(Effect.timeout("10 seconds"))
          assert.strictEqual(refused._tag, "StoreUnavailable")
          yield* fails(write, "StoreUnavailable", /is full.*make room/)
          const batch = yield* events(100, 2000)
          yield* fails(Ledger.appendAll(batch), "StoreUnavailable", /is full.*make room/)
          assert.deepStrictEqual(yield* ids, acknowledged)
          yield* free
          yield* write
          const receipts = yield* Ledger.appendAll(batch)
          assert.isTrue(receipts.every(({ _tag }) =>
            _tag === "Appended"
          ))
          assert.deepStrictEqual(yield* ids, [...acknowledged, ...batch.map(({ id }) => id)])
        }).pipe(Effect.provide(layer))))

    it.scopedLive("the caller's transaction is told whether it is lost", () =>
      Effect.flatMap(disk, ({ fill, free, layer, undoes }) =>
        Effect.gen(function*() {
          const sql = yield* SqliteClient.SqliteClient
          yield* sql`CREATE TABLE notes (text TEXT)`
          // so that a small transaction does not fit into memory
          yield* sql`PRAGMA cache_size = 10`
          yield* append
          const batch = yield* events(200, 2000)
          const transaction = sql.withTransaction(Effect.zipRight(
            sql`INSERT INTO notes VALUES ('mine')`,
            Ledger.appendAll(batch)
          ))
          if (undoes) yield* fill
          const attempt = undoes ? transaction : sql.withTransaction(
            Effect.zipRight(sql`INSERT INTO notes VALUES ('mine')`, Effect.zipRight(fill, Ledger.appendAll(batch)))
          )
          yield* fails(
            attempt,
            undoes ? "TransactionAborted" : "StoreUnavailable",
            undoes ? /is full.*repeat the whole transaction/ : /is full.*make room/
          )
          assert.strictEqual(yield* Ledger.latestOffset, 1)
          assert.strictEqual((yield* sql`SELECT * FROM notes`).length, 0)
          yield* free
          yield* transaction
          assert.strictEqual(yield* Ledger.latestOffset, 201)
          assert.strictEqual((yield* sql`SELECT * FROM notes`).length, 1)
        }).pipe(Effect.provide(layer))))
  }

  describe("a limit of pages", () => full(limited))
  describe("a file system without room", () => {
    needsMount()
    full(mounted)
  })
})

describe("a place that may not be written", () => {
  it.scopedLive("a file: refused at once, and opened once it may be", () =>
    Effect.gen(function*() {
      const path = yield* filled
      // though it could be read: it would be read-only for as long as it is open
      const refused = fails(
        Effect.provide(Ledger.latestOffset, open(path)),
        "StoreUnavailable",
        /can only be read.*make the file and its folder writable/
      )
      yield* whileReadOnly(path, refused)
      assert.strictEqual((yield* opening(path))._tag, "Appended")
    }))

  it.scopedLive("a folder: no new ledger, none opened, and both once it may be", () =>
    Effect.gen(function*() {
      const path = yield* filled
      const parent = Path.dirname(path)
      Fs.chmodSync(path, 0o666)
      Fs.chmodSync(parent, 0o555)
      yield* asNobody(fails(opening(path), "StoreUnavailable", /make the file and its folder writable/))
      yield* asNobody(fails(opening(Path.join(parent, "new.db")), "StoreUnavailable", /make its folder writable/))
      yield* asNobody(
        fails(opening(Path.join(parent, "sub", "new.db")), "StoreUnavailable", /make the file and its folder writable/)
      )
      Fs.chmodSync(parent, 0o777)
      assert.strictEqual((yield* asNobody(opening(path)))._tag, "Appended")
      assert.strictEqual((yield* asNobody(opening(Path.join(parent, "sub", "new.db"))))._tag, "Appended")
    }))
})

describe("a file that is not what it was", () => {
  it.scopedLive("no database, a folder, a damaged file: none is touched, and a good copy is opened", () =>
    Effect.gen(function*() {
      const path = yield* filled
      const copy = Fs.readFileSync(path)
      const corrupted = Buffer.from(copy)
      corrupted.fill("A", 8192, 8192 + 40_000)
      const cases: ReadonlyArray<readonly [content: Buffer, says: RegExp]> = [
        [Buffer.from("no database at all ".repeat(500)), /not a database; correct the path/],
        [copy.subarray(0, 20_000), /malformed; the file is damaged: restore it/],
        [corrupted, /malformed; the file is damaged: restore it/]
      ]
      for (const [content, says] of cases) {
        Fs.writeFileSync(path, content)
        for (const suffix of ["-wal", "-shm"]) Fs.rmSync(path + suffix, { force: true })
        yield* fails(opening(path), "StoreFailure", says)
        yield* fails(Effect.provide(Ledger.events, open(path)), "StoreFailure", says)
        assert.isTrue(Fs.readFileSync(path).equals(content))
      }
      yield* fails(opening(Path.dirname(path)), "StoreUnavailable", /correct the path/)
      const reading = Layer.build(SqliteLedger.layerReadonly(Path.dirname(path)))
      yield* fails(reading, "StoreUnavailable", /it is a folder; correct the path/)
      Fs.writeFileSync(path, copy)
      for (const suffix of ["-wal", "-shm"]) Fs.rmSync(path + suffix, { force: true })
      yield* opening(path)
      assert.strictEqual((yield* Effect.provide(ids, open(path))).length, 301)
    }))

  it.scopedLive("removed or replaced while it is open: nothing more is acknowledged, until it is opened again", () =>
    Effect.gen(function*() {
      const path = yield* filled
      const copy = Fs.readFileSync(path)
      for (const change of [() => {}, () => Fs.writeFileSync(path, copy)]) {
        const one = yield* event()
        yield* Effect.gen(function*() {
          yield* append
          for (const suffix of ["", "-wal", "-shm"]) Fs.rmSync(path + suffix)
          change()
          const says = /removed, emptied or replaced.*open the ledger again, and append the same event again/
          yield* fails(Ledger.append(one), "StoreFailure", says)
          yield* fails(
            Effect.map(event(), (other) => [one, other]).pipe(Effect.flatMap(Ledger.appendAll)),
            "StoreFailure",
            says
          )
        }).pipe(Effect.provide(open(path)))
        for (const suffix of ["-wal", "-shm"]) Fs.rmSync(path + suffix, { force: true })
        Fs.writeFileSync(path, copy)
        assert.strictEqual((yield* Effect.provide(Ledger.append(one), open(path)))._tag, "Appended")
      }
    }))

  const damages: ReadonlyArray<readonly [name: string, damage: (path: string, copy: Buffer) => void]> = [
    ["emptied", (path) => Fs.truncateSync(path)],
    ["cut off", (path) => Fs.truncateSync(path, 20_000)],
    ["overwritten", (path, copy) => Fs.writeFileSync(path, Buffer.alloc(copy.length, "A"))],
    [
      "overwritten but for its first pages",
      (path, copy) =>
        Fs.writeFileSync(path, Buffer.concat([copy.subarray(0, 8192), Buffer.alloc(copy.length - 8192, "A")]))
    ]
  ]
  for (const [name, damage] of damages) {
    it.scopedLive(`${name} while it is open: whoever meets that is told at once, and a good copy is opened`, () =>
      Effect.gen(function*() {
        const path = yield* file
        const clients = SqliteLedger.layer({ cacheBytes: 0 }).pipe(
          Layer.provide(SqliteClient.layer({ filename: path }))
        )
        const recorded = yield* events(1500, 2000)
        yield* Effect.provide(Ledger.appendAll(recorded), open(path))
        const copy = Fs.readFileSync(path)
        for (const layer of [open(path, { cacheBytes: 0 }), clients]) {
          yield* Effect.gen(function*() {
            assert.strictEqual(yield* Ledger.latestOffset, 1500)
            damage(path, copy)
            const says =
              /damaged: restore it|not a database; correct the path, or restore|emptied.*open the ledger again/
            yield* fails(Ledger.events, "StoreFailure", says)
            yield* fails(Ledger.eventsForRun("run"), "StoreFailure", says)
            yield* fails(Stream.runDrain(Ledger.tail(0)), "StoreFailure", says)
            yield* fails(Stream.runDrain(Ledger.subscribe()), "StoreFailure", says)
            // a few may still find all that they need in memory
            yield* fails(Effect.forever(append), "StoreFailure", says)
            yield* fails(Effect.flatMap(events(1500, 2000), Ledger.appendAll), "StoreFailure", says)
          }).pipe(Effect.provide(layer))
          for (const suffix of ["-wal", "-shm"]) Fs.rmSync(path + suffix, { force: true })
          Fs.writeFileSync(path, copy)
          assert.deepStrictEqual(yield* Effect.provide(ids, open(path)), recorded.map(({ id }) => id))
          assert.strictEqual((yield* opening(path))._tag, "Appended")
          Fs.writeFileSync(path, copy)
        }
      }))
  }

  it.scopedLive("emptied while it is open, and all of it in the write-ahead log: nothing more is acknowledged", () =>
    Effect.gen(function*() {
      const path = yield* file
      const one = yield* event()
      yield* Effect.gen(function*() {
        yield* append
        Fs.truncateSync(path)
        yield* fails(Ledger.append(one), "StoreFailure", /emptied.*open the ledger again, and append the same event/)
      }).pipe(Effect.provide(open(path)))
      // who closes it in peace writes all of it back
      yield* Effect.provide(Ledger.append(one), open(path))
      assert.strictEqual((yield* Effect.provide(ids, open(path))).filter((id) => id === one.id).length, 1)
    }))

  it.scopedLive("an empty file is a new ledger, and no cursor of the old one is taken for one of its own", () =>
    Effect.gen(function*() {
      const path = yield* filled
      const incarnation = yield* Effect.provide(Ledger.incarnation, open(path))
      Fs.truncateSync(path)
      yield* Effect.gen(function*() {
        yield* Effect.flatMap(events(400), Ledger.appendAll)
        yield* fails(
          Stream.runDrain(Ledger.tail({ after: 300, incarnation })),
          "LedgerReplaced",
          /read again from the start/
        )
      }).pipe(Effect.provide(open(path)))
    }))

  it.scopedLive("a newer set-up, a missing record of it, a missing table: refused, and opened when it is back", () =>
    Effect.gen(function*() {
      const path = yield* filled
      const damage = (spoil: string, tag: "IncompatibleStore" | "StoreFailure", says: RegExp, mend: string) =>
        Effect.gen(function*() {
          raw(path, spoil)
          yield* fails(opening(path), tag, says)
          raw(path, mend)
          assert.strictEqual((yield* opening(path))._tag, "Appended")
        })
      yield* damage(
        "UPDATE ledger_meta SET version = 99",
        "IncompatibleStore",
        /version 99.*use a release/,
        "UPDATE ledger_meta SET version = 3"
      )
      yield* damage(
        "CREATE TABLE kept AS SELECT * FROM ledger_meta; DELETE FROM ledger_meta",
        "IncompatibleStore",
        /unknown set-up version/,
        "INSERT INTO ledger_meta SELECT * FROM kept; DROP TABLE kept"
      )
      yield* damage(
        "ALTER TABLE ledger_meta RENAME TO gone",
        "StoreFailure",
        /parts of a ledger are there without its set-up record/,
        "ALTER TABLE gone RENAME TO ledger_meta"
      )
    }))

  it.scopedLive("a table that is taken away from an open ledger is missed, and found again", () =>
    Effect.gen(function*() {
      const path = yield* filled
      yield* Effect.gen(function*() {
        yield* append
        raw(path, "CREATE TABLE kept AS SELECT * FROM ledger_meta; DELETE FROM ledger_meta")
        // not that it is empty
        yield* fails(Ledger.latestOffset, "StoreFailure", /set-up record is missing; restore/)
        yield* fails(Ledger.events, "StoreFailure", /set-up record is missing; restore/)
        raw(path, "INSERT INTO ledger_meta SELECT * FROM kept; DROP TABLE kept")
        raw(path, "PRAGMA legacy_alter_table = ON; ALTER TABLE ledger_events RENAME TO gone")
        yield* fails(append, "StoreFailure", /no such table.*a part of the ledger is missing: restore/)
        yield* fails(Ledger.events, "StoreFailure", /no such table.*a part of the ledger is missing: restore/)
        // statements that were never prepared before
        yield* fails(Ledger.runs, "StoreFailure", /no such table/)
        yield* fails(Ledger.runs, "StoreFailure", /no such table/)
        raw(path, "PRAGMA legacy_alter_table = ON; ALTER TABLE gone RENAME TO ledger_events")
        assert.isNotEmpty(yield* Ledger.runs)
        yield* append
        assert.strictEqual(yield* Ledger.latestOffset, 302)
      }).pipe(Effect.provide(open(path)))
    }))
})

describe("a locked database", () => {
  it.scopedLive("held by another process: StoreUnavailable in time, appended when it lets go, and counted", () =>
    Effect.gen(function*() {
      const path = yield* filled
      const context = yield* Layer.build(open(path, { busyTimeout: "300 millis" }))
      const ledger = Context.get(context, Ledger.Ledger)
      const other = yield* holder(path, "BEGIN IMMEDIATE")
      yield* fails(Effect.flatMap(event(), ledger.append), "StoreUnavailable", /database is locked; end transactions/)
      yield* fails(Effect.flatMap(events(20), ledger.appendAll), "StoreUnavailable", /database is locked/)
      assert.strictEqual(yield* ledger.latestOffset, 300)

      const patient = Context.get(yield* Layer.build(open(path)), Ledger.Ledger)
      const retries = Effect.map(Metric.value(LedgerMetrics.retries), ({ count }) => count)
      const before = yield* retries
      const waiting = yield* Effect.fork(Effect.flatMap(event(), patient.append))
      while ((yield* retries) === before) yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      assert.isNull(waiting.unsafePoll())
      yield* other.letGo
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "Appended")
      assert.strictEqual((yield* Effect.flatMap(event(), ledger.append))._tag, "Appended")
    }))

  it.scopedLive("while it is opened: in time, and the program goes on meanwhile", () =>
    Effect.gen(function*() {
      const path = yield* file
      raw(path, "CREATE TABLE mine (x)")
      const other = yield* holder(path, "BEGIN EXCLUSIVE")
      let longest = 0
      let last = performance.now()
      const timer = setInterval(() => {
        longest = Math.max(longest, performance.now() - last)
        last = performance.now()
      }, 5)
      yield* fails(
        Effect.provide(append, open(path, { busyTimeout: "1 second" })),
        "StoreUnavailable",
        /database is locked; end transactions/,
        4
      )
      clearInterval(timer)
      assert.isBelow(longest, 500)
      yield* other.letGo
      assert.strictEqual((yield* opening(path))._tag, "Appended")
    }))
})

/** Copies are whole or not there, whatever ends them. */
import { afterAll, describe, expect, inject, it } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { Context, Duration, Effect, Either, Fiber, Layer, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join, relative } from "node:path"
import { pathToFileURL } from "node:url"
import { Client } from "pg"
import { Consumer, ConsumerStore, Ledger, LedgerStore, MemoryLedger, Snapshot, Verify } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { canonicalBytes, digest, digestOver, event, events, world } from "./contract/fixtures.js"
import { eventually, expectEvents, failure, type Handle, open, over, recordedAt } from "./contract/handle.js"
import { random } from "./support/following.js"
import { finished, type Process, start, until } from "./support/running.js"

const root = Fs.realpathSync(Fs.mkdtempSync(join(tmpdir(), "effect-ledger-snapshot-")))
const url = inject("databaseUrl")
const prefix = `snapshot_${randomBytes(4).toString("hex")}`
let schemas = 0
const newSchema = () => `${prefix}_${++schemas}`
const newFolder = () => Fs.mkdtempSync(join(root, "s-"))
const newFile = () => join(newFolder(), "ledger.db")

afterAll(async () => {
  Fs.rmSync(root, { recursive: true, force: true })
  const client = new Client(url)
  await client.connect()
  for (let n = 1; n <= schemas; n++) await client.query(`DROP SCHEMA IF EXISTS ${prefix}_${n} CASCADE`)
  await client.end()
})

/** A place for a ledger: as an address for a copy, and as a Layer. */
interface Place {
  readonly address: string | Redacted.Redacted
  readonly options: Snapshot.Options
  readonly layer: () => Layer.Layer<
    Ledger.Ledger | Ledger.LedgerAdmin | LedgerStore.LedgerStore | ConsumerStore.ConsumerStore,
    unknown
  >
}

const sqlite = (file = newFile(), options: Snapshot.Options = {}): Place => ({
  address: file,
  options,
  layer: () => SqliteLedger.layerFile(file, { prefix: options.prefix })
})
const postgres = (schema = newSchema()): Place => ({
  address: Redacted.make(url),
  options: { schema },
  layer: () => PgLedger.layerUrl(Redacted.make(url), { schema, maxConnections: 3 })
})
const memory = (): Place => ({ address: ":memory:", options: {}, layer: () => MemoryLedger.layer })
const sqliteMemory = (): Place => ({ ...memory(), layer: () => SqliteLedger.layerFile(":memory:") })

const copyTo = (handle: Handle, { address, options }: Place, more: Snapshot.Options = {}) =>
  Effect.provideService(Snapshot.to(address, { ...options, ...more }), LedgerStore.LedgerStore, handle.store)

const verify = (handle: Handle, options?: Verify.Options) =>
  Effect.provideService(Verify.run(options), LedgerStore.LedgerStore, handle.store)

const held = [
  ...world(1500),
  event("text", { actor: "\u{1f4be} \u2028", runId: " ", payload: { "\u0000": "\u0000", big: "é".repeat(300_000) } }),
  event("full", { sessionId: "s", modelProfile: "p", modelId: "m", schemaVersion: 7, turn: 2 ** 31 - 1 })
]

const hidden = (folder: string) => Fs.readdirSync(folder).filter((name) => name.startsWith("."))

const consume = (handle: Handle, consumers: Context.Tag.Service<ConsumerStore.ConsumerStore>) =>
  Effect.gen(function*() {
    const reader = yield* Effect.fork(Consumer.run({ name: "reader", handler: () => Effect.void }))
    yield* eventually(consumers.consumers, ([one]) => one?.position?.offset === held.length)
    yield* Fiber.interrupt(reader)
  }).pipe(
    Effect.provideService(Ledger.Ledger, handle.ledger),
    Effect.provideService(LedgerStore.LedgerStore, handle.store),
    Effect.provideService(ConsumerStore.ConsumerStore, consumers)
  )

describe("a copy", () => {
  const pairs: ReadonlyArray<readonly [string, () => Place, () => Place]> = [
    ["memory to SQLite", memory, sqlite],
    ["SQLite to SQLite", sqlite, sqlite],
    ["SQLite to SQLite with another prefix", sqlite, () => sqlite(newFile(), { prefix: "other_" })],
    ["SQLite in memory to SQLite", sqliteMemory, sqlite],
    ["SQLite to Postgres", sqlite, postgres],
    ["Postgres to SQLite", postgres, sqlite],
    ["Postgres to Postgres", postgres, postgres],
    ["memory to Postgres", memory, postgres]
  ]
  for (const [name, from, to] of pairs) {
    it.scopedLive(`${name}: every event, offset and digest, and where they come from`, () =>
      Effect.gen(function*() {
        const source = yield* open(from().layer())
        const place = to()
        yield* source.ledger.appendAll(held)
        const consumers = Context.get(source.context, ConsumerStore.ConsumerStore)
        yield* consume(source, consumers)
        const parent = yield* source.store.head
        const seen: Array<object> = []
        const made = yield* copyTo(source, place, { onProgress: (at) => Effect.sync(() => void seen.push(at)) })
        expect(made).toStrictEqual({
          head: held.length,
          count: held.length,
          bytes: canonicalBytes(held),
          digest: digestOver(held),
          incarnation: made.incarnation,
          parent
        })
        expect(made.incarnation).not.toBe(parent.incarnation)
        expect(seen.at(-1)).toStrictEqual({ copied: held.length, total: held.length })
        expect(seen.length).toBeGreaterThan(1)

        const copy = yield* open(place.layer())
        expectEvents(yield* copy.ledger.events, recordedAt(1, held))
        expect(yield* copy.store.digests(0, held.length)).toStrictEqual(
          held.map((one, index) => [index + 1, digest(one)])
        )
        expect(yield* copy.admin.lineage).toStrictEqual({ incarnation: made.incarnation, parents: [parent] })
        expect(yield* Context.get(copy.context, ConsumerStore.ConsumerStore).consumers).toStrictEqual([])
        expect((yield* consumers.consumers).length).toBe(1)
        expect(yield* verify(copy)).toMatchObject({ head: held.length, digest: made.digest, count: 0, problems: [] })
        // it is a ledger like any other, guarded and writable
        expect(yield* copy.ledger.append(event("later"))).toMatchObject({ _tag: "Appended", offset: held.length + 1 })
        expect(yield* source.store.head).toStrictEqual(parent)
        if (typeof place.address === "string") {
          expect(hidden(dirname(place.address))).toStrictEqual([])
        }
      }))
  }

  it.scopedLive("of a copy knows all its ancestors; a copy of nothing is empty", () =>
    Effect.gen(function*() {
      const [first, second, third] = [yield* open(sqlite().layer()), sqlite(), postgres()]
      expect(yield* copyTo(first, second)).toMatchObject({ head: 0, count: 0, bytes: 0, digest: digestOver([]) })
      const handle = yield* open(second.layer())
      yield* handle.ledger.appendAll(events(3))
      const made = yield* copyTo(handle, third)
      const last = yield* open(third.layer())
      expect((yield* last.admin.lineage).parents).toStrictEqual([made.parent, yield* first.store.head])
      expect(made.parent).toMatchObject({ offset: 3, digest: digest(events(3)[2]!) })
    }))

  it.scopedLive("of a SQLite file leaves the program's own tables behind", () =>
    Effect.gen(function*() {
      const [from, to] = [newFile(), newFile()]
      const source = yield* open(sqlite(from).layer())
      yield* source.ledger.appendAll(events(5))
      const own = new Sqlite(from)
      own.exec("CREATE TABLE secrets (text TEXT); INSERT INTO secrets VALUES ('of the program alone')")
      own.close()
      yield* copyTo(source, sqlite(to))
      expect(Fs.readFileSync(to).includes("of the program alone")).toBe(false)
      expectEvents(yield* (yield* open(sqlite(to).layer())).ledger.events, recordedAt(1, events(5)))
    }))

  it.scopedLive("by the engine is made beside the program, whose timers go on", () =>
    Effect.gen(function*() {
      const [from, to] = [newFile(), newFile()]
      const source = yield* open(SqliteLedger.layerFile(from, { durability: "relaxed" }))
      yield* source.ledger.appendAll(events(4000, "large", { payload: { text: "x".repeat(10_000) } }))
      const sizes = new Set<number>()
      const timer = setInterval(() => {
        for (const name of hidden(dirname(to))) {
          const size = Fs.statSync(join(dirname(to), name), { throwIfNoEntry: false })?.size ?? 0
          if (!/-(wal|shm|journal)$/.test(name) && size > 0) sizes.add(size)
        }
      }, 1)
      yield* Effect.ensuring(copyTo(source, sqlite(to)), Effect.sync(() => clearInterval(timer)))
      // on this thread it would be seen when it is whole, and not before
      const whole = Fs.statSync(to).size
      expect(Array.from(sizes).filter((size) => size < whole / 2).length).toBeGreaterThan(2)
    }))

  it.scopedLive("is full durable again, whatever the settings of its source", () =>
    Effect.gen(function*() {
      const [from, to] = [newFile(), newFile()]
      const source = yield* open(SqliteLedger.layerFile(from, { durability: "relaxed" }))
      yield* source.ledger.appendAll(events(2))
      yield* copyTo(source, sqlite(to))
      const context = yield* Layer.build(SqliteLedger.layerFile(to))
      expect(yield* Context.get(context, LedgerStore.LedgerStore).inspect).toStrictEqual([])
      expect(Fs.statSync(to).size).toBeGreaterThan(0)
    }))

  it.scopedLive("fails at an event that is damaged, and leaves what stood there", () =>
    Effect.gen(function*() {
      const [from, to] = [newFile(), newFile()]
      const source = yield* open(sqlite(from).layer())
      yield* source.ledger.appendAll(events(20))
      yield* copyTo(source, sqlite(to))
      const before = Fs.readFileSync(to)
      const db = new Sqlite(from)
      const guard = "CREATE TRIGGER \"ledger_no_update\" BEFORE UPDATE ON \"ledger_events\"\n" +
        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
      db.exec(`DROP TRIGGER ledger_no_update; UPDATE ledger_events SET actor = 'eve' WHERE "offset" = 13; ${guard}`)
      db.close()
      for (const options of [{}, { prefix: "other_", replace: true }]) {
        expect(yield* failure(copyTo(source, sqlite(to), options))).toMatchObject({ _tag: "CorruptEvent", offset: 13 })
        expect(Fs.readFileSync(to).equals(before)).toBe(true)
        expect(Fs.readdirSync(dirname(to))).toStrictEqual([basename(to)])
      }
      const destination = postgres()
      expect(yield* failure(copyTo(source, destination))).toMatchObject({ _tag: "CorruptEvent", offset: 13 })
      expect(yield* (yield* open(destination.layer())).ledger.latestOffset).toBe(0)
    }))

  for (const [name, make] of [["SQLite", sqlite], ["Postgres", postgres]] as const) {
    it.scopedLive(
      `${name}: while two others write, each is the log up to its head`,
      () =>
        Effect.gen(function*() {
          const from = make()
          const source = yield* open(from.layer())
          const env = {
            DATABASE_URL: typeof from.address === "string" ? from.address : Redacted.value(from.address),
            LEDGER_SCHEMA: from.options.schema ?? ""
          }
          const writers: ReadonlyArray<Process> = yield* Effect.all(
            ["one", "two"].map((name) => start("writer.ts", [name, "800", "4"], env))
          )
          yield* until(() => writers.every(({ lines }) => lines.length > 0), writers)
          const to = sqlite()
          const made: Array<Snapshot.Snapshot> = []
          const still = () => writers.some((writer) => writer.ended() === undefined)
          while (made.length < 3 || (still() && made.length < 12)) {
            const one = yield* copyTo(source, to)
            const copy = yield* Effect.scoped(
              Effect.flatMap(
                open(to.layer()),
                (copy) => Effect.all({ events: copy.ledger.events, report: verify(copy) })
              )
            )
            expect(copy.report).toMatchObject({ head: one.head, count: 0, digest: one.digest })
            expect(digestOver(copy.events)).toBe(one.digest)
            made.push(one)
          }
          yield* Effect.forEach(writers, finished)
          const all = yield* source.ledger.events
          expect(all.length).toBe(1600)
          // the first was made while they wrote
          expect(made[0]!.head).toBeLessThan(1600)
          for (const { digest, head } of made) expect(digestOver(all.slice(0, head))).toBe(digest)
        })
    )
  }
})

describe("a destination", () => {
  it.scopedLive("that is the ledger itself is refused, however it is spelled", () =>
    Effect.gen(function*() {
      const file = newFile()
      const folder = dirname(file)
      const source = yield* open(sqlite(file).layer())
      yield* source.ledger.appendAll(events(10))
      Fs.symlinkSync(file, join(folder, "link.db"))
      Fs.symlinkSync("link.db", join(folder, "second.db"))
      Fs.linkSync(file, join(folder, "hard.db"))
      Fs.symlinkSync(folder, join(root, "folder"))
      const spellings = [
        file,
        relative(process.cwd(), file),
        join(folder, ".", "..", basename(folder), basename(file)),
        `${folder}//ledger.db`,
        pathToFileURL(file).href,
        `file:${relative(process.cwd(), file)}`,
        `sqlite:///${file}`,
        `sqlite:///${relative(process.cwd(), file)}`,
        `sqlite+aiosqlite:///${file}`,
        join(folder, "link.db"),
        join(folder, "second.db"),
        join(folder, "hard.db"),
        join(root, "folder", "ledger.db"),
        `${file}-wal`,
        `${file}-shm`,
        `${file}-journal`
      ]
      const before = Fs.readdirSync(folder).sort()
      for (const spelling of spellings) {
        for (const options of [{}, { replace: true }, { replace: true, prefix: "other_" }]) {
          const refused = yield* Effect.either(copyTo(source, { ...sqlite(spelling), options }))
          expect({ spelling, ...refused }).toMatchObject({
            spelling,
            left: { _tag: "SnapshotRefused", message: "the destination is the ledger itself" }
          })
        }
      }
      expect(Fs.readdirSync(folder).sort()).toStrictEqual(before)
      expectEvents(yield* source.ledger.events, recordedAt(1, events(10)))
      expect((yield* verify(source)).count).toBe(0)
    }))

  it.scopedLive("that is the ledger itself is refused on Postgres, whatever its URL", () =>
    Effect.gen(function*() {
      const place = postgres()
      const source = yield* open(place.layer())
      yield* source.ledger.appendAll(events(10))
      const address = new URL(url)
      const other = new URL(url)
      other.hostname = address.hostname === "127.0.0.1" ? "localhost" : address.hostname
      const named = new URL(url)
      named.searchParams.set("application_name", "copy")
      named.searchParams.set("options", `-c search_path=${place.options.schema}`)
      const urls = [url, url.replace(/^\w+:/, "postgres:"), url.replace(/^\w+:/, "postgresql+psycopg:"), other.href]
      for (
        const [spelling, options] of [
          ...urls.map((spelling) => [spelling, place.options] as const),
          // its schema is the one that the connection finds
          [named.href, {}] as const
        ]
      ) {
        for (const replace of [false, true]) {
          const error = yield* failure(
            copyTo(source, { ...place, address: Redacted.make(spelling), options }, { replace })
          )
          expect(error).toMatchObject({ _tag: "SnapshotRefused", message: "the destination is the ledger itself" })
        }
      }
      expectEvents(yield* source.ledger.events, recordedAt(1, events(10)))
    }))

  it.scopedLive("in memory is refused, and so is a copy of what a transaction may yet undo", () =>
    Effect.gen(function*() {
      const source = yield* open(sqlite().layer())
      for (const address of ["", "memory:", ":memory:", "sqlite://", "sqlite::memory:"]) {
        const error = yield* failure(copyTo(source, { ...memory(), address }))
        expect(error._tag).toBe("SnapshotRefused")
      }
      expect(yield* failure(copyTo(source, { ...memory(), address: "mysql://x" }))).toMatchObject({
        _op: "InvalidData"
      })
      const inside = yield* failure(source.store.transaction(copyTo(source, sqlite())))
      expect(inside).toMatchObject({ _tag: "StoreFailure" })
    }))

  it.scopedLive("a SQLite file is replaced by a later snapshot of the same ledger, and otherwise only when asked", () =>
    Effect.gen(function*() {
      const source = yield* open(sqlite().layer())
      yield* source.ledger.appendAll(events(3))
      const to = newFile()
      const copied = () => Effect.scoped(Effect.flatMap(open(sqlite(to).layer()), ({ ledger }) => ledger.latestOffset))
      const refused = (why: RegExp) =>
        Effect.gen(function*() {
          const before = Fs.readFileSync(to)
          const error = yield* failure(copyTo(source, sqlite(to)))
          expect(`${error._tag}: ${error.message}`).toMatch(why)
          expect(Fs.readFileSync(to).equals(before)).toBe(true)
          yield* copyTo(source, sqlite(to), { replace: true })
          expect(yield* copied()).toBe(yield* source.ledger.latestOffset)
        })

      Fs.writeFileSync(to, "")
      yield* copyTo(source, sqlite(to))
      yield* source.ledger.append(event("fourth"))
      yield* copyTo(source, sqlite(to))
      expect(yield* copied()).toBe(4)
      // an operator has declared that the ledger goes on, and the copy is still of it
      yield* source.admin.incarnate
      yield* copyTo(source, sqlite(to))

      yield* Effect.scoped(Effect.flatMap(open(sqlite(to).layer()), ({ ledger }) => ledger.append(event("its own"))))
      yield* refused(/^SnapshotRefused: .*others have gone on/)

      Fs.rmSync(to)
      yield* Effect.scoped(Effect.flatMap(open(sqlite(to).layer()), ({ ledger }) => ledger.append(event("another"))))
      yield* refused(/^SnapshotRefused: .*another ledger/)

      Fs.writeFileSync(to, "notes that nobody wants to lose")
      yield* refused(/^SnapshotRefused: .*something else/)

      const tables = new Sqlite(to)
      tables.exec("CREATE TABLE invoices (n INTEGER)")
      tables.close()
      yield* refused(/^SnapshotRefused: .*something else/)

      yield* source.admin.reset
      yield* refused(/^SnapshotRefused: .*another ledger/)

      const folder = newFolder()
      expect((yield* failure(copyTo(source, sqlite(folder), { replace: true }))).message).toMatch(/is not a file/)
    }))

  it.scopedLive("that somebody has open is left alone; what lies beside one that is gone does no harm", () =>
    Effect.gen(function*() {
      const source = yield* open(sqlite().layer())
      yield* source.ledger.appendAll(events(3))
      const to = newFile()
      yield* copyTo(source, sqlite(to))
      yield* Effect.scoped(Effect.gen(function*() {
        const reader = yield* open(sqlite(to).layer())
        yield* source.ledger.append(event("more"))
        const error = yield* failure(copyTo(source, sqlite(to)))
        expect(error).toMatchObject({ _tag: "SnapshotRefused" })
        expect(error.message).toMatch(/open/)
        expect(yield* reader.ledger.latestOffset).toBe(3)
      }))
      // the log of a process that was killed, and whose file somebody has removed
      const dead = newFile()
      const db = new Sqlite(dead)
      db.pragma("journal_mode = WAL")
      db.exec("CREATE TABLE t (n); INSERT INTO t VALUES (1)")
      Fs.copyFileSync(`${dead}-wal`, `${to}-wal`)
      db.close()
      Fs.rmSync(to)
      yield* copyTo(source, sqlite(to))
      const copy = yield* open(sqlite(to).layer())
      expect((yield* verify(copy)).count).toBe(0)
      expectEvents(yield* copy.ledger.events, recordedAt(1, [...events(3), event("more")]))
    }))

  it.scopedLive("a link is followed: what it points to is replaced", () =>
    Effect.gen(function*() {
      const source = yield* open(sqlite().layer())
      yield* source.ledger.appendAll(events(3))
      const [to, link] = [newFile(), join(newFolder(), "link.db")]
      yield* copyTo(source, sqlite(to))
      Fs.symlinkSync(to, link)
      yield* source.ledger.append(event("more"))
      yield* copyTo(source, sqlite(link))
      expect(Fs.lstatSync(link).isSymbolicLink()).toBe(true)
      expect(yield* (yield* open(sqlite(to).layer())).ledger.latestOffset).toBe(4)
    }))

  it.scopedLive("a ledger in Postgres must be empty, or be replaced when asked", () =>
    Effect.gen(function*() {
      const source = yield* open(sqlite().layer())
      yield* source.ledger.appendAll(events(3))
      const to = postgres()
      const copy = yield* open(to.layer())
      yield* copy.ledger.appendAll(events(7, "old"))
      const before = yield* copy.store.head
      const error = yield* failure(copyTo(source, to))
      expect(error).toMatchObject({ _tag: "SnapshotRefused" })
      expect(error.message).toMatch(/holds 7 events/)
      expect(yield* copy.store.head).toStrictEqual(before)
      const made = yield* copyTo(source, to, { replace: true })
      expectEvents(yield* copy.ledger.events, recordedAt(1, events(3)))
      expect(yield* copy.ledger.incarnation).toBe(made.incarnation)
      expect((yield* verify(copy)).count).toBe(0)
      // who has appended meanwhile has not been overwritten
      expect((yield* failure(copyTo(source, to)))._tag).toBe("SnapshotRefused")
    }))

  it.scopedLive("fails with LedgerReplaced when the ledger is reset while it is copied", () =>
    Effect.gen(function*() {
      const source = yield* open(postgres().layer())
      yield* source.ledger.appendAll(events(2500))
      const to = newFile()
      const error = yield* failure(copyTo(source, sqlite(to), {
        onProgress: ({ copied }) => copied === 1000 ? Effect.orDie(source.admin.reset) : Effect.void
      }))
      expect(error._tag).toBe("LedgerReplaced")
      expect(Fs.readdirSync(dirname(to))).toStrictEqual([])
    }))

  it.scopedLive("is not written when the copy is not what was sent", () =>
    Effect.gen(function*() {
      const { store } = yield* open(memory().layer())
      const source = yield* open(over(store, (store) => ({
        // one that loses the last row of each page and says that there is nothing more
        page: (request) =>
          Effect.map(store.page(request), (page) => ({ ...page, rows: page.rows.slice(0, -1), next: page.next }))
      })))
      yield* source.ledger.appendAll(events(5))
      const to = newFile()
      expect(yield* failure(copyTo(source, sqlite(to)))).toMatchObject({ _tag: "CorruptEvent", offset: 5 })
      expect(Fs.readdirSync(dirname(to))).toStrictEqual([])
    }))
})

describe("SIGKILL", () => {
  it.scopedLive(
    "50 times, in the middle of a snapshot: the one before is intact each time",
    () =>
      Effect.gen(function*() {
        const seed = randomBytes(4).toString("hex")
        console.log(`seed of the kills: ${seed}`)
        const next = random(seed)
        const from = newFile()
        const source = yield* open(sqlite(from).layer())
        yield* Effect.forEach([1, 2, 3], (n) => source.ledger.appendAll(events(2000, `e${n}`)))
        const counts = { left: 0, unfinished: 0, whole: 0 }
        // by the engine, and by pages, as the prefix differs
        const places = [{}, { prefix: "other_" }].map((options) => sqlite(newFile(), options))
        const made = yield* Effect.forEach(places, (place) => Effect.timed(copyTo(source, place)))
        yield* Effect.forEach(Array.from({ length: 50 }, (_, n) => n), (n) =>
          Effect.scoped(Effect.gen(function*() {
            const place = places[n % 2]!
            const [duration, { digest, head }] = made[n % 2]!
            const to = place.address as string
            const child = yield* start("snapshotter.ts", [to, JSON.stringify(place.options)], { DATABASE_URL: from })
            yield* until(() => child.lines.length > 0, [child])
            const moment = Date.now() + next() * Duration.toMillis(duration)
            yield* until(() => Date.now() >= moment, [child])
            yield* child.kill
            expect(child.ended()).toBe("SIGKILL")

            const left = hidden(dirname(to)).filter((name) => !/-(wal|shm|journal)$/.test(name))
            counts.left += left.length
            for (const name of left) {
              // nobody would open it by this name; who does is not given half of a ledger
              const opened = yield* Effect.scoped(Effect.either(
                Effect.flatMap(open(sqlite(join(dirname(to), name), place.options).layer()), verify)
              ))
              if (Either.isLeft(opened)) counts.unfinished++
              else if (opened.right.head > 0) {
                counts.whole++
                expect(opened.right).toMatchObject({ head, digest, count: 0 })
              }
            }
            const copy = yield* open(place.layer())
            expect(yield* verify(copy)).toMatchObject({ head, digest, count: 0, problems: [] })
          })))
        console.log(`left behind: ${JSON.stringify(counts)}`)
        expect(counts.left).toBeGreaterThan(10)
        expect(counts.unfinished).toBeGreaterThan(0)
        // what they left is removed by the next that is made
        for (const place of places) {
          yield* copyTo(source, place)
          expect(hidden(dirname(place.address as string))).toStrictEqual([])
        }
      }),
    150_000
  )

  it.scopedLive("in the middle of a snapshot to Postgres: what was there is there, and nothing else", () =>
    Effect.gen(function*() {
      const from = newFile()
      const source = yield* open(sqlite(from).layer())
      yield* Effect.forEach([1, 2, 3, 4], (n) => source.ledger.appendAll(events(1000, `e${n}`)))
      const to = postgres()
      const copy = yield* open(to.layer())
      const empty = yield* copy.store.head
      const killAt = (options: Snapshot.Options, line: string) =>
        Effect.scoped(Effect.gen(function*() {
          const args = [url, JSON.stringify({ ...to.options, ...options }), "1"]
          const child = yield* start("snapshotter.ts", args, { DATABASE_URL: from })
          yield* until(() => child.lines.includes(line), [child])
          yield* child.kill
        }))
      for (const copied of [1000, 3000]) {
        yield* killAt({}, `copied ${copied}`)
        expect(yield* copy.store.head).toStrictEqual(empty)
      }
      yield* copy.ledger.appendAll(events(9, "old"))
      const old = yield* copy.store.head
      yield* killAt({ replace: true }, "copied 2000")
      expect(yield* copy.store.head).toStrictEqual(old)
      expectEvents(yield* copy.ledger.events, recordedAt(1, events(9, "old")))
      expect((yield* verify(copy)).count).toBe(0)
      expect(yield* copyTo(source, to, { replace: true })).toMatchObject({ head: 4000 })
    }))
})

it.scopedLive("100,000 events take no more memory than a few", () =>
  Effect.gen(function*() {
    const from = newFile()
    const source = yield* open(SqliteLedger.layerFile(from, { durability: "relaxed", cacheBytes: 0 }))
    for (let n = 0; n < 10; n++) {
      yield* source.ledger.appendAll(events(10_000, `e${n}`, { payload: { text: "x".repeat(200) } }))
    }
    const schema = newSchema()
    const destinations: ReadonlyArray<readonly [string, Snapshot.Options]> = [
      [newFile(), {}],
      [url, { schema }]
    ]
    const made: Array<string | undefined> = []
    for (const [address, options] of destinations) {
      const started = performance.now()
      const child = yield* start(
        "snapshotter.ts",
        [address, JSON.stringify(options), "1"],
        { DATABASE_URL: from },
        () => {},
        ["--expose-gc", "--max-old-space-size=64"]
      )
      yield* finished(child)
      const [, first, most] = child.lines.at(-1)!.split(" ").map(Number)
      console.log(
        `${JSON.stringify(options)}: ${((performance.now() - started) / 1000).toFixed(1)} s, ` +
          `${(first! / 2 ** 20).toFixed(1)} then at most ${(most! / 2 ** 20).toFixed(1)} MiB`
      )
      expect(first).toBeGreaterThan(0)
      expect(most! - first!).toBeLessThan(8 * 2 ** 20)
      made.push(child.lines.at(-2))
    }
    expect(made[0]).toMatch(/^made 100000 [0-9a-f]{64}$/)
    expect(new Set(made).size).toBe(1)
  }), { timeout: 120_000 })

/** The thread that writes the events of many callers into a SQLite file, by itself and in a ledger. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { Effect, Fiber, Metric, Schedule, type Scope } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Worker } from "node:worker_threads"
import { Event, Ledger, LedgerMetrics } from "../src/index.js"
import * as Migrations from "../src/internal/migrations/sqlite.js"
import { encode } from "../src/internal/row.js"
import * as SqliteWriter from "../src/internal/sqliteWriter.js"
import * as SqlStore from "../src/internal/sqlStore.js"
import type { AppendGroup, Row } from "../src/LedgerStore.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { runScript, startScript } from "./support/processes.js"

const file = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-"))),
    (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
  ),
  (folder) => Path.join(folder, "a.db")
)

const event = (id: string, runId = "run") =>
  Effect.orDie(Event.create({ id, runId, turn: 1, kind: "agent.spoke", actor: "ada", payload: { id } }))

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n)

describe("the thread", () => {
  const names = SqlStore.names("ledger_")!

  /** A ledger's tables, another process's connection to them, and a thread. */
  const made = Effect.fnUntraced(function*(isLost: () => boolean) {
    const path = yield* file
    const other = yield* Effect.acquireRelease(
      Effect.sync(() => new Sqlite(path, { timeout: 0 })),
      (db) => Effect.sync(() => db.close())
    )
    other.pragma("journal_mode = WAL")
    for (const text of Migrations.create(names)) other.exec(text)
    const row = `(${"?, ".repeat(12)}?)`
    const writer = yield* SqliteWriter.make({
      file: path,
      isLost,
      pragmas: ["PRAGMA synchronous = FULL"],
      last: `SELECT max("offset") FROM ${names.events}`,
      inserts: [2, 1].map((rows) => [
        rows,
        `INSERT INTO ${names.events} (${SqlStore.columns}, digest) VALUES ${Array.from({ length: rows }, () => row)}`
      ])
    })
    const write = (groups: ReadonlyArray<AppendGroup>) =>
      Effect.async<number | undefined>((resume) => {
        if (!writer.write(groups, (before) => resume(Effect.succeed(before)))) resume(Effect.succeed(-1))
      })
    const recorded = () =>
      other.prepare<[], string>(`SELECT "offset" || ' ' || id FROM ledger_events ORDER BY "offset"`).pluck().all()
    return { other, recorded, write, writer }
  })

  /** The same, and the thread runs. */
  const started = Effect.gen(function*() {
    const all = yield* made(() => false)
    yield* Effect.repeat(all.write([yield* group("first")]), {
      until: (before) => before === 0,
      schedule: Schedule.spaced("10 millis")
    })
    return all
  })

  const group = (...ids: ReadonlyArray<string>): Effect.Effect<AppendGroup> =>
    Effect.map(Effect.forEach(ids, (id) => event(id)), ([head, ...tail]) => ({
      rows: [rowOf(head!), ...tail.map(rowOf)],
      condition: undefined
    }))

  const rowOf = (event: Event.Event): Row => encode(event, 1e6) as Row

  it.scopedLive("writes what it was told ahead, and what comes with the write, in order", () =>
    Effect.gen(function*() {
      const { recorded, write, writer } = yield* started
      const groups = yield* Effect.all([group("a", "b", "c"), group("d"), group("e")])
      writer.ahead(groups.slice(0, 1))
      writer.ahead(groups.slice(1, 2))
      assert.strictEqual(yield* write(groups), 1)
      assert.deepStrictEqual(recorded(), ["1 first", "2 a", "3 b", "4 c", "5 d", "6 e"])
      assert.isFalse(writer.isBusy())
    }))

  it.scopedLive("shows nobody what it was told ahead, and undoes it where something else is written", () =>
    Effect.gen(function*() {
      const { recorded, write, writer } = yield* started
      const [a, b, c] = yield* Effect.all([group("a"), group("b"), group("c")])
      writer.ahead([a, b])
      yield* Effect.sleep("10 millis")
      assert.deepStrictEqual(recorded(), ["1 first"])
      assert.strictEqual(yield* write([a, c]), 1)
      assert.deepStrictEqual(recorded(), ["1 first", "2 a", "3 c"])
      writer.ahead([yield* group("d"), yield* group("e")])
      assert.strictEqual(yield* write([b]), 3)
      assert.deepStrictEqual(recorded(), ["1 first", "2 a", "3 c", "4 b"])
    }))

  it.scopedLive("keeps the lock from others only for a moment, where the write does not come", () =>
    Effect.gen(function*() {
      const { other, recorded, write, writer } = yield* started
      const [a] = yield* Effect.all([group("a")])
      writer.ahead([a])
      // its place is taken meanwhile
      yield* Effect.repeat(Effect.sync(() => writer.isBusy()), {
        while: (busy) => busy,
        schedule: Schedule.spaced("5 millis")
      }).pipe(Effect.timeout("5 seconds"))
      other.exec("BEGIN IMMEDIATE; COMMIT")
      assert.strictEqual(yield* write([a]), 1)
      assert.deepStrictEqual(recorded(), ["1 first", "2 a"])
    }))

  it.scopedLive("gives the lock back at once to who asks for it", () =>
    Effect.gen(function*() {
      const { other, recorded, write, writer } = yield* started
      const [a, b] = yield* Effect.all([group("a"), group("b")])
      writer.ahead([a])
      yield* writer.idle
      other.exec("BEGIN IMMEDIATE; COMMIT")
      // the write was told of it, and comes between the question and the answer
      writer.ahead([a])
      const asked = yield* Effect.fork(writer.idle)
      yield* Effect.yieldNow()
      assert.strictEqual(yield* write([a, b]), undefined)
      yield* Fiber.join(asked)
      assert.deepStrictEqual(recorded(), ["1 first"])
      assert.strictEqual(yield* write([a]), 1)
      assert.deepStrictEqual(recorded(), ["1 first", "2 a"])
    }))

  it.scopedLive("leaves to its caller what is known, and what another process's lock is in the way of", () =>
    Effect.gen(function*() {
      const { other, recorded, write, writer } = yield* started
      const [first, a] = yield* Effect.all([group("first"), group("a")])
      assert.strictEqual(yield* write([a, first]), undefined)
      assert.deepStrictEqual(recorded(), ["1 first"])
      other.exec("BEGIN IMMEDIATE")
      writer.ahead([a])
      assert.strictEqual(yield* write([a]), undefined)
      other.exec("COMMIT")
      assert.strictEqual(yield* write([a]), 1)
      assert.deepStrictEqual(recorded(), ["1 first", "2 a"])
    }))

  it.scopedLive("takes nothing where another file is at its path by the time that it is open", () =>
    Effect.gen(function*() {
      let looks = 0
      const { recorded, write } = yield* made(() => ++looks > 0)
      const a = yield* group("a")
      yield* Effect.repeat(Effect.map(write([a]), (before) => assert.strictEqual(before, -1)), {
        until: () => looks > 0,
        schedule: Schedule.spaced("10 millis")
      })
      assert.strictEqual(yield* write([a]), -1)
      assert.deepStrictEqual(recorded(), [])
    }))

  it.scopedLive("takes one write at a time, and says so", () =>
    Effect.gen(function*() {
      const { recorded, write } = yield* started
      const [a, b] = yield* Effect.all([group("a"), group("b")])
      assert.deepStrictEqual(yield* Effect.all([write([a]), write([b])], { concurrency: 2 }), [1, -1])
      assert.deepStrictEqual(recorded(), ["1 first", "2 a"])
    }))
})

describe("a ledger with many callers", () => {
  afterEach(() => void vi.restoreAllMocks())

  /** Sees what the thread is asked for; the thread itself is real. */
  const watched = () => {
    const threads = new Set<Worker>()
    const asked: Array<string> = []
    const { postMessage } = Worker.prototype
    vi.spyOn(Worker.prototype, "postMessage").mockImplementation(function(this: Worker, message: { end?: string }) {
      threads.add(this)
      asked.push(message.end ?? "ahead")
      return postMessage.call(this, message)
    })
    return { count: (what: string) => asked.filter((one) => one === what).length, threads }
  }

  type Program<E> = Effect.Effect<void, E, Ledger.Ledger | SqliteClient.SqliteClient | Scope.Scope>

  const withLedger = <E>(program: Program<E>) =>
    Effect.flatMap(file, (path) =>
      Effect.provide(
        program,
        SqliteLedger.layerFile(path)
      ))

  /** 64 callers append one event after the other until `beside` has ended; what they were told is what is there. */
  const callers = <E>(beside: (appended: () => number) => Program<E>, isMortal = false) =>
    Effect.gen(function*() {
      const lanes = numbers(64).map((): Array<number> => [])
      const state = { ended: false }
      const lane = (offsets: Array<number>, n: number) =>
        Effect.gen(function*() {
          while (!state.ended) {
            const receipt = yield* Ledger.append(yield* event(`${n}/${offsets.length}`, `run ${n}`))
            // where the thread dies between its commit and its answer, the events are found there
            assert.isTrue(receipt._tag === "Appended" || (isMortal && receipt.identical))
            offsets.push(receipt.offset)
          }
        })
      const work = yield* Effect.fork(Effect.forEach(lanes, lane, { concurrency: "unbounded", discard: true }))
      yield* Effect.ensuring(
        Effect.raceFirst(beside(() => lanes.flat().length), Fiber.join(work)),
        Effect.sync(() => {
          state.ended = true
        })
      )
      yield* Fiber.join(work)
      const all = yield* Ledger.events
      assert.deepStrictEqual(all.map(({ offset }) => offset), numbers(all.length).map((n) => n + 1))
      for (const [n, offsets] of lanes.entries()) {
        const own = all.filter(({ runId }) => runId === `run ${n}`)
        assert.deepStrictEqual(own.map(({ offset }) => offset), offsets)
        assert.deepStrictEqual(own.map(({ id }) => id), offsets.map((_, index) => `${n}/${index}`))
      }
    })

  const until = (condition: () => boolean) =>
    Effect.repeat(Effect.sync(condition), { until: (met) => met, schedule: Schedule.spaced("5 millis") }).pipe(
      Effect.timeout("20 seconds"),
      Effect.asVoid
    )

  it.scopedLive("has them written on the thread, in order and without holes", () => {
    const { count } = watched()
    return withLedger(callers(() => until(() => count("commit") >= 50)))
  }, 30_000)

  it.scopedLive("goes on by itself where the thread dies", () => {
    const { count, threads } = watched()
    return withLedger(callers((appended) =>
      Effect.gen(function*() {
        yield* until(() => count("commit") >= 10)
        assert.strictEqual(threads.size, 1)
        for (const thread of threads) yield* Effect.promise(() => thread.terminate())
        const before = appended()
        yield* until(() => appended() > before + 1000)
      }), true))
  }, 30_000)

  it.scopedLive("waits while a transaction of this program is open, which sees nothing change", () => {
    const { count } = watched()
    return withLedger(callers(() =>
      Effect.gen(function*() {
        const sql = yield* SqliteClient.SqliteClient
        for (const n of numbers(20)) {
          const commits = count("commit")
          yield* until(() => count("commit") >= commits + 3)
          yield* sql.withTransaction(Effect.gen(function*() {
            assert.lengthOf(yield* Ledger.eventsForRun("mine"), n)
            yield* Effect.sleep("5 millis")
            yield* Ledger.append(yield* event(`mine/${n}`, "mine"))
          }))
        }
      })
    ))
  }, 30_000)

  it.scopedLive("gives the lock to another write of this program, which runs into none", () => {
    const { count } = watched()
    return withLedger(callers(() =>
      Effect.gen(function*() {
        const retries = yield* Metric.value(LedgerMetrics.retries)
        for (const n of numbers(20)) {
          const commits = count("commit")
          yield* until(() => count("commit") >= commits + 3)
          // who is traced is written by an effect
          yield* Effect.withSpan(Effect.flatMap(event(`traced/${n}`, "traced"), Ledger.append), "traced")
        }
        assert.deepStrictEqual(yield* Metric.value(LedgerMetrics.retries), retries)
        assert.deepStrictEqual(yield* Metric.value(LedgerMetrics.retries), retries)
      })
    ))
  }, 30_000)

  it.scopedLive("writes nothing of a caller that leaves before the write", () => {
    const { count } = watched()
    return withLedger(callers(() =>
      Effect.gen(function*() {
        yield* until(() => count("commit") >= 10)
        const left: Array<string> = []
        for (const n of numbers(200)) {
          const fiber = yield* Effect.fork(Effect.flatMap(event(`left/${n}`, "left"), Ledger.append))
          for (let turn = 0; turn < n % 4; turn++) yield* Effect.yieldNow()
          const exit = yield* Fiber.interrupt(fiber)
          // who is interrupted during the write is told so all the same, and may be there
          if (exit._tag === "Failure") left.push(`left/${n}`)
        }
        const recorded = new Set((yield* Ledger.eventsForRun("left")).map(({ id }) => id))
        assert.isAbove(left.filter((id) => !recorded.has(id)).length, 20)
      })
    ))
  }, 30_000)

  it.scopedLive(
    "stays in its file where the program goes to a folder with another of that name",
    () =>
      Effect.gen(function*() {
        const [from, to] = yield* Effect.all([file, file])
        for (const path of [from, to]) yield* Effect.provide(Ledger.latestOffset, SqliteLedger.layerFile(path))
        const folders = [Path.dirname(from), Path.dirname(to)]
        yield* Effect.promise(() =>
          runScript("callers.ts", ["p", "64", "100", ...folders], { DATABASE_URL: "sqlite:///a.db" })
        )
        assert.strictEqual(yield* Effect.provide(Ledger.latestOffset, SqliteLedger.layerFile(to)), 0)
        assert.strictEqual(yield* Effect.provide(Ledger.latestOffset, SqliteLedger.layerFile(from)), 6400)
      }),
    30_000
  )

  it.scopedLive("does without the thread where Node allows none", () =>
    Effect.gen(function*() {
      const path = yield* file
      const permission = process.allowedNodeEnvironmentFlags.has("--permission")
        ? "--permission"
        : "--experimental-permission"
      const output = yield* Effect.promise(() =>
        runScript("callers.ts", ["p", "64", "50"], { DATABASE_URL: `sqlite:///${path}` }, [
          permission,
          "--allow-addons",
          "--allow-fs-read=*",
          "--allow-fs-write=*"
        ])
      )
      const all = yield* Ledger.events.pipe(Effect.provide(SqliteLedger.layerFile(path)))
      assert.lengthOf(all, 64 * 50)
      for (const { id, offset } of all) assert.include(output, `${offset} ${id}\n`)
    }), 30_000)

  it.scopedLive(
    "has all that was acknowledged, and no hole, when it is killed, and ends by itself otherwise",
    () =>
      Effect.gen(function*() {
        const path = yield* file
        const env = { DATABASE_URL: `sqlite:///${path}` }
        const acknowledged: Array<string> = []
        for (const n of numbers(5)) {
          const child = yield* Effect.promise(() => startScript("callers.ts", [`p${n}`, "64", "1000"], env))
          let output = ""
          child.stdout!.on("data", (chunk) => {
            output += String(chunk)
            if (output.length > 40_000 + n * 9973) child.kill("SIGKILL")
          })
          const signal = yield* Effect.promise(() =>
            new Promise((resolve) => child.on("close", (_, by) => resolve(by)))
          )
          assert.strictEqual(signal, "SIGKILL")
          acknowledged.push(...output.split("\n").slice(0, -1))
        }
        const last = yield* Effect.promise(() => runScript("callers.ts", ["last", "64", "50"], env))
        acknowledged.push(...last.split("\n").slice(0, -1))
        const all = yield* Ledger.events.pipe(Effect.provide(SqliteLedger.layerFile(path)))
        assert.deepStrictEqual(all.map(({ offset }) => offset), numbers(all.length).map((n) => n + 1))
        const recorded = new Set(all.map(({ id, offset }) => `${offset} ${id}`))
        assert.deepStrictEqual(acknowledged.filter((one) => !recorded.has(one)), [])
        assert.isAbove(acknowledged.length, 10_000)
        for (const runId of yield* Effect.provide(Ledger.runs, SqliteLedger.layerFile(path))) {
          const turns = all.filter((event) => event.runId === runId).map(({ turn }) => turn)
          assert.deepStrictEqual(turns, numbers(turns.length))
        }
      }),
    60_000
  )
})

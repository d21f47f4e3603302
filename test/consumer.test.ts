/** Consumers where they are hard: processes that are killed or suspended, servers that die. */
import * as SqlClient from "@effect/sql/SqlClient"
import { assert, describe, it } from "@effect/vitest"
import {
  Context,
  Duration,
  Effect,
  Fiber,
  type Layer,
  Logger,
  Option,
  Redacted,
  Schedule,
  type Scope,
  TestClock
} from "effect"
import { randomBytes, randomInt } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { inject } from "vitest"
import { Consumer, type ConsumerStore, Event, type Ledger } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { eventually, open } from "./contract/handle.js"
import type { Services } from "./contract/index.js"
import { random, untilAvailable } from "./support/following.js"
import { folder, postgres, type Process, start, until } from "./support/running.js"

const seed = process.env["TEST_SEED"] ?? String(randomInt(2 ** 31))

for (const backend of ["SQLite", "Postgres"] as const) {
  describe(backend, () => {
    it.scopedLive(
      "exactly once, though 100 of the processes are killed and others suspended",
      () =>
        Effect.gen(function*() {
          console.log(`TEST_SEED=${seed}`)
          const chance = random(seed)
          const log = yield* opened(backend)
          const consume = log.consume({ delivery: "exactlyOnce", lease: 200, batch: 5 })
          const alive = [yield* consume, yield* consume, yield* consume]
          let resting = false
          const appending = yield* Effect.fork(
            Effect.forever(Effect.suspend(() => resting ? Effect.sleep("5 millis") : log.appendSome(chance, 12)))
          )

          const kills = 100
          let inWork = 0
          let tookOver = 0
          let last = 0
          for (let round = 1; round <= kills; round++) {
            yield* log.active(alive, (status) => status.offset > last)
            yield* Effect.sleep(chance() * 30)
            if (round % 10 === 0) {
              // at rest, or anywhere; in a transaction it holds SQLite's lock, so that nobody takes over
              resting = round % 20 === 0
              const { holder, offset } = yield* log.active(alive, ({ lag }) => lag === 0 || !resting)
              holder.signal("SIGSTOP")
              resting = false
              const others = alive.filter(({ pid }) => pid !== holder.pid)
              const other = log.active(others, (status) => status.offset > offset)
              if (Option.isSome(yield* Effect.timeoutOption(other, 1000))) tookOver++
              holder.signal("SIGCONT")
            }
            const { holder: victim, lag, offset: reached } = yield* log.active(alive)
            yield* victim.kill
            if (lag > 0 && reached > last) inWork++
            last = (yield* log.status)!.offset
            alive[alive.indexOf(victim)] = yield* consume
          }
          yield* Fiber.interrupt(appending)
          yield* eventually(log.status, (status) => status?.lag === 0)
          yield* Effect.forEach(alive, ({ kill }) => kill)

          const expected = (yield* log.ledger.events).map(({ id, offset }) => ({ id, offset }))
          console.log(
            `${expected.length} events; ${inWork} of ${kills} kills in the middle; ${tookOver} times taken over`
          )
          assert.deepStrictEqual(yield* log.seen, expected)
          // of who had the lease, had moved on since the last kill, and had more to do
          assert.isAtLeast(inWork, kills / 2)
          assert.isAtLeast(tookOver, 3)
        }),
      240_000
    )

    it.scopedLive("at least once: a holder that was suspended in a handler cannot put the checkpoint back", () =>
      Effect.gen(function*() {
        const log = yield* opened(backend)
        const gate = Path.join(yield* folder, "gate")
        const setting = { delivery: "atLeastOnce", lease: 3000, batch: 5 } as const
        yield* log.append(20)
        const old = yield* log.consume({ ...setting, gateAt: 7, gate })
        yield* until(() => old.lines.includes("handling"), [old])
        const other = yield* log.consume(setting)
        assert.deepInclude(yield* log.status, { offset: 5, lag: 15 })
        assert.strictEqual(pidOf((yield* log.status)!.holder), old.pid)
        old.signal("SIGSTOP")
        yield* log.takenOver(other, setting.lease)
        yield* eventually(log.status, (status) => status?.lag === 0)
        assert.deepStrictEqual(offsetsIn(other), [6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])

        Fs.writeFileSync(gate, "")
        old.signal("SIGCONT")
        yield* until(() => old.errors().includes("the lease is lost"), [old, other])
        assert.deepStrictEqual(offsetsIn(old), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        assert.deepInclude(yield* log.status, { offset: 20, lag: 0 })
        assert.strictEqual(pidOf((yield* log.status)!.holder), other.pid)

        // it is as good as any other again
        yield* other.kill
        yield* log.append(5)
        yield* log.takenOver(old, setting.lease)
        yield* eventually(log.status, (status) => status?.lag === 0)
        assert.deepStrictEqual(offsetsIn(old).slice(10), [21, 22, 23, 24, 25])
      }))

    it.scopedLive("partitions of a process that is killed go to the others, and runs stay in order", () =>
      Effect.gen(function*() {
        console.log(`TEST_SEED=${seed}`)
        const chance = random(seed)
        const log = yield* opened(backend)
        const consume = log.consume({ delivery: "atLeastOnce", lease: 2000, batch: 7, groups: 6 })
        const members = yield* Effect.all([consume, consume, consume])
        const parts = Effect.map(
          log.all,
          (all) => members.map(({ pid }) => all.filter(({ holder }) => pidOf(holder) === pid).length)
        )
        yield* eventually(parts, (counts) => counts.join() === "2,2,2")
        const appending = yield* Effect.fork(Effect.forever(log.appendSome(chance, 12)))
        yield* until(() => members.every(({ lines }) => lines.length > 50), members)
        const [victim, ...others] = members as [Process, Process, Process]
        yield* victim.kill
        yield* eventually(parts, (counts) => counts.join() === "0,3,3")
        const before = others.map(({ lines }) => lines.length)
        yield* until(() => others.every(({ lines }, index) => lines.length > before[index]! + 50), others)
        yield* Fiber.interrupt(appending)
        yield* eventually(log.all, (all) => all.length === 6 && all.every(({ lag }) => lag === 0))

        const events = yield* log.ledger.events
        assert.deepStrictEqual(
          Array.from(new Set(members.flatMap(offsetsIn))).toSorted((self, that) => self - that),
          events.map(({ offset }) => offset)
        )
        for (const member of members) {
          for (const runId of yield* log.ledger.runs) {
            const own = member.lines.filter((line) => line.endsWith(` ${runId}`)).map((line) => Number.parseInt(line))
            assert.deepStrictEqual(own, Array.from(new Set(own)).toSorted((self, that) => self - that))
          }
        }
      }))
  })
}

it.scoped("exactly once: what a rollback takes from the lease is given back at once", () =>
  Effect.gen(function*() {
    const { context, ledger } = yield* open(SqliteLedger.layerFile(":memory:"))
    yield* ledger.append(yield* Event.create({ runId: "run", turn: 1, kind: "agent.spoke", actor: "ada", payload: {} }))
    const working = yield* Effect.makeLatch()
    const failing = yield* Effect.makeLatch()
    const run = Consumer.run({
      name: "reader",
      delivery: "exactlyOnce",
      // renewed each second, and good for three
      lease: "4 seconds",
      retry: Schedule.spaced("1 hour"),
      handler: () => Effect.zipRight(working.open, Effect.zipRight(failing.await, Effect.fail("no")))
    })
    yield* Effect.forkScoped(Effect.provide(run, context))
    yield* working.await
    yield* TestClock.adjust("3500 millis")
    yield* failing.open
    const [status] = yield* Consumer.status.pipe(
      // the clock stands still: nothing else renews it
      Effect.repeat({ until: ([status]) => status?.holder !== null, times: 1000 }),
      Effect.provide(context)
    )
    assert.isNotNull(status?.holder)
  }))

describe("Postgres", () => {
  it.scopedLive("exactly once: the transaction of a suspended holder is ended by the server", () =>
    Effect.gen(function*() {
      const log = yield* opened("Postgres")
      const gate = Path.join(yield* folder, "gate")
      const setting = { delivery: "exactlyOnce", lease: 3000, batch: 5 } as const
      yield* log.append(20)
      const old = yield* log.consume({ ...setting, gateAt: 7, gate })
      yield* until(() => old.lines.includes("handling"), [old])
      const other = yield* log.consume(setting)
      old.signal("SIGSTOP")
      yield* log.takenOver(other, setting.lease)
      yield* eventually(log.status, (status) => status?.lag === 0)
      Fs.writeFileSync(gate, "")
      old.signal("SIGCONT")
      yield* until(() => old.errors().includes("gives the partition up"), [old, other])
      assert.deepInclude(yield* log.status, { offset: 20, lag: 0 })
      yield* other.kill
      yield* log.append(5)
      yield* log.takenOver(old, setting.lease)
      yield* eventually(log.status, (status) => status?.lag === 0)
      assert.deepStrictEqual(
        yield* log.seen,
        (yield* log.ledger.events).map(({ id, offset }) => ({ id, offset }))
      )
    }))

  it.scopedLive(
    "consumers of both kinds outlive their server, killed three times",
    () =>
      Effect.gen(function*() {
        console.log(`TEST_SEED=${seed}`)
        const chance = random(seed)
        const server = yield* postgres
        const log = yield* over(
          PgLedger.layerUrl(Redacted.make(server.url), { schema: "ledger" }),
          "ledger.seen",
          "place int8 GENERATED ALWAYS AS IDENTITY",
          {}
        )
        const sql = Context.get(log.context, SqlClient.SqlClient)
        let outages = 0
        const logger = Logger.replace(
          Logger.defaultLogger,
          Logger.make(({ message }) => {
            if (String(message).includes("the store is away")) outages++
          })
        )
        const atLeast: Array<number> = []
        const consumers = yield* Effect.forEach(
          [
            {
              name: "reader",
              delivery: "exactlyOnce",
              handler: ({ id, offset }: Event.RecordedEvent) =>
                Effect.zipRight(
                  sql`INSERT INTO ledger.seen ("offset", id) VALUES (${offset}, ${id})`,
                  Effect.sleep("1 millis")
                )
            },
            {
              name: "teller",
              delivery: "atLeastOnce",
              handler: ({ offset }: Event.RecordedEvent) => Effect.sync(() => void atLeast.push(offset))
            }
          ] as const,
          (options) =>
            Consumer.run<unknown, never>({ lease: "1 second", batch: 10, ...options }).pipe(
              Effect.provide(log.context),
              Effect.provide(logger),
              Effect.forkScoped
            )
        )
        const alive = () => consumers.every((fiber) => fiber.unsafePoll() === null)
        const appending = yield* Effect.fork(Effect.forever(log.appendSome(chance, 12)))
        for (let kill = 1; kill <= 3; kill++) {
          const before = { told: atLeast.length, seen: (yield* log.seen).length }
          yield* eventually(
            log.seen,
            (seen) => !alive() || (seen.length > before.seen + 50 && atLeast.length > before.told + 50)
          )
          outages = 0
          assert.isTrue(alive())
          yield* Effect.sleep(chance() * 100)
          yield* Effect.promise(() => server.kill())
          // what the store's own retries would bridge is no outage
          yield* until(() => outages > 0)
          yield* Effect.promise(() => server.start())
        }
        yield* Fiber.interrupt(appending)
        yield* eventually(log.all, (all) => !alive() || (all.length === 2 && all.every(({ lag }) => lag === 0)))
        assert.isTrue(alive())
        const events = yield* log.ledger.events
        assert.deepStrictEqual(yield* log.seen, events.map(({ id, offset }) => ({ id, offset })))
        assert.deepStrictEqual(
          Array.from(new Set(atLeast)),
          events.map(({ offset }) => offset),
          "nothing missed, in order but for what is repeated"
        )
        for (const [index, offset] of atLeast.entries()) {
          assert.isAbove(offset, (atLeast[index - 1] ?? 0) - 10, "no more than a batch is repeated")
        }
      }),
    120_000
  )
})

interface Setting {
  readonly delivery: Consumer.Delivery
  readonly lease: number
  readonly batch: number
  readonly groups?: number
  readonly gateAt?: number
  readonly gate?: string
}

type Everything = Services | ConsumerStore.ConsumerStore | SqlClient.SqlClient

/** A new ledger with a table `seen` beside it, in which nothing keeps an event from being twice. */
const opened = (backend: "SQLite" | "Postgres") =>
  Effect.gen(function*() {
    if (backend === "SQLite") {
      const path = Path.join(yield* folder, "a.db")
      return yield* over(SqliteLedger.layerFile(path), "seen", "place INTEGER PRIMARY KEY", {
        DATABASE_URL: `sqlite:///${path}`
      })
    }
    const url = inject("databaseUrl")
    const schema = `consumer_${randomBytes(4).toString("hex")}`
    const log = yield* over(
      PgLedger.layerUrl(Redacted.make(url), { schema }),
      `${schema}.seen`,
      "place int8 GENERATED ALWAYS AS IDENTITY",
      { DATABASE_URL: url, LEDGER_SCHEMA: schema }
    )
    const sql = Context.get(log.context, SqlClient.SqlClient)
    yield* Effect.addFinalizer(() => Effect.orDie(sql.unsafe(`DROP SCHEMA ${schema} CASCADE`)))
    return log
  })

const over = (
  layer: Layer.Layer<Everything, unknown>,
  table: string,
  place: string,
  env: Record<string, string>
): Effect.Effect<Log, unknown, Scope.Scope> =>
  Effect.gen(function*() {
    const { context, ledger } = yield* open(layer)
    const sql = Context.get(context, SqlClient.SqlClient)
    yield* sql.unsafe(`CREATE TABLE ${table} (${place}, "offset" integer NOT NULL, id text NOT NULL)`)
    let turn = 0
    const append = (count: number) =>
      Effect.gen(function*() {
        const events = yield* Effect.forEach(Array.from({ length: count }, () => ++turn), (turn) =>
          Event.create({
            id: Event.deterministicId(table, String(turn)),
            runId: `run-${turn % 23}`,
            turn,
            kind: "agent.spoke",
            actor: "ada",
            payload: { turn }
          }))
        yield* Effect.retry(ledger.appendAll(events), untilAvailable)
      })
    const all = Effect.provide(Effect.retry(Consumer.status, untilAvailable), context)
    const status = Effect.map(all, ([one]) => one)
    const active: Log["active"] = (processes, isRight = () => true) =>
      Effect.gen(function*() {
        const find = (pid: number | undefined) => processes.find((one) => one.pid === pid && one.ended() === undefined)
        const found = yield* eventually(
          status,
          (one) => one !== undefined && isRight(one) && find(pidOf(one.holder)) !== undefined
        )
        return { holder: find(pidOf(found!.holder))!, offset: found!.offset, lag: found!.lag }
      })
    return {
      context,
      ledger,
      append,
      // not far ahead of who reads it
      appendSome: (chance, most) =>
        Effect.gen(function*() {
          yield* eventually(all, (partitions) => partitions.every(({ lag }) => lag < 100))
          yield* append(1 + Math.floor(chance() * most))
          yield* Effect.sleep(chance() * 10)
        }),
      seen: sql.unsafe<{ readonly offset: number; readonly id: string }>(
        `SELECT "offset", id FROM ${table} ORDER BY place`
      ).pipe(
        // a connection may have died with its server
        Effect.retry({ times: 20 }),
        Effect.map((rows) => rows.map(({ id, offset }) => ({ id, offset })))
      ),
      consume: (setting) => start("consumer.ts", [JSON.stringify(setting)], env),
      all,
      status,
      active,
      takenOver: (process, lease) =>
        Effect.gen(function*() {
          const [duration] = yield* Effect.timed(active([process]))
          const millis = Math.round(Duration.toMillis(duration))
          console.log(`taken over after ${millis} ms of a lease of ${lease} ms`)
          // a third of it for a machine that others use
          assert.isAtMost(millis, lease * 4 / 3)
        })
    }
  })

interface Log {
  readonly context: Context.Context<Everything>
  readonly ledger: Ledger.Ledger["Type"]
  readonly append: (count: number) => Effect.Effect<void, unknown>
  readonly appendSome: (chance: () => number, most: number) => Effect.Effect<void, unknown>
  /** What the handlers wrote, in the order written. */
  readonly seen: Effect.Effect<ReadonlyArray<{ readonly id: string; readonly offset: number }>, unknown>
  readonly consume: (setting: Setting) => Effect.Effect<Process, never, Scope.Scope>
  readonly all: Effect.Effect<ReadonlyArray<Consumer.Status>, unknown>
  /** Of the first partition. */
  readonly status: Effect.Effect<Consumer.Status | undefined, unknown>
  /** Waits until one of these processes has the lease. */
  readonly active: (
    processes: ReadonlyArray<Process>,
    isRight?: (status: Consumer.Status) => boolean
  ) => Effect.Effect<{ readonly holder: Process; readonly offset: number; readonly lag: number }, unknown>
  /** Waits until the process has the lease, for no longer than that lasts. */
  readonly takenOver: (process: Process, lease: number) => Effect.Effect<void, unknown>
}

/** The holder is named after its host, its process and a number. */
const pidOf = (holder: string | null): number | undefined =>
  holder === null ? undefined : Number(holder.split(":").at(-2))

const offsetsIn = ({ lines }: Process): ReadonlyArray<number> =>
  lines.filter((line) => line !== "handling").map((line) => Number.parseInt(line))

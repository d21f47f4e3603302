/** Following the log, where the clock stands still or the payloads are large. */
import { assert, describe, it } from "@effect/vitest"
import { Context, DateTime, type Duration, Effect, Fiber, Layer, Redacted, Schema, Stream, TestClock } from "effect"
import { randomBytes } from "node:crypto"
import { inject } from "vitest"
import {
  Consumer,
  ConsumerStore,
  type Event,
  Ledger,
  LedgerStore,
  MemoryLedger,
  Projection,
  StoreLedger
} from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"

const event = (id: string, text = ""): Event.Event => ({
  id,
  runId: "run",
  turn: 1,
  kind: "agent.spoke",
  actor: "ada",
  payload: { text },
  createdAt: DateTime.unsafeMake(0),
  schemaVersion: 1,
  sessionId: null,
  modelProfile: null,
  modelId: null
})

it.effect(
  "a subscriber is told of this program's own appends at once, without the clock",
  () =>
    Effect.gen(function*() {
      const reading = yield* Effect.fork(Stream.runCollect(Ledger.subscribe().pipe(Stream.take(3))))
      yield* Effect.yieldNow()
      for (const id of ["a", "b", "c"]) {
        yield* Ledger.append(event(id))
        // so that each is news of its own
        for (let turn = 0; turn < 20; turn++) yield* Effect.yieldNow()
      }
      assert.deepStrictEqual(Array.from(yield* Fiber.join(reading), ({ offset }) => offset), [1, 2, 3])
    }).pipe(Effect.provide(MemoryLedger.layer)),
  5000
)

describe("all timing that is ours is the clock's in the context", () => {
  /** After so long, and when everybody whom that wakes has done what there is to do. */
  const after = (duration: Duration.DurationInput) =>
    Effect.zipRight(TestClock.adjust(duration), Effect.repeatN(Effect.yieldNow(), 200))

  it.scoped("a subscriber that no hint reaches looks when the poll interval is over", () =>
    Effect.gen(function*() {
      const store = yield* LedgerStore.LedgerStore
      const deaf = StoreLedger.layerWith({ pollInterval: "1 hour" }).pipe(
        Layer.provide(Layer.succeed(LedgerStore.LedgerStore, { ...store, changes: Stream.never }))
      )
      const reader = Context.get(yield* Layer.build(deaf), Ledger.Ledger)
      const seen: Array<number> = []
      yield* reader.subscribe().pipe(
        Stream.runForEach(({ offset }) => Effect.sync(() => seen.push(offset))),
        Effect.forkScoped
      )
      yield* after("1 millis")
      yield* Ledger.append(event("a"))
      yield* after("59 minutes")
      assert.deepStrictEqual(seen, [])
      yield* after("1 minute")
      assert.deepStrictEqual(seen, [1])
    }).pipe(Effect.provide(MemoryLedger.layer)))

  it.scoped("a consumer's lease is kept as long as its holder lives, and goes to another when it is over", () =>
    Effect.gen(function*() {
      const consumers = yield* ConsumerStore.ConsumerStore
      yield* Ledger.appendAll([event("a"), event("b")])
      const seen: Array<number> = []
      const consume = (mine: Array<number>) =>
        Effect.forkScoped(Consumer.run({
          name: "reader",
          lease: "1 minute",
          handler: ({ offset }) => Effect.sync(() => mine.push(offset))
        }))
      // of one that died without a word
      const partition = { name: "reader", partition: 0, partitions: 1 }
      yield* consumers.acquire({ ...partition, holder: "dead", millis: 60_000 })
      const first = yield* consume(seen)
      yield* after("59 seconds")
      assert.deepStrictEqual(seen, [])
      yield* after("16 seconds")
      assert.deepStrictEqual(seen, [1, 2])

      const others: Array<number> = []
      yield* consume(others)
      const held = consumers.acquire({ ...partition, holder: "another", millis: 60_000 })
      for (let minute = 0; minute < 4; minute++) {
        yield* after("1 minute")
        assert.strictEqual((yield* held)._tag, "Held")
      }
      yield* Fiber.interrupt(first)
      yield* Ledger.append(event("c"))
      yield* after("15 seconds")
      assert.deepStrictEqual([seen, others], [[1, 2], [3]])
    }).pipe(Effect.provide(MemoryLedger.layer)))

  it.scoped("a projection is saved when the save interval is over", () =>
    Effect.gen(function*() {
      const count = Projection.make({
        name: "count",
        version: 1,
        initial: 0,
        apply: (count) => count + 1,
        schema: Schema.Number
      })
      const live = yield* Projection.openPersisted(count, { saveInterval: "1 minute" })
      const saved = Effect.map(Projection.status("count"), (versions) => versions.map(({ offset }) => offset))
      yield* Ledger.append(event("a"))
      yield* live.awaitOffset(1)
      yield* after("59 seconds")
      assert.deepStrictEqual(yield* saved, [])
      yield* after("1 second")
      assert.deepStrictEqual(yield* saved, [1])
      yield* Ledger.append(event("b"))
      yield* live.awaitOffset(2)
      yield* after("59 seconds")
      assert.deepStrictEqual(yield* saved, [1])
      yield* after("1 second")
      assert.deepStrictEqual(yield* saved, [2])
    }).pipe(Effect.provide(MemoryLedger.layer)))
})

describe("a page of large payloads after small ones is bounded", () => {
  const bounded = <E>(layer: Layer.Layer<Ledger.Ledger | LedgerStore.LedgerStore, E>) =>
    Effect.gen(function*() {
      yield* Ledger.appendAll(Array.from({ length: 64 }, (_, n) => event(`small-${n}`)))
      yield* Ledger.appendAll(Array.from({ length: 300 }, (_, n) => event(`large-${n}`, "x".repeat(200_000))))
      const store = yield* LedgerStore.LedgerStore
      for (const backward of [false, true]) {
        const seen: Array<unknown> = []
        let after = 0
        let through = 364
        for (let more = true; more;) {
          const { next, rows } = yield* store.page({ filters: [], after, through, backward, limit: 1000 })
          const length = rows.reduce((sum, row) => sum + String(row[6]).length, 0)
          assert.isBelow(length, 2 ** 23 + 200_020)
          seen.push(...rows.map((row) => Number(row[0])))
          more = next !== null
          if (backward) through = (next ?? 1) - 1
          else after = next ?? after
        }
        const all = Array.from({ length: 364 }, (_, index) => index + 1)
        assert.deepStrictEqual(seen, backward ? all.toReversed() : all)
      }
    }).pipe(Effect.provide(layer))

  it.live("SQLite", () => bounded(SqliteLedger.layerFile(":memory:")))
  it.live("Postgres", () =>
    bounded(PgLedger.layerUrl(Redacted.make(inject("databaseUrl")), { schema: `t${randomBytes(8).toString("hex")}` })))
})

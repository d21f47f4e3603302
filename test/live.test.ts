/** Following the log, where the clock stands still or the payloads are large. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Fiber, type Layer, Redacted, Stream } from "effect"
import { randomBytes } from "node:crypto"
import { inject } from "vitest"
import { type Event, Ledger, LedgerStore, MemoryLedger } from "../src/index.js"
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

/** The proxy's own test: what it says of the answers that it loses is so. */
import * as SqlClient from "@effect/sql/SqlClient"
import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import { inject } from "vitest"
import { Ledger } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import { event } from "./support/faults.js"
import { type Loss, startProxy } from "./support/proxy.js"

it.scopedLive("what is lost are answers to appends, however they are sent, and they are told from other commits", () =>
  Effect.gen(function*() {
    const proxy = yield* Effect.acquireRelease(
      Effect.promise(() => startProxy(inject("databaseUrl"))),
      (proxy) => Effect.sync(() => proxy.close())
    )
    const schema = `proxy_${randomBytes(6).toString("hex")}`
    const context = yield* Layer.build(
      // one connection, so that each statement was prepared on it before
      PgLedger.layerUrl(Redacted.make(proxy.url), { schema, maxConnections: 1 })
    )
    const ledger = Context.get(context, Ledger.Ledger)
    const sql = Context.get(context, SqlClient.SqlClient)
    const [known, single, asked, inLarge] = yield* Effect.all([event(), event(), event(), event()])
    yield* ledger.append(known)
    const large = [inLarge, ...yield* Effect.replicateEffect(event(), 4100)]
    const nothing = { appends: 0, others: 0, unknown: 0 }
    const losing = (loss: Loss, effect: Effect.Effect<unknown, unknown>, count = 1) =>
      Effect.suspend(() => {
        const before = proxy.lost()
        proxy.loseAnswers(count, loss)
        // a COMMIT that fails is a defect in the client
        return Effect.map(Effect.exit(effect), () => {
          const { appends, others, unknown } = proxy.lost()
          return {
            appends: appends - before.appends,
            others: others - before.others,
            unknown: unknown - before.unknown
          }
        })
      })

    // a read commits nothing
    assert.deepStrictEqual(yield* losing("answered", ledger.latestOffset), nothing)
    assert.deepStrictEqual(yield* losing("answered", ledger.append(single)), { ...nothing, appends: 1 })
    assert.deepStrictEqual(yield* losing("answered", ledger.appendAll(large)), { ...nothing, appends: 1 })
    // its own repetition finds it, and the answer to that is lost as well
    assert.deepStrictEqual(
      yield* losing("answered", Effect.flatMap(event(), ledger.append), 2),
      { ...nothing, appends: 1, others: 1 }
    )
    assert.deepStrictEqual(yield* losing("answered", ledger.append(known)), { ...nothing, others: 1 })
    const refused = ledger.appendIf({ noneMatch: { runId: "run" }, after: 0 }, [asked])
    assert.deepStrictEqual(yield* losing("answered", refused), { ...nothing, others: 1 })
    const other = sql.withTransaction(sql`SELECT 1`)
    assert.deepStrictEqual(yield* losing("answered", other), { ...nothing, others: 1 })
    const failing = sql.withTransaction(Effect.either(sql`SELECT 1 / 0`))
    assert.deepStrictEqual(yield* losing("answered", failing), { ...nothing, unknown: 1 })
    assert.deepStrictEqual(yield* losing("sent", ledger.append(asked)), { ...nothing, unknown: 1 })

    const log = (yield* ledger.events).map(({ id }) => id)
    assert.strictEqual(log.length, 1 + 1 + large.length + 1 + 1)
    assert.strictEqual(new Set(log).size, log.length)
  }))

/**
 * Whatever is killed, nothing acknowledged is lost, written twice, torn or out of order. `npm run chaos` does the same for
 * longer.
 */
import { assert, describe, it } from "@effect/vitest"
import { randomInt } from "node:crypto"
import { type Report, run } from "./chaos/harness.js"
import { chaos, killServer, killWriters, loseAcknowledgements } from "./chaos/nemesis.js"
import { noMount } from "./support/faults.js"

const seed = process.env["TEST_SEED"] ?? String(randomInt(2 ** 31))

const passes = (report: Report): void => {
  const { violations, ...figures } = report
  console.log(`TEST_SEED=${seed} ${JSON.stringify(figures)}`)
  assert.deepStrictEqual(violations, [])
  assert.isAbove(report.events, 0)
}

/** All that was recorded was consumed, once and at least once, and not in one go; and it was chaos. */
const survives = (report: Report, faults: ReadonlyArray<string>): void => {
  passes(report)
  for (const fault of faults) assert.isAbove(report.faults[fault] ?? 0, 0, fault)
  assert.isAbove(report.refused, 0)
  assert.isAbove(report.invalid, 0)
  assert.strictEqual(report.handled.exactlyOnce, report.events)
  assert.isAtLeast(report.handled.atLeastOnce, report.events)
  assert.isAbove(report.takeovers.exactlyOnce, 0)
  assert.isAbove(report.takeovers.atLeastOnce, 0)
}

describe("the history is right", () => {
  it("after 100 SIGKILLs of SQLite writers", async () => {
    const report = await run({ backend: "sqlite", seed, writers: 3, subscribers: 1, pause: 10 }, killWriters(100))
    passes(report)
    assert.strictEqual(report.faults["writers killed"], 100)
  }, 180_000)

  it("after 10 SIGKILLs of the Postgres server", async () => {
    const report = await run({ backend: "postgres", seed, writers: 2, subscribers: 1 }, killServer(10))
    passes(report)
    assert.strictEqual(report.faults["servers killed"], 10)
  }, 180_000)

  it("after 200 lost acknowledgements of an append", async () => {
    const report = await run(
      { backend: "postgres", seed, writers: 2, subscribers: 1, pause: 2 },
      loseAcknowledgements(200)
    )
    passes(report)
    assert.isAtLeast(report.faults["lost acknowledgements of appends"] ?? 0, 200)
  }, 180_000)

  it("after 30 seconds of chaos on Postgres", async () => {
    const report = await run({ backend: "postgres", seed, writers: 4, subscribers: 2, consumers: 2 }, chaos(30))
    survives(report, [
      "writers killed",
      "consumers killed",
      "processes stopped",
      "backends terminated",
      "servers killed",
      "connections cut",
      "connections silent",
      "lost acknowledgements of appends",
      "lost acknowledgements, unknown"
    ])
  }, 180_000)

  it("after 20 seconds of chaos on SQLite, and no writer waits for long", async () => {
    const report = await run({ backend: "sqlite", seed, writers: 4, subscribers: 1, consumers: 2 }, chaos(20))
    survives(report, ["writers killed", "consumers killed", "processes stopped"])
    // whoever is stopped with the lock in its hands makes the others wait, for a second at most
    assert.isAtMost(report.longestWaitUnstopped, 2000)
    assert.isAtMost(report.longestWait, 5000)
  }, 180_000)

  it("after 6 seconds on a small disk that is filled now and then", async (context) => {
    const reason = noMount()
    context.skip(reason !== undefined, reason)
    const report = await run(
      { backend: "sqlite", seed, writers: 2, subscribers: 1, pause: 10, smallDisk: true },
      chaos(6)
    )
    passes(report)
    for (const fault of ["disk filled", "attempts without room"]) assert.isAbove(report.faults[fault] ?? 0, 0, fault)
  }, 180_000)
})

/** The projections of examples/: what is kept in a database, across restarts, is what a fold over the log comes to. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, type Layer, Redacted, Scope } from "effect"
import { randomBytes } from "node:crypto"
import * as Path from "node:path"
import { Client } from "pg"
import { afterAll, inject } from "vitest"
import { nextStep } from "../examples/cast.js"
import { leaderboard, scoresOf } from "../examples/projections/leaderboard.js"
import { runIndex, runsOf } from "../examples/projections/runIndex.js"
import { stage, stagesOf } from "../examples/projections/stage.js"
import { type ConsumerStore, type Event, MemoryLedger, Projection } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { event } from "./contract/fixtures.js"
import { open, recordedAt } from "./contract/handle.js"
import type { Services } from "./contract/index.js"
import { random } from "./support/following.js"
import { folder } from "./support/running.js"

const seed = process.env["TEST_SEED"] ?? String(Date.now() % 2 ** 31)
const schema = `projections_${randomBytes(4).toString("hex")}`

afterAll(async () => {
  const client = new Client(inject("databaseUrl"))
  await client.connect()
  await client.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)
  await client.end()
})

const shown = (apply: <S, I>(projection: Projection.Projection<S, I>) => S) => ({
  runs: runsOf(apply(runIndex)),
  stages: stagesOf(apply(stage)),
  scores: scoresOf(apply(leaderboard))
})

/** The oracle: a fold over an array. */
const folded = (log: ReadonlyArray<Event.RecordedEvent>) =>
  shown(({ apply, filter, initial }) => {
    const kinds = (filter as { readonly kinds: ReadonlyArray<string> }).kinds
    return log.filter(({ kind }) => kinds.includes(kind)).reduce(apply, initial)
  })

const live = Effect.gen(function*() {
  const runs = yield* Projection.openPersisted(runIndex)
  const stages = yield* Projection.openPersisted(stage)
  const scores = yield* Projection.openPersisted(leaderboard)
  return (offset: number) =>
    Effect.all({
      runs: Effect.map(runs.awaitOffset(offset), ({ state }) => runsOf(state)),
      stages: Effect.map(stages.awaitOffset(offset), ({ state }) => stagesOf(state)),
      scores: Effect.map(scores.awaitOffset(offset), ({ state }) => scoresOf(state))
    })
})

type Everything = Services | ConsumerStore.ConsumerStore

const persisted = (layer: Layer.Layer<Everything, unknown>, outlives: boolean) =>
  Effect.gen(function*() {
    console.log(`TEST_SEED=${seed}`)
    const chance = random(seed)
    const all = odd(chance, 1200)
    const half = Math.floor(chance() * all.length)
    const first = yield* Scope.make()
    const begun = yield* Scope.extend(open(layer), first)
    const reading = yield* Scope.make()
    const before = yield* Effect.provide(Scope.extend(live, reading), begun.context)
    yield* begun.ledger.appendAll(all.slice(0, half))
    expect(yield* before(half)).toStrictEqual(folded(yield* begun.ledger.events))
    yield* Scope.close(reading, Exit.void)
    if (outlives) yield* Scope.close(first, Exit.void)

    const handle = outlives ? yield* open(layer) : begun
    for (const { name } of [runIndex, stage, leaderboard]) {
      const saved = yield* Effect.provide(Projection.status(name), handle.context)
      expect(saved).toStrictEqual([{ version: 1, offset: half, lag: 0, complete: true }])
    }
    // while nobody reads, and while somebody does
    const middle = Math.floor((half + all.length) / 2)
    yield* handle.ledger.appendAll(all.slice(half, middle))
    const after = yield* Effect.provide(live, handle.context)
    yield* handle.ledger.appendAll(all.slice(middle))
    expect(yield* after(all.length)).toStrictEqual(folded(yield* handle.ledger.events))
    yield* Scope.close(first, Exit.void)
  })

describe("what is kept is what a fold comes to, across a restart", () => {
  it.scopedLive("in memory", () => persisted(MemoryLedger.layer, false))

  it.scopedLive("in SQLite", () =>
    Effect.flatMap(folder, (path) => persisted(SqliteLedger.layerFile(Path.join(path, "a.db")), true)))

  it.scopedLive("in Postgres", () =>
    persisted(PgLedger.layerUrl(Redacted.make(inject("databaseUrl")), { schema }), true))
})

it("a run of the example", () => {
  const history: Array<Event.Event> = []
  for (let next = nextStep("run-1", history); next !== undefined; next = nextStep("run-1", history)) {
    history.push(event(`${history.length}`, next))
  }
  const { runs, scores, stages } = folded(recordedAt(1, history))
  const { payload } = history.at(-1)!
  expect(runs).toMatchObject([{
    run: "run-1",
    scenario: "observatory",
    cast: ["ada", "bo", "cy"],
    reason: "every wish was heard",
    winner: payload["target"],
    turns: 4
  }])
  const spoken = (name: string) =>
    history.findLast(({ actor, kind }) => actor === name && kind === "agent.spoke")?.payload["text"]
  expect(stages).toMatchObject([{
    turn: 4,
    actors: ["ada", "bo", "cy"].map((actor) => ({ actor, said: spoken(actor) }))
  }])
  expect(scores[0]).toMatchObject({ name: payload["target"], wins: 1, runs: 1 })
  for (const name of ["ada", "bo", "cy"]) expect(scores).toContainEqual({ name, wins: 0, runs: 1, turns: 4 })
})

it("a run ends once, and counts no more then", () => {
  const finished = (winner: string) => ({ kind: "run.finished", actor: "conductor", turn: 1, payload: { winner } })
  const { runs, scores } = folded(recordedAt(1, [
    event("1", { kind: "agent.spoke", actor: "ada", turn: 1 }),
    event("2", { kind: "agent.spoke", actor: "ada", turn: 1 }),
    event("3", { kind: "turn.finished", actor: "conductor", turn: 1, payload: { leader: "ada" } }),
    event("4", finished("ada")),
    event("5", finished("bo")),
    event("6", { kind: "agent.spoke", actor: "cy", turn: 2 })
  ]))
  expect(runs).toMatchObject([{ winner: "ada", turns: 1, started: null, scenario: null }])
  expect(scores).toStrictEqual([{ name: "ada", wins: 1, runs: 1, turns: 1 }])
})

/** Events of some runs at once, many of which are not what a program would write that is right in its mind. */
const odd = (chance: () => number, count: number): ReadonlyArray<Event.Event> => {
  const one = <A>(choices: ReadonlyArray<A>): A => choices[Math.floor(chance() * choices.length)]!
  const names = ["ada", "bo", "cy", "__proto__", "constructor", "Saturn", "é"]
  const value = () => one<Event.Json>([one(names), one(names), one(names), null, 5, "", [one(names), 1], { ada: true }])
  return Array.from({ length: count }, (_, n) =>
    event(`odd-${n}`, {
      runId: one([...Array.from({ length: 30 }, (_, run) => `run-${run}`), "__proto__"]),
      turn: Math.floor(chance() * 6),
      kind: one([
        "run.started",
        "turn.started",
        "turn.finished",
        "agent.spoke",
        "agent.spoke",
        "agent.thought",
        ...(chance() < 0.1 ? ["run.finished"] : [])
      ]),
      actor: one(names),
      payload: one<Event.JsonObject>([
        {},
        {
          text: value(),
          cast: one<Event.Json>([[one(names), one(names)], value()]),
          scenario: value(),
          reason: value(),
          winner: value(),
          leader: value()
        }
      ])
    }))
}

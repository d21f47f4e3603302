/** W6 and the memory of W4: ledgers of different sizes, asked the same. */
import { DateTime, Effect, type Layer, ManagedRuntime, Stream } from "effect"
import { Ledger, type Query } from "../src/index.js"
import type { Task } from "./child.js"
import { clock, type Spread, spread } from "./figures.js"
import { run } from "./process.js"
import { createdAt } from "./scale.js"

/** What a question costs, in milliseconds, by the number of events in the ledger. */
export interface Question {
  readonly backend: string
  readonly question: string
  readonly sizes: Readonly<Record<number, Spread>>
}

/** The greatest resident set of a process that reads a whole ledger, in MiB. */
export interface Memory {
  readonly backend: string
  readonly events: number
  readonly ours: Spread
  readonly driver: Spread
}

/** A ledger that is filled. */
export interface Large {
  readonly events: number
  readonly layer: Layer.Layer<Ledger.Ledger, unknown>
  readonly at: Pick<Task, "url" | "schema">
}

/** In a process of its own, from opening to the first `latestOffset`. */
export const opening = async (
  backend: string,
  ledgers: ReadonlyArray<Large>,
  rounds: number
): Promise<ReadonlyArray<Question>> => {
  const sides = ["ours", "driver"] as const
  const taken = table(sides.map((side) => `open, latestOffset: ${side}`), ledgers)
  for (let round = 0; round < rounds; round++) {
    for (const { at, events } of ledgers) {
      for (const side of sides) {
        taken[`open, latestOffset: ${side}`]![events]!.push(await run({ task: "open", side, ...at }))
      }
    }
  }
  return questions(backend, taken)
}

/** Each by a ledger that was just opened. */
export const asking = async (
  backend: string,
  ledgers: ReadonlyArray<Large>,
  asked: Readonly<Record<string, Asked>>,
  rounds: number
): Promise<ReadonlyArray<Question>> => {
  const taken = table(Object.keys(asked), ledgers)
  for (let round = -1; round < rounds; round++) {
    for (const { events, layer } of round % 2 === 0 ? ledgers : ledgers.toReversed()) {
      const runtime = ManagedRuntime.make(layer)
      await runtime.runPromise(Ledger.latestOffset)
      for (const [question, { count, of }] of Object.entries(asked)) {
        const time = await clock(async () => {
          const found = await runtime.runPromise(of(events))
          if (found !== count) throw new Error(`${backend}, ${question}: expected ${count}, found ${found}`)
        })
        // the first round is for the program to get warm
        if (round >= 0) taken[question]![events]!.push(time)
      }
      await runtime.dispose()
    }
  }
  return questions(backend, taken)
}

interface Asked {
  readonly count: number
  /** How many there are, of a ledger that was filled with so many events. */
  readonly of: (events: number) => Effect.Effect<number, unknown, Ledger.Ledger>
}

/** For ledgers to which so many runs of one event were appended. */
export const manyRuns = (more: number): Readonly<Record<string, Asked>> => ({
  [`runs, ${(1000 + more).toLocaleString("en")}`]: {
    count: 1000 + more,
    of: () => Effect.map(Ledger.runs, ({ length }) => length)
  }
})

/** Every way to read, each with an answer of the same size whatever the ledger's. */
export const reads = (): Readonly<Record<string, Asked>> => {
  const read = (of: (events: number) => Query.Query, count = 100): Asked => ({
    count,
    of: (events) => Stream.runCount(Ledger.read({ limit: 100, ...of(events) }))
  })
  const by = (filter: Query.Filters, count?: number) => read(() => ({ filter }), count)
  const lately = (events: number) => ({ createdFrom: DateTime.unsafeMake(createdAt(events - 99)) })
  return {
    "latestOffset": { count: 1, of: () => Effect.as(Ledger.latestOffset, 1) },
    "eventsForRun, 100": { count: 100, of: () => Effect.map(Ledger.eventsForRun("run-7"), ({ length }) => length) },
    "runs, 1,000": { count: 1000, of: () => Effect.map(Ledger.runs, ({ length }) => length) },
    "read a run": by({ runId: "run-7" }),
    "read a frequent kind": by({ kinds: ["agent.spoke"] }),
    "read a rare kind": by({ kinds: ["run.finished"] }),
    "read two kinds": by({ kinds: ["agent.spoke", "run.finished"] }),
    "read an actor": by({ actors: ["actor-3"] }),
    "read a session": by({ sessionIds: ["session-7"] }),
    "read a model": by({ modelIds: ["model-1"] }),
    "read an actor's frequent kind": by({ actors: ["actor-3"], kinds: ["model.replied"] }),
    "read a run or a session": by([{ runId: "run-7" }, { sessionIds: ["session-8"] }]),
    "read the last 100 by time, forwards": read((events) => ({ filter: lately(events) })),
    "read the last 100 by time, backwards": read((events) => ({ filter: lately(events), direction: "backward" })),
    "read the last 100, backwards": read(() => ({ direction: "backward" })),
    "tail the last 100": { count: 100, of: (events) => Stream.runCount(Ledger.tail(events - 100)) }
  }
}

export const reading = async (
  backend: string,
  ledgers: ReadonlyArray<Large>,
  rounds: number
): Promise<ReadonlyArray<Memory>> => {
  const memories: Array<Memory> = []
  for (const { at, events } of ledgers) {
    const ours: Array<number> = []
    const driver: Array<number> = []
    for (let round = 0; round < rounds; round++) {
      ours.push(await run({ task: "readAll", side: "ours", ...at }))
      driver.push(await run({ task: "readAll", side: "driver", ...at }))
    }
    memories.push({ backend, events, ours: spread(ours), driver: spread(driver) })
  }
  return memories
}

const table = (
  names: ReadonlyArray<string>,
  ledgers: ReadonlyArray<Large>
): Record<string, Record<number, Array<number>>> =>
  Object.fromEntries(names.map((name) => [name, Object.fromEntries(ledgers.map(({ events }) => [events, []]))]))

const questions = (backend: string, taken: ReturnType<typeof table>): ReadonlyArray<Question> =>
  Object.entries(taken).map(([question, sizes]) => ({
    backend,
    question,
    sizes: Object.fromEntries(Object.entries(sizes).map(([events, times]) => [events, spread(times)]))
  }))

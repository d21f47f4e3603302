/** W1 to W5 and W7: events a second, by every side in turn. */
import { chunks, make } from "./events.js"
import { clock, type Spread, spread } from "./figures.js"
import type { Backend, Open } from "./side.js"

/** What a workload gave, in events a second. */
export interface Rate {
  readonly backend: string
  readonly workload: string
  /** By the name of the side. */
  readonly sides: Readonly<Record<string, Spread>>
  /** Why a side has no rate. */
  readonly without: Readonly<Record<string, string>>
  /** Ours to the driver's, each round's pair. */
  readonly ratio?: Spread | undefined
}

/** How much of each; 1 is the size that the names say. */
export const workloads = (scale: number): Readonly<Record<string, Workload>> => {
  const sized = (count: number, unit = 1) => Math.max(1, Math.round(count * scale / unit)) * unit
  const singles = sized(5000)
  const together = (fibers: number): Workload => async ({ together }) => {
    if (typeof together === "string") return together
    const events = make(sized(20_000))
    return { units: events.length, run: () => together(events, fibers) }
  }
  return {
    "W1 single appends": async (open) => {
      const events = make(singles)
      return { units: singles, run: () => open.single(events) }
    },
    "W2 64 fibers": together(64),
    "W2 256 fibers": together(256),
    "W3 batches of 1,000": async ({ batch }) => {
      if (typeof batch === "string") return batch
      const events = make(sized(100_000, 1000))
      return { units: events.length, run: () => inBatches(batch, events) }
    },
    "W4 read all": async (open) => {
      const { readAll } = open
      if (typeof readAll === "string") return readAll
      const { length } = await fill(open, sized(100_000, 1000), 1000)
      return { units: length, run: () => expected(length, readAll()) }
    },
    "W4 read all 5 times again": async (open) => {
      const { readAll } = open
      if (typeof readAll === "string") return readAll
      const { length } = await fill(open, sized(100_000, 1000), 1000)
      await readAll()
      return {
        units: length * 5,
        run: async () => {
          for (let n = 0; n < 5; n++) await expected(length, readAll())
        }
      }
    },
    "W5 read a run of 100": async (open) => {
      const { readRun } = open
      if (typeof readRun === "string") return readRun
      const runs = sized(1000)
      await fill(open, runs * 100, runs)
      return {
        units: runs * 100,
        run: async () => {
          for (let n = 0; n < runs; n++) await expected(100, readRun(`run-${n}`))
        }
      }
    },
    "W7 known ids, batches": async (open) => {
      const { again } = open
      if (typeof again === "string") return again
      const events = await fill(open, sized(20_000, 1000), 100)
      return { units: events.length, run: () => inBatches(again.batch, events) }
    },
    "W7 known ids, single": async (open) => {
      const { again } = open
      if (typeof again === "string") return again
      const events = (await fill(open, sized(20_000, 1000), 100)).slice(0, singles)
      return { units: events.length, run: () => again.single(events) }
    }
  }
}

/**
 * One workload on one backend: in every round each side has a store of its own, and another one begins. The first rounds
 * are not counted, as code that has just been loaded is slow.
 */
export const measure = async (
  { name, sides }: Backend,
  workload: string,
  prepare: Workload,
  rounds: number
): Promise<Rate> => {
  const rates = new Map<string, Array<number>>()
  const without: Record<string, string> = {}
  for (let round = -uncounted; round < rounds; round++) {
    for (const [turn] of sides.entries()) {
      const side = sides[(turn + round + uncounted) % sides.length]!
      if (without[side.name] !== undefined) continue
      const open = await side.fresh()
      try {
        const prepared = await prepare(open)
        if (typeof prepared === "string") without[side.name] = prepared
        else {
          const rate = prepared.units / await clock(prepared.run) * 1000
          if (round >= 0) rates.set(side.name, [...rates.get(side.name) ?? [], rate])
        }
      } catch (error) {
        if (side.isPeer !== true) throw error
        rates.delete(side.name)
        without[side.name] = `failed: ${reasonOf(error)}`
      } finally {
        await open.close()
      }
    }
  }
  const bare = rates.get("driver")
  return {
    backend: name,
    workload,
    sides: Object.fromEntries(
      sides.flatMap(({ name }) => rates.has(name) ? [[name, spread(rates.get(name)!)] as const] : [])
    ),
    without,
    ratio: bare && spread(rates.get("ours")!.map((rate, round) => rate / bare[round]!))
  }
}

const uncounted = 2

/** Makes a store ready, or says why its side cannot do it. */
type Workload = (open: Open) => Promise<{ readonly units: number; readonly run: () => unknown } | string>

/** What lies at the bottom of an error, in one line. */
const reasonOf = (error: unknown): string => {
  const line = String(error instanceof Error ? error.message : error).split("\n")[0] ?? ""
  return /\(cause: (.*?)\)/.exec(line)?.[1] ?? line
}

const inBatches = async (batch: Open["single"], events: ReturnType<typeof make>) => {
  for (const chunk of chunks(events, 1000)) await batch(chunk)
}

const fill = async (open: Open, count: number, runs: number) => {
  const events = make(count, runs)
  if (open.fill !== undefined) await open.fill(events)
  else await inBatches(typeof open.batch === "string" ? open.single : open.batch, events)
  return events
}

const expected = async (count: number, found: unknown): Promise<void> => {
  if (await found !== count) throw new Error(`expected ${count} events, found ${await found}`)
}

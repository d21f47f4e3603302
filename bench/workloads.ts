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
  /** Ours to the driver's, each round's pair. */
  readonly ratio?: Spread | undefined
}

/** How much of each; 1 is the size that the names say. */
export const workloads = (scale: number): Readonly<Record<string, Workload>> => {
  const sized = (count: number, unit = 1) => Math.max(1, Math.round(count * scale / unit)) * unit
  const singles = sized(5000)
  const together = (fibers: number): Workload => async (open) => {
    if (open.together === undefined) return undefined
    const events = make(sized(20_000))
    return { units: events.length, run: () => open.together?.(events, fibers) }
  }
  return {
    "W1 single appends": async (open) => {
      const events = make(singles)
      return { units: singles, run: () => open.single(events) }
    },
    "W2 64 fibers": together(64),
    "W2 256 fibers": together(256),
    "W3 batches of 1,000": async ({ batch }) => {
      if (batch === undefined) return undefined
      const events = make(sized(100_000, 1000))
      return { units: events.length, run: () => inBatches(batch, events) }
    },
    "W4 read all": async (open) => {
      if (open.readAll === undefined) return undefined
      const { length } = await fill(open, sized(100_000, 1000), 1000)
      return { units: length, run: () => expected(length, open.readAll?.()) }
    },
    "W5 read a run of 100": async (open) => {
      if (open.readRun === undefined) return undefined
      const runs = sized(1000)
      await fill(open, runs * 100, runs)
      return {
        units: runs * 100,
        run: async () => {
          for (let n = 0; n < runs; n++) await expected(100, open.readRun?.(`run-${n}`))
        }
      }
    },
    "W7 known ids, batches": async (open) => {
      const { again } = open
      if (again === undefined) return undefined
      const events = await fill(open, sized(20_000, 1000), 100)
      return { units: events.length, run: () => inBatches(again.batch, events) }
    },
    "W7 known ids, single": async (open) => {
      const { again } = open
      if (again === undefined) return undefined
      const events = (await fill(open, sized(20_000, 1000), 100)).slice(0, singles)
      return { units: events.length, run: () => again.single(events) }
    }
  }
}

/** One workload on one backend: in every round each side has a store of its own, and another one begins. */
export const measure = async (
  { name, sides }: Backend,
  workload: string,
  prepare: Workload,
  rounds: number
): Promise<Rate> => {
  const rates = new Map<string, Array<number>>()
  for (let round = 0; round < rounds; round++) {
    for (const [turn] of sides.entries()) {
      const side = sides[(turn + round) % sides.length]!
      const open = await side.fresh()
      const prepared = await prepare(open)
      if (prepared !== undefined) {
        const rate = prepared.units / await clock(prepared.run) * 1000
        rates.set(side.name, [...rates.get(side.name) ?? [], rate])
      }
      await open.close()
    }
  }
  const bare = rates.get("driver")
  return {
    backend: name,
    workload,
    sides: Object.fromEntries(
      sides.flatMap(({ name }) => rates.has(name) ? [[name, spread(rates.get(name)!)] as const] : [])
    ),
    ratio: bare && spread(rates.get("ours")!.map((rate, round) => rate / bare[round]!))
  }
}

/** Makes a store ready; `undefined` where its side cannot do it. */
type Workload = (open: Open) => Promise<{ readonly units: number; readonly run: () => unknown } | undefined>

const inBatches = async (batch: Open["single"], events: ReturnType<typeof make>) => {
  for (const chunk of chunks(events, 1000)) await batch(chunk)
}

const fill = async (open: Open, count: number, runs: number) => {
  const events = make(count, runs)
  await inBatches(open.batch ?? open.single, events)
  return events
}

const expected = async (count: number, found: unknown): Promise<void> => {
  if (await found !== count) throw new Error(`expected ${count} events, found ${await found}`)
}

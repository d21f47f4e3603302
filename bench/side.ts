/** Whoever keeps events: this library, the driver by hand, or a peer. */
import type { Event } from "../src/index.js"

/** A store that is open. What a side cannot do is left out. */
export interface Open {
  /** One by one, each in a transaction of its own. */
  readonly single: (events: ReadonlyArray<Event.Event>) => unknown
  /** One by one, so many at a time. */
  readonly together?: ((events: ReadonlyArray<Event.Event>, fibers: number) => unknown) | undefined
  /** In one transaction. */
  readonly batch?: ((events: ReadonlyArray<Event.Event>) => unknown) | undefined
  /** What is recorded already: one by one, or in one transaction. */
  readonly again?: { readonly single: Open["single"]; readonly batch: Open["single"] } | undefined
  /** How many there are, all of them decoded. */
  readonly readAll?: (() => number | Promise<number>) | undefined
  /** How many there are in a run, decoded. */
  readonly readRun?: ((runId: string) => number | Promise<number>) | undefined
  readonly latestOffset?: (() => number | Promise<number>) | undefined
  readonly close: () => Promise<void>
}

/** A store that can do it all. */
export type Whole = { readonly [key in keyof Open]-?: NonNullable<Open[key]> }

export interface Side {
  readonly name: string
  /** An empty store. */
  readonly fresh: () => Promise<Open>
}

/** One database as it is set up, and who is measured on it. */
export interface Backend {
  readonly name: string
  readonly sides: ReadonlyArray<Side>
}

/** Calls for each of the values, so many at a time. */
export const each = async <A>(
  values: ReadonlyArray<A>,
  atOnce: number,
  call: (value: A) => Promise<unknown>
): Promise<void> => {
  let next = 0
  const worker = async () => {
    while (next < values.length) await call(values[next++]!)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

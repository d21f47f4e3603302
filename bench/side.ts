/** Whoever keeps events: this library, the driver by hand, or a peer. */
import type { Event } from "../src/index.js"

/** A store that is open. What a side cannot do is the reason. */
export interface Open {
  /** One by one, each in a transaction of its own. */
  readonly single: (events: ReadonlyArray<Event.Event>) => unknown
  /** One by one, so many at a time. */
  readonly together: ((events: ReadonlyArray<Event.Event>, fibers: number) => unknown) | string
  /** In one transaction. */
  readonly batch: ((events: ReadonlyArray<Event.Event>) => unknown) | string
  /** What is recorded already: one by one, or in one transaction. */
  readonly again: { readonly single: Open["single"]; readonly batch: Open["single"] } | string
  /** How many there are, all of them decoded. */
  readonly readAll: (() => number | Promise<number>) | string
  /** How many there are in a run, decoded. */
  readonly readRun: ((runId: string) => number | Promise<number>) | string
  readonly latestOffset: (() => number | Promise<number>) | string
  /** Many at once, to be read; by `batch` unless told. */
  readonly fill?: Open["single"] | undefined
  readonly close: () => Promise<void>
}

/** A store that can do it all. */
export type Whole = { readonly [key in keyof Omit<Open, "fill">]: Exclude<Open[key], string> }

export interface Side {
  readonly name: string
  /** Who is measured though it may fail. */
  readonly isPeer?: boolean | undefined
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

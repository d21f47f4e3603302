/** This library, as a side. */
import { Effect, type Layer, ManagedRuntime, Stream } from "effect"
import type { Event } from "../src/index.js"
import { Ledger } from "../src/index.js"
import { chunks } from "./events.js"
import type { Whole } from "./side.js"

export const ours = (layer: Layer.Layer<Ledger.Ledger, unknown>): Whole => {
  const runtime: ManagedRuntime.ManagedRuntime<Ledger.Ledger, unknown> = ManagedRuntime.make(layer)
  // so many fibers, one after the other in each: a fiber for each event would be measured as well
  const together = (events: ReadonlyArray<Event.Event>, fibers: number) =>
    runtime.runPromise(
      Effect.flatMap(Ledger.Ledger, (ledger) =>
        Effect.forEach(
          chunks(events, Math.ceil(events.length / fibers)),
          (lane) => Effect.forEach(lane, ledger.append, { discard: true }),
          { discard: true, concurrency: "unbounded" }
        ))
    )
  const single = (events: ReadonlyArray<Event.Event>) => together(events, 1)
  const batch = (events: ReadonlyArray<Event.Event>) => runtime.runPromise(Ledger.appendAll(events))
  return {
    single,
    together,
    batch,
    again: { single, batch },
    readAll: () => runtime.runPromise(Stream.runFold(Ledger.tail(0), 0, (count) => count + 1)),
    readRun: async (runId) => (await runtime.runPromise(Ledger.eventsForRun(runId))).length,
    latestOffset: () => runtime.runPromise(Ledger.latestOffset),
    close: () => runtime.dispose()
  }
}

/**
 * The ledger in memory: for tests, and for programs that need no history after they end. It obeys the same laws as the
 * databases and gives the same answers; an acknowledged append lasts as long as the Layer's scope.
 *
 * @since 0.1.0
 */
import * as Layer from "effect/Layer"
import type { ConsumerStore } from "./ConsumerStore.js"
import type { Event } from "./Event.js"
import * as memoryStore from "./internal/memoryStore.js"
import { appendAll, type Ledger, type LedgerAdmin } from "./Ledger.js"
import type { AppendError } from "./LedgerError.js"
import type { LedgerStore } from "./LedgerStore.js"
import * as StoreLedger from "./StoreLedger.js"

const stores: Layer.Layer<LedgerStore | ConsumerStore> = Layer.syncContext(memoryStore.make)

/**
 * An empty ledger in memory.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Ledger | LedgerAdmin | LedgerStore | ConsumerStore> = StoreLedger.layerWith({
  cacheBytes: Infinity
}).pipe(
  Layer.provideMerge(stores)
)

/**
 * A ledger in memory with options, and with events that it holds from the start.
 *
 * @example
 * ```ts
 * import { Event, Ledger, MemoryLedger } from "effect-ledger"
 * import { Effect } from "effect"
 *
 * const test = Effect.gen(function*() {
 *   const event = yield* Event.create({ runId: "run-1", turn: 0, kind: "run.started", actor: "conductor", payload: {} })
 *   return yield* Ledger.runs.pipe(Effect.provide(MemoryLedger.layerWith({ events: [event] })))
 * })
 *
 * Effect.runPromise(test).then(console.log) // [ "run-1" ]
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerWith = (
  options: StoreLedger.Options & { readonly events?: Iterable<Event> | undefined }
): Layer.Layer<Ledger | LedgerAdmin | LedgerStore | ConsumerStore, AppendError> =>
  Layer.effectDiscard(appendAll(options.events ?? [])).pipe(
    Layer.provideMerge(StoreLedger.layerWith({ cacheBytes: Infinity, ...options })),
    Layer.provideMerge(stores)
  )

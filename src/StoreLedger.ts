/**
 * The ledger over any store: give it a `LedgerStore` of your own.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as internal from "./internal/ledger.js"
import { Ledger, LedgerAdmin } from "./Ledger.js"
import { LedgerStore } from "./LedgerStore.js"

/**
 * What every ledger can be told.
 *
 * - `maxPayloadBytes`: the largest canonical JSON of a payload, 1 MiB unless told
 * - `commitTimeout`: how long a write may take before its callers fail with `StoreUnavailable`, 1 minute unless told; on
 *   Postgres also how long the server may take to answer any statement (and a second more than `lockTimeout`, at least)
 * - `cacheBytes`: about how much memory the last events of the log may take that are kept at hand for the next who reads
 *   them, 8 MiB unless told; 0 for none. Each such read asks the store whether they are still right
 * - `pollInterval`: how long a subscriber may take to notice what no notification told of, 1 second unless told
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  readonly maxPayloadBytes?: number | undefined
  readonly commitTimeout?: Duration.DurationInput | undefined
  readonly pollInterval?: Duration.DurationInput | undefined
  readonly cacheBytes?: number | undefined
}

/**
 * `Ledger` and `LedgerAdmin` over the `LedgerStore` in the context, with options.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerWith = (options?: Options): Layer.Layer<Ledger | LedgerAdmin, never, LedgerStore> =>
  Layer.scopedContext(
    Effect.map(
      Effect.flatMap(LedgerStore, (store) => internal.make(store, options)),
      ({ admin, ledger }) => Context.make(Ledger, ledger).pipe(Context.add(LedgerAdmin, admin))
    )
  )

/**
 * `Ledger` and `LedgerAdmin` over the `LedgerStore` in the context.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Ledger | LedgerAdmin, never, LedgerStore> = layerWith()

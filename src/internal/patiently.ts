/** Waiting for a store that is away. */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import type { StoreUnavailable } from "../LedgerError.js"
import * as LedgerMetrics from "../LedgerMetrics.js"

/** Waits while the store is away, and says so once. */
export const patiently = <A, E extends { readonly _tag: string }>(
  effect: Effect.Effect<A, E>
): Effect.Effect<A, Exclude<E, StoreUnavailable>> =>
  Effect.suspend(() => {
    let away = false
    return effect.pipe(
      Effect.tapError((error) => {
        if (error._tag !== "StoreUnavailable" || away) return Effect.void
        away = true
        return Effect.zipRight(
          Metric.increment(LedgerMetrics.outages),
          Effect.logWarning(
            "the store is away; whoever follows it waits",
            (error as { readonly reason?: string }).reason
          )
        )
      }),
      Effect.retry({
        while: (error) => error._tag === "StoreUnavailable",
        schedule: Schedule.exponential("50 millis").pipe(Schedule.union(Schedule.spaced("1 second")), Schedule.jittered)
      }),
      Effect.tap(() => away ? Effect.logInfo("the store is back; whoever follows it goes on") : Effect.void)
    )
  }) as Effect.Effect<A, Exclude<E, StoreUnavailable>>

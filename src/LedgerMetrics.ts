/**
 * What a ledger counts. Read them with Effect's `Metric`, or export them with OpenTelemetry.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * Events that were appended.
 *
 * @since 0.1.0
 * @category metrics
 */
export const appended: Metric.Metric.Counter<number> = Metric.counter("effect_ledger_appended", {
  description: "events that were appended",
  incremental: true
})

/**
 * Appends of an id that was already recorded.
 *
 * @since 0.1.0
 * @category metrics
 */
export const duplicates: Metric.Metric.Counter<number> = Metric.counter("effect_ledger_duplicates", {
  description: "appends of an id that was already recorded",
  incremental: true
})

/**
 * Those duplicates whose content differed from what is recorded.
 *
 * @since 0.1.0
 * @category metrics
 */
export const divergent: Metric.Metric.Counter<number> = Metric.counter("effect_ledger_divergent_duplicates", {
  description: "duplicates whose content differed from what is recorded",
  incremental: true
})

/**
 * Transactions that wrote for one or more callers.
 *
 * @since 0.1.0
 * @category metrics
 */
export const commits: Metric.Metric.Counter<number> = Metric.counter("effect_ledger_commits", {
  description: "transactions that wrote for one or more callers",
  incremental: true
})

/**
 * Calls that a store repeated after a transient failure.
 *
 * @since 0.1.0
 * @category metrics
 */
export const retries: Metric.Metric.Counter<number> = Metric.counter("effect_ledger_retries", {
  description: "calls that a store repeated after a transient failure",
  incremental: true
})

/**
 * Times that a subscription lost its store and waited for it.
 *
 * @since 0.1.0
 * @category metrics
 */
export const outages: Metric.Metric.Counter<number> = Metric.counter("effect_ledger_outages", {
  description: "times that a subscription lost its store and waited for it",
  incremental: true
})

/**
 * Events that a consumer gave up on and recorded as dead letters.
 *
 * @since 0.1.0
 * @category metrics
 */
export const deadLetters: Metric.Metric.Counter<number> = Metric.counter("effect_ledger_dead_letters", {
  description: "events that a consumer gave up on and recorded as dead letters",
  incremental: true
})

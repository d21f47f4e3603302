/**
 * What to read, as data.
 *
 * @since 0.1.0
 */
import type * as DateTime from "effect/DateTime"

/**
 * Which events: every field that is given must match, and of an array any one member. `createdFrom` is inclusive,
 * `createdUntil` exclusive. An empty filter matches every event; an empty array is refused, as nobody can tell whether
 * it meant all or none.
 *
 * @since 0.1.0
 * @category models
 */
export interface Filter {
  readonly runId?: string | undefined
  readonly kinds?: ReadonlyArray<string> | undefined
  readonly actors?: ReadonlyArray<string> | undefined
  readonly sessionIds?: ReadonlyArray<string> | undefined
  readonly modelIds?: ReadonlyArray<string> | undefined
  readonly createdFrom?: DateTime.DateTime | undefined
  readonly createdUntil?: DateTime.DateTime | undefined
}

/**
 * One filter, or several of which any one may match.
 *
 * @since 0.1.0
 * @category models
 */
export type Filters = Filter | ReadonlyArray<Filter>

/**
 * A cursor: the offset after which to read. With the incarnation it came from, a ledger that was reset or restored
 * meanwhile is noticed (`LedgerReplaced`) even when it has grown again.
 *
 * @since 0.1.0
 * @category models
 */
export type After = number | { readonly after: number; readonly incarnation?: string | undefined }

/**
 * A finite read: the events after `after` up to and including `through` (at most the head when the read starts) that
 * match `filter`, in offset order or in its exact reverse, at most `limit` of them.
 *
 * @since 0.1.0
 * @category models
 */
export interface Query {
  readonly filter?: Filters | undefined
  readonly after?: After | undefined
  readonly through?: number | undefined
  readonly direction?: "forward" | "backward" | undefined
  readonly limit?: number | undefined
}

/**
 * "No such event after the offset that I decided on": optimistic concurrency for one run, or for any decision.
 *
 * @example
 * ```ts
 * import type { Query } from "effect-ledger"
 *
 * // nothing was recorded in the run since offset 12, which is what I read before I decided
 * export const unchanged: Query.AppendCondition = { noneMatch: { runId: "run-1" }, after: 12 }
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export interface AppendCondition {
  readonly noneMatch: Filters
  readonly after: number
}

/**
 * Whether a ledger still holds what was written, and is still guarded.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as internal from "./internal/verify.js"
import type { LedgerReplaced, StoreError } from "./LedgerError.js"
import { LedgerStore, type Problem } from "./LedgerStore.js"

/**
 * What was found. `head` is the last offset when it began, `checked` the events that were read, `digest` the SHA-256 of
 * the digests of all of them (32 bytes each, one after the other in the order of the offsets; recomputed ones), as 64
 * hexadecimal digits, and `bytes` the size of their canonical JSON. `problems` lists the first 1,000 in the order found,
 * with the offset where there is one; `count` is how many there are: a sound ledger has 0.
 *
 * @since 0.1.0
 * @category models
 */
export interface Report {
  readonly head: number
  readonly checked: number
  readonly bytes: number
  readonly digest: string
  readonly count: number
  readonly problems: ReadonlyArray<Problem>
}

/**
 * `onProgress`: done after each page, with the offsets that were looked at and the head.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  readonly onProgress?:
    | ((progress: { readonly checked: number; readonly total: number }) => Effect.Effect<void>)
    | undefined
}

/**
 * Reads the whole ledger up to its head: every event can be one, has the digest that was stored with it, and stands at
 * the next offset, from 1. Then asks the store for the rest: the triggers, functions, constraints and indices that
 * guard it are in place, and checkpoints of consumers stand at events that are there. On SQLite the file's own structure
 * is checked too.
 *
 * Damage is never a failure but a problem in the report, with its offset where there is one, and the rest is read all
 * the same. Constant memory; about 15 µs an event. Writers go on meanwhile.
 *
 * Fails with `LedgerReplaced` when the ledger is reset meanwhile.
 *
 * @example
 * ```ts
 * import { LedgerConfig, Verify } from "effect-ledger"
 * import { Console, Effect } from "effect"
 *
 * export const main = Verify.run().pipe(
 *   Effect.tap(({ problems }) => Effect.forEach(problems, ({ offset, what }) => Console.error(offset, what))),
 *   Effect.provide(LedgerConfig.layer)
 * )
 * ```
 *
 * @since 0.1.0
 * @category verify
 */
export const run: (
  options?: Options
) => Effect.Effect<Report, LedgerReplaced | StoreError, LedgerStore> = Effect.fn("Verify.run")(
  function*(options: Options = {}) {
    return yield* internal.run(yield* LedgerStore, options)
  }
)

/**
 * A projection is a fold over the log with a name and a version: what the events amount to, kept up to date. In memory it
 * lives as long as its scope; persisted, it opens where it was last saved.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { ConsumerStore } from "./ConsumerStore.js"
import type { RecordedEvent } from "./Event.js"
import * as internal from "./internal/projection.js"
import { Ledger } from "./Ledger.js"
import type { ProjectionError, StoreError } from "./LedgerError.js"
import { LedgerStore } from "./LedgerStore.js"
import type { Filters } from "./Query.js"

/**
 * - `name`: 1 to 255 characters
 * - `version`: a whole number from 1, to be raised whenever `initial`, `apply`, `filter` or `schema` change what the state
 *   of the same events is
 * - `filter`: which events it folds (all, unless told)
 * - `initial`: the state before the first event
 * - `apply`: the state after an event; pure, and quick
 * - `schema`: how the state is saved, as JSON
 *
 * @since 0.1.0
 * @category models
 */
export interface Projection<S, I = unknown> {
  readonly name: string
  readonly version: number
  readonly filter?: Filters | undefined
  readonly initial: S
  readonly apply: (state: S, event: RecordedEvent) => S
  readonly schema: Schema.Schema<S, I>
}

/**
 * The state after every event up to `offset`, and how many events it is known to be behind (0: it was the whole log when
 * it was last looked at).
 *
 * @since 0.1.0
 * @category models
 */
export interface Standing<S> {
  readonly state: S
  readonly offset: number
  readonly lag: number
}

/**
 * A projection that is kept up to date. When it cannot go on every member fails with the reason.
 *
 * @since 0.1.0
 * @category models
 */
export interface Live<S> {
  /** As it is now, without waiting. */
  readonly current: Effect.Effect<Standing<S>, ProjectionError>
  /** As it is now, then each time it has changed; a slow reader is given the latest. */
  readonly changes: Stream.Stream<Standing<S>, ProjectionError>
  /** As soon as it has come to the offset: with that of a receipt it includes what was just appended. */
  readonly awaitOffset: (offset: number) => Effect.Effect<Standing<S>, ProjectionError>
}

/**
 * Defines a projection.
 *
 * @example
 * ```ts
 * import { Ledger, MemoryLedger, Projection } from "effect-ledger"
 * import { Effect, Schema } from "effect"
 *
 * const turns = Projection.make({
 *   name: "turns",
 *   version: 1,
 *   filter: { kinds: ["turn.finished"] },
 *   initial: 0,
 *   apply: (count) => count + 1,
 *   schema: Schema.Number
 * })
 *
 * const program = Effect.gen(function*() {
 *   const live = yield* Projection.open(turns)
 *   const { state } = yield* live.awaitOffset(yield* Ledger.latestOffset)
 *   return state
 * })
 *
 * Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(MemoryLedger.layer))).then(console.log) // 0
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <S, I>(projection: Projection<S, I>): Projection<S, I> => projection

/**
 * Folds the log in memory, from its beginning, until the scope ends. Costs a read of the whole log, and the state.
 *
 * @since 0.1.0
 * @category running
 */
export const open = <S, I>(
  projection: Projection<S, I>
): Effect.Effect<Live<S>, ProjectionError, Ledger | Scope.Scope> =>
  Effect.flatMap(Ledger, (ledger) => internal.open(ledger, projection))

/**
 * Goes on from where this version was last saved, in the ledger's database, and saves as it goes: every `saveInterval` (1
 * second, unless told) in which something changed, and when the scope ends. A version that was never saved is folded from
 * the beginning, beside an older one, which is removed when the new one has caught up.
 *
 * Fails with `LedgerReplaced` when the saved state is that of another log: then {@link discard} it.
 *
 * @since 0.1.0
 * @category running
 */
export const openPersisted = <S, I>(
  projection: Projection<S, I>,
  options: { readonly saveInterval?: Duration.DurationInput | undefined } = {}
): Effect.Effect<Live<S>, ProjectionError, Ledger | LedgerStore | ConsumerStore | Scope.Scope> =>
  Effect.flatMap(
    Effect.all({ ledger: Ledger, store: LedgerStore, consumers: ConsumerStore }),
    (services) => internal.openPersisted(services, projection, options.saveInterval ?? "1 second")
  )

/**
 * The saved versions of a projection: how far each came, how many events the log is ahead of it, and whether it has ever
 * caught up.
 *
 * @since 0.1.0
 * @category operating
 */
export const status = (
  name: string
): Effect.Effect<
  ReadonlyArray<
    { readonly version: number; readonly offset: number; readonly lag: number; readonly complete: boolean }
  >,
  StoreError,
  LedgerStore | ConsumerStore
> =>
  Effect.gen(function*() {
    const store = yield* LedgerStore
    const versions = yield* (yield* ConsumerStore).versions(name)
    const head = yield* store.head
    return versions.map(({ complete, position: { offset }, version }) => ({
      version,
      offset,
      lag: Math.max(0, head.offset - offset),
      complete
    }))
  })

/**
 * Removes what is saved of a projection, in every version: it is folded anew when it is next opened.
 *
 * @since 0.1.0
 * @category operating
 */
export const discard = (name: string): Effect.Effect<void, StoreError, ConsumerStore> =>
  Effect.flatMap(ConsumerStore, (consumers) => consumers.discard(name))

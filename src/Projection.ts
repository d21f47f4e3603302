/**
 * A projection is a fold over the log with a name and a version: what the events amount to, kept up to date. In memory it
 * lives as long as its scope; persisted, it opens where it was last saved.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { ConsumerStore } from "./ConsumerStore.js"
import type { RecordedEvent } from "./Event.js"
import * as Fields from "./internal/fields.js"
import { patiently } from "./internal/patiently.js"
import { positionAt, verify } from "./internal/position.js"
import { Ledger } from "./Ledger.js"
import { InvalidQuery, type ProjectionError, ProjectionFailed, type StoreError } from "./LedgerError.js"
import { LedgerStore } from "./LedgerStore.js"
import type { After, Filters } from "./Query.js"

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
 * it was last looked at). While it is built, that says how many are to come.
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
  Effect.zipRight(check(projection), start(projection, projection.initial, 0))

/**
 * Goes on from where this version was last saved, in the ledger's database, and saves as it goes: every `saveInterval` (1
 * second, unless told) in which something changed, and when the scope ends. A version that was never saved is folded from
 * the beginning, beside an older one, which is removed when the new one has caught up. Until then the old one can be
 * opened as well, and `current` of the new one is what has been folded so far, with a `lag`.
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
  persist(projection, options.saveInterval ?? "1 second")

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

const persist = <S, I>(
  projection: Projection<S, I>,
  saveInterval: Duration.DurationInput
): Effect.Effect<Live<S>, ProjectionError, Ledger | LedgerStore | ConsumerStore | Scope.Scope> =>
  Effect.gen(function*() {
    yield* check(projection)
    const consumers = yield* ConsumerStore
    const store = yield* LedgerStore
    const { name, version } = projection
    const json = Schema.parseJson(projection.schema)
    const failed = (offset: number) => (cause: unknown) => new ProjectionFailed({ name, version, offset, cause })

    const saved = yield* patiently(consumers.load(name, version))
    const from = Option.getOrUndefined(saved)
    const position = from?.position ??
      {
        incarnation: (yield* patiently(store.head)).incarnation,
        offset: 0,
        digest: null
      }
    if (from !== undefined) yield* patiently(verify(store, position))
    const state = from === undefined
      ? projection.initial
      : yield* Effect.mapError(Schema.decode(json)(from.state), failed(position.offset))

    const fold = yield* start(projection, state, {
      after: position.offset,
      incarnation: position.incarnation
    })

    let last = from === undefined ? undefined : { offset: position.offset, complete: from.complete }
    let superseded = false
    const save: Effect.Effect<void, ProjectionError> = Effect.suspend(() => {
      const { offset, state } = fold.standing()
      const complete = last?.complete === true || fold.isComplete()
      if (superseded || (last?.offset === offset && last.complete === complete)) return Effect.void
      return Effect.gen(function*() {
        const text = yield* Effect.mapError(Schema.encode(json)(state), failed(offset))
        const at = yield* patiently(positionAt(store, offset))
        // of another log: the fold is about to fail
        if (at.incarnation !== position.incarnation) return
        superseded = !(yield* patiently(
          consumers.store(name, { version, complete, position: at, state: text })
        ))
        last = { offset, complete }
        if (superseded) yield* Effect.logInfo(`a newer version is complete: version ${version} is not saved any more`)
      })
    })
    const annotated = Effect.annotateLogs({ package: "effect-ledger", module: "Projection", projection: name })
    yield* Effect.addFinalizer(() => annotated(Effect.ignoreLogged(Effect.timeout(save, "5 seconds"))))
    yield* Effect.sleep(saveInterval).pipe(
      Effect.zipRight(save),
      Effect.forever,
      Effect.catchAllCause((cause) =>
        Cause.isInterruptedOnly(cause) ? Effect.void : Effect.logError("the state cannot be saved", cause)
      ),
      annotated,
      Effect.forkScoped
    )
    return fold
  })

/** A fold that runs. */
interface Fold<S> extends Live<S> {
  readonly standing: () => Standing<S>
  /** Whether it has been the whole log since it began. */
  readonly isComplete: () => boolean
}

const check = <S, I>({ name, version }: Projection<S, I>): Effect.Effect<void, InvalidQuery> => {
  const badName = Fields.name(name)
  if (badName !== undefined) return new InvalidQuery({ path: "name", reason: badName })
  const badVersion = Fields.schemaVersion(version)
  return badVersion === undefined ? Effect.void : new InvalidQuery({ path: "version", reason: badVersion })
}

const start = <S, I>(
  { apply, filter, name, version }: Projection<S, I>,
  initial: S,
  after: After
): Effect.Effect<Fold<S>, ProjectionError, Ledger | Scope.Scope> =>
  Effect.gen(function*() {
    const ledger = yield* Ledger
    /** How far the log is known to reach. */
    let head = yield* patiently(ledger.latestOffset)
    const at = (state: S, offset: number): Standing<S> => ({ state, offset, lag: Math.max(0, head - offset) })
    let standing = at(initial, typeof after === "number" ? after : after.after)
    let failure: Cause.Cause<ProjectionError> | undefined
    let complete = false
    /** Grows with each change. */
    let generation = 0
    const waiting = new Set<() => void>()
    const publish = (): void => {
      generation++
      for (const resume of Array.from(waiting)) resume()
    }

    yield* ledger.follow({ after, filter }).pipe(
      Stream.runForEachChunk((told) =>
        Effect.suspend(() => {
          let { offset, state } = standing
          for (const one of told) {
            switch (one._tag) {
              case "Recorded":
                try {
                  state = apply(state, one.event)
                } catch (cause) {
                  return new ProjectionFailed({ name, version, offset: one.event.offset, cause })
                }
                offset = one.event.offset
                break
              case "Behind":
                head = Math.max(head, offset + one.lag)
                break
              case "CaughtUp":
                // the caller's transaction may have seen further when it began
                offset = head = one.head
                complete = true
            }
          }
          standing = at(state, offset)
          publish()
          return Effect.void
        })
      ),
      Effect.catchAllCause((cause) =>
        Effect.sync(() => {
          failure = cause
          publish()
        })
      ),
      Effect.annotateLogs({ package: "effect-ledger", module: "Projection", projection: name }),
      Effect.forkScoped
    )

    const current = Effect.suspend(() => failure === undefined ? Effect.succeed(standing) : Effect.failCause(failure))
    const when = (ready: () => boolean): Effect.Effect<Standing<S>, ProjectionError> =>
      Effect.zipRight(
        Effect.async<void>((resume) => {
          const look = () => {
            if (failure === undefined && !ready()) return
            waiting.delete(look)
            resume(Effect.void)
          }
          waiting.add(look)
          look()
          return Effect.sync(() => waiting.delete(look))
        }),
        current
      )
    return {
      current,
      awaitOffset: (offset) => when(() => standing.offset >= offset),
      changes: Stream.paginateEffect(-1, (seen) =>
        Effect.map(when(() => generation > seen), (standing) => [standing, Option.some(generation)] as const)),
      standing: () =>
        standing,
      isComplete: () => complete
    }
  })

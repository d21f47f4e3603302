/** Keeping a fold over the log up to date. */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ConsumerStore } from "../ConsumerStore.js"
import type { Ledger } from "../Ledger.js"
import { InvalidQuery, type ProjectionError, ProjectionFailed, type StoreError } from "../LedgerError.js"
import type { LedgerStore } from "../LedgerStore.js"
import type { Live, Projection, Standing } from "../Projection.js"
import type { After } from "../Query.js"
import * as Fields from "./fields.js"
import { patiently } from "./patiently.js"
import { positionAt, verify } from "./position.js"

export interface Services {
  readonly ledger: Context.Tag.Service<Ledger>
  readonly store: Context.Tag.Service<LedgerStore>
  readonly consumers: Context.Tag.Service<ConsumerStore>
}

/** A fold that runs. */
interface Fold<S> extends Live<S> {
  readonly standing: () => Standing<S>
  /** Whether it has been the whole log since it began. */
  readonly isComplete: () => boolean
}

export const open = <S, I>(
  ledger: Services["ledger"],
  projection: Projection<S, I>
): Effect.Effect<Live<S>, ProjectionError, Scope.Scope> =>
  Effect.zipRight(check(projection), start(ledger, projection, projection.initial, 0))

export const openPersisted = <S, I>(
  { consumers, ledger, store }: Services,
  projection: Projection<S, I>,
  saveInterval: Duration.DurationInput
): Effect.Effect<Live<S>, ProjectionError, Scope.Scope> =>
  Effect.gen(function*() {
    yield* check(projection)
    const { name, version } = projection
    const json = Schema.parseJson(projection.schema)
    const failed = (offset: number) => (cause: unknown) => new ProjectionFailed({ name, version, offset, cause })

    const saved = yield* patiently(consumers.load(name, version))
    const from = Option.getOrUndefined(saved)
    const position = from?.position ??
      { incarnation: yield* patiently(ledgerIncarnation(store)), offset: 0, digest: null }
    if (from !== undefined) yield* patiently(verify(store, position))
    const state = from === undefined
      ? projection.initial
      : yield* Effect.mapError(Schema.decode(json)(from.state), failed(position.offset))

    const fold = yield* start(ledger, projection, state, {
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

const ledgerIncarnation = (store: Services["store"]): Effect.Effect<string, StoreError> =>
  Effect.map(store.head, ({ incarnation }) => incarnation)

const check = <S, I>({ name, version }: Projection<S, I>): Effect.Effect<void, InvalidQuery> => {
  const badName = Fields.name(name)
  if (badName !== undefined) return new InvalidQuery({ path: "name", reason: badName })
  const badVersion = Fields.schemaVersion(version)
  return badVersion === undefined ? Effect.void : new InvalidQuery({ path: "version", reason: badVersion })
}

const start = <S, I>(
  ledger: Services["ledger"],
  { apply, filter, name, version }: Projection<S, I>,
  initial: S,
  after: After
): Effect.Effect<Fold<S>, never, Scope.Scope> =>
  Effect.gen(function*() {
    let standing: Standing<S> = { state: initial, offset: typeof after === "number" ? after : after.after, lag: 0 }
    let failure: Cause.Cause<ProjectionError> | undefined
    let complete = false
    /** How far the log is known to reach. */
    let head = 0
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
                offset = one.head
                complete = true
            }
          }
          standing = { state, offset, lag: Math.max(0, head - offset) }
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

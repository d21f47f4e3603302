/** How the suite opens ledgers and looks at what they answer. */
import { afterAll, beforeAll, expect } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Event, RecordedEvent } from "../../src/Event.js"
import { Ledger, LedgerAdmin } from "../../src/Ledger.js"
import { LedgerStore } from "../../src/LedgerStore.js"
import * as StoreLedger from "../../src/StoreLedger.js"
import type { Backend, Services } from "./Backend.js"

/** One open ledger. */
export interface Handle {
  readonly ledger: Context.Tag.Service<Ledger>
  readonly admin: Context.Tag.Service<LedgerAdmin>
  readonly store: Context.Tag.Service<LedgerStore>
}

export type Store = Handle["store"]

/** Opens a ledger until the scope ends; another call opens another handle. */
export const open = <R>(layer: Layer.Layer<Services | R, unknown>): Effect.Effect<
  Handle & { readonly context: Context.Context<Services | R> },
  unknown,
  Scope.Scope
> =>
  Effect.map(Layer.build(Layer.fresh(layer)), (context) => ({
    context,
    ledger: quiet(Context.get(context as Context.Context<Services>, Ledger)),
    admin: Context.get(context as Context.Context<Services>, LedgerAdmin),
    store: Context.get(context as Context.Context<Services>, LedgerStore)
  }))

/** One ledger for all tests of a `describe`, for tests that do not mind each other's events. */
export const shared = (layer: () => Layer.Layer<Services, unknown>): Effect.Effect<Handle> => {
  const scope = Effect.runSync(Scope.make())
  let handle: Handle | undefined
  beforeAll(() =>
    Effect.runPromise(
      Effect.asVoid(Effect.tap(Scope.extend(Effect.suspend(() => open(layer())), scope), (opened) =>
        Effect.sync(() => {
          handle = opened
        })))
    )
  )
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
  return Effect.sync(() => handle!)
}

/** A ledger over a store that `change` has wrapped, on the store of another ledger. */
export const over = (store: Store, change: (store: Store) => Partial<Store>): Layer.Layer<Services> =>
  StoreLedger.layer.pipe(Layer.provideMerge(Layer.sync(LedgerStore, () => ({ ...store, ...change(store) }))))

/** A new ledger of the backend with a wrapped store. */
export const wrapped = Effect.fnUntraced(function*(backend: Backend, change: (store: Store) => Partial<Store>) {
  const { store } = yield* open(backend.layer())
  return yield* open(over(store, change))
})

export const collect = <A, E, R>(stream: Stream.Stream<A, E, R>): Effect.Effect<ReadonlyArray<A>, E, R> =>
  Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

/** Asks again until the answer is right; the test's time limit is the end of patience. */
export const eventually = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  isRight: (answer: A) => boolean
): Effect.Effect<A, E, R> => Effect.repeat(Effect.zipLeft(effect, Effect.sleep("5 millis")), { until: isRight })

/** What the effect fails with; a success, shortened, is a defect. */
export const failure = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<E, never, R> =>
  Effect.matchEffect(effect, {
    onFailure: Effect.succeed,
    onSuccess: (value) => Effect.dieMessage(`expected a failure, not ${JSON.stringify(value)?.slice(0, 200)}`)
  })

/** An event as what it says, so that no cache inside a time takes part in a comparison. */
export const plain = (event: Event | RecordedEvent) => ({ ...event, createdAt: DateTime.formatIso(event.createdAt) })

/** The events as the ledger would give them back if they stood at `from`, `from + 1`, …. */
export const recordedAt = (from: number, events: ReadonlyArray<Event>): ReadonlyArray<RecordedEvent> =>
  events.map((event, index) => ({ ...event, offset: from + index }))

/** The two lists say the same in the same order. */
export const expectEvents = (
  actual: ReadonlyArray<Event | RecordedEvent>,
  expected: ReadonlyArray<Event | RecordedEvent>
): void => expect(actual.map(plain)).toStrictEqual(expected.map(plain))

/** The ledger holds these events and nothing else, whichever way it is asked. */
export const expectHistory = Effect.fnUntraced(function*(handle: Handle, events: ReadonlyArray<Event>) {
  expectEvents(yield* handle.ledger.events, recordedAt(1, events))
  expect(yield* handle.ledger.latestOffset).toBe(events.length)
})

/** Every offset from 1 to the last, each once and in order; answers the events. */
export const expectGapless = Effect.fnUntraced(function*(handle: Handle, count: number) {
  const events = yield* handle.ledger.events
  expect(events.map((event) => event.offset)).toStrictEqual(Array.from({ length: count }, (_, index) => index + 1))
  expect(yield* handle.ledger.latestOffset).toBe(count)
  return events
})

/** Without the warnings that divergent duplicates are worth; the service in the context gives them. */
const quiet = (ledger: Handle["ledger"]): Handle["ledger"] => {
  const silent = Logger.withMinimumLogLevel(LogLevel.Error)
  return {
    ...ledger,
    append: (event) => silent(ledger.append(event)),
    appendAll: (events) => silent(ledger.appendAll(events)),
    appendIf: (condition, events) => silent(ledger.appendIf(condition, events))
  }
}

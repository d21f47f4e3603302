/**
 * The append-only log of events, as a service.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Event, RecordedEvent } from "./Event.js"
import {
  type AppendConditionFailed,
  type AppendError,
  DivergentDuplicate,
  type InvalidQuery,
  type ReadError,
  type SubscribeError
} from "./LedgerError.js"
import type { Head } from "./LedgerStore.js"
import type { After, AppendCondition, Filters, Query } from "./Query.js"

/**
 * What an append answers. `Appended`: the event is recorded at `offset`, as durably as the backend makes anything.
 * `Duplicate`: the id was recorded before, at `offset`, and nothing was written; `identical` says whether every field
 * but `createdAt` is the same.
 *
 * @since 0.1.0
 * @category models
 */
export type Receipt = Data.TaggedEnum<{
  Appended: { readonly id: string; readonly offset: number }
  Duplicate: { readonly id: string; readonly offset: number; readonly identical: boolean }
}>

/**
 * The constructors and matchers of {@link Receipt}.
 *
 * @since 0.1.0
 * @category models
 */
export const Receipt: Data.TaggedEnum.Constructor<Receipt> = Data.taggedEnum<Receipt>()

/**
 * What {@link follow} tells: an event, that every event up to `head` has been told (after each time that there was news),
 * or, before a page of the past, how many events lie between the reader and the head.
 *
 * @since 0.1.0
 * @category models
 */
export type Followed = Data.TaggedEnum<{
  Recorded: { readonly event: RecordedEvent }
  CaughtUp: { readonly head: number }
  Behind: { readonly lag: number }
}>

/**
 * The constructors and matchers of {@link Followed}.
 *
 * @since 0.1.0
 * @category models
 */
export const Followed: Data.TaggedEnum.Constructor<Followed> = Data.taggedEnum<Followed>()

/**
 * Where to begin (at the beginning unless told), and which events.
 *
 * @since 0.1.0
 * @category models
 */
export interface SubscribeOptions {
  readonly after?: After | undefined
  readonly filter?: Filters | undefined
}

/**
 * The ledger. Every member has an accessor of the same name in this module that takes the service from the context:
 * `Ledger.append(event)`.
 *
 * @since 0.1.0
 * @category tags
 */
export class Ledger extends Context.Tag("effect-ledger/Ledger")<Ledger, {
  /** Appends one event; an id that is already recorded is a success, see {@link Receipt}. */
  readonly append: (event: Event) => Effect.Effect<Receipt, AppendError>
  /** Appends all events or none, in one transaction; the receipts come in the order given. */
  readonly appendAll: (events: Iterable<Event>) => Effect.Effect<ReadonlyArray<Receipt>, AppendError>
  /**
   * Appends all events or none, and only if no event after `condition.after` matches `condition.noneMatch`. When every
   * id is already recorded the answer is duplicates and the condition is not asked: repeating it after a lost
   * acknowledgement succeeds.
   */
  readonly appendIf: (
    condition: AppendCondition,
    events: Iterable<Event>
  ) => Effect.Effect<ReadonlyArray<Receipt>, AppendError | AppendConditionFailed | InvalidQuery>
  /** The event with this id. Costs one index probe. */
  readonly get: (id: string) => Effect.Effect<Option.Option<RecordedEvent>, ReadError>
  /** Every event, in offset order. Costs memory for all of them: `tail` reads in constant memory. */
  readonly events: Effect.Effect<ReadonlyArray<RecordedEvent>, ReadError>
  /** The events of one run, in offset order. */
  readonly eventsForRun: (runId: string) => Effect.Effect<ReadonlyArray<RecordedEvent>, ReadError>
  /** The run ids in first-seen order. Costs one index probe a run, however many events they have. */
  readonly runs: Effect.Effect<ReadonlyArray<string>, ReadError>
  /** The offset of the last event, which is the number of events; 0 when the ledger is empty. */
  readonly latestOffset: Effect.Effect<number, ReadError>
  /** Identifies this history: it changes when the ledger is reset or restored. */
  readonly incarnation: Effect.Effect<string, ReadError>
  /** The events after the cursor, up to the head at the time the stream starts to run; constant memory. */
  readonly tail: (after?: After) => Stream.Stream<RecordedEvent, ReadError>
  /** The events that match the query, page by page in constant memory. */
  readonly read: (query: Query) => Stream.Stream<RecordedEvent, ReadError>
  /**
   * Endless: the events after the cursor, then each new one, in order, none missed and none twice, whoever appends it.
   * While the store is away it waits. A slow reader costs no memory.
   */
  readonly subscribe: (options?: SubscribeOptions) => Stream.Stream<RecordedEvent, SubscribeError>
  /** As `subscribe`, and tells where it stands, see {@link Followed}. */
  readonly follow: (options?: SubscribeOptions) => Stream.Stream<Followed, SubscribeError>
}>() {}

/**
 * An incarnation, and where the logs ended that it goes on from, the nearest first: it is a copy of the first of them up
 * to that offset, or was declared there.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lineage {
  readonly incarnation: string
  readonly parents: ReadonlyArray<Head>
}

/**
 * What only an administrator may do; a program that is given only `Ledger` cannot.
 *
 * @since 0.1.0
 * @category tags
 */
export class LedgerAdmin extends Context.Tag("effect-ledger/LedgerAdmin")<LedgerAdmin, {
  /** Deletes every event and begins a new incarnation: older cursors then fail with `LedgerReplaced`. */
  readonly reset: Effect.Effect<void, AppendError>
  /**
   * Declares that this log goes on by itself from here: after a restore, or after a failover to a standby that may have
   * missed the last events. Events stay, a new incarnation begins, and cursors of the old one fail with
   * `LedgerReplaced`. Answers what `lineage` answers then.
   */
  readonly incarnate: Effect.Effect<Lineage, AppendError>
  /** The incarnation, and where the logs ended that it goes on from. */
  readonly lineage: Effect.Effect<Lineage, ReadError>
}>() {}

/**
 * Appends one event to the ledger in the context. An id that is already recorded is a success.
 *
 * @example
 * ```ts
 * import { Event, Ledger, MemoryLedger } from "effect-ledger"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const event = yield* Event.create({ runId: "run-1", turn: 0, kind: "agent.spoke", actor: "ada", payload: {} })
 *   const first = yield* Ledger.append(event)
 *   const again = yield* Ledger.append(event)
 *   console.log(first._tag, again._tag) // Appended Duplicate
 * })
 *
 * Effect.runPromise(program.pipe(Effect.provide(MemoryLedger.layer)))
 * ```
 *
 * @since 0.1.0
 * @category accessors
 */
export const append = (event: Event): Effect.Effect<Receipt, AppendError, Ledger> =>
  Effect.flatMap(Ledger, (ledger) => ledger.append(event))

/**
 * Appends all events or none.
 *
 * @since 0.1.0
 * @category accessors
 */
export const appendAll = (events: Iterable<Event>): Effect.Effect<ReadonlyArray<Receipt>, AppendError, Ledger> =>
  Effect.flatMap(Ledger, (ledger) => ledger.appendAll(events))

/**
 * Appends all events or none, if nothing that the condition names was recorded meanwhile.
 *
 * @example
 * ```ts
 * import { Event, Ledger } from "effect-ledger"
 * import { Effect } from "effect"
 *
 * // finish a run once: whoever decided on an older state of the run is refused
 * export const finish = (runId: string, decidedAt: number) =>
 *   Effect.gen(function*() {
 *     const event = yield* Event.create({ runId, turn: 9, kind: "run.finished", actor: "conductor", payload: {} })
 *     return yield* Ledger.appendIf({ noneMatch: { runId }, after: decidedAt }, [event])
 *   })
 * ```
 *
 * @since 0.1.0
 * @category accessors
 */
export const appendIf = (
  condition: AppendCondition,
  events: Iterable<Event>
): Effect.Effect<ReadonlyArray<Receipt>, AppendError | AppendConditionFailed | InvalidQuery, Ledger> =>
  Effect.flatMap(Ledger, (ledger) => ledger.appendIf(condition, events))

/**
 * The event with this id.
 *
 * @since 0.1.0
 * @category accessors
 */
export const get = (id: string): Effect.Effect<Option.Option<RecordedEvent>, ReadError, Ledger> =>
  Effect.flatMap(Ledger, (ledger) => ledger.get(id))

/**
 * Every event, in offset order.
 *
 * @since 0.1.0
 * @category accessors
 */
export const events: Effect.Effect<ReadonlyArray<RecordedEvent>, ReadError, Ledger> = Effect.flatMap(
  Ledger,
  (ledger) => ledger.events
)

/**
 * The events of one run, in offset order.
 *
 * @since 0.1.0
 * @category accessors
 */
export const eventsForRun = (runId: string): Effect.Effect<ReadonlyArray<RecordedEvent>, ReadError, Ledger> =>
  Effect.flatMap(Ledger, (ledger) => ledger.eventsForRun(runId))

/**
 * The run ids in first-seen order.
 *
 * @since 0.1.0
 * @category accessors
 */
export const runs: Effect.Effect<ReadonlyArray<string>, ReadError, Ledger> = Effect.flatMap(
  Ledger,
  (ledger) => ledger.runs
)

/**
 * The offset of the last event, which is the number of events.
 *
 * @since 0.1.0
 * @category accessors
 */
export const latestOffset: Effect.Effect<number, ReadError, Ledger> = Effect.flatMap(
  Ledger,
  (ledger) => ledger.latestOffset
)

/**
 * Identifies this history: it changes when the ledger is reset or restored.
 *
 * @since 0.1.0
 * @category accessors
 */
export const incarnation: Effect.Effect<string, ReadError, Ledger> = Effect.flatMap(
  Ledger,
  (ledger) => ledger.incarnation
)

/**
 * The events after the cursor, up to the head at the time the stream starts to run.
 *
 * @since 0.1.0
 * @category accessors
 */
export const tail = (after?: After): Stream.Stream<RecordedEvent, ReadError, Ledger> =>
  Stream.unwrap(Effect.map(Ledger, (ledger) => ledger.tail(after)))

/**
 * The events that match the query.
 *
 * @example
 * ```ts
 * import { Ledger } from "effect-ledger"
 *
 * // the last ten things that two actors said, newest first
 * export const recent = Ledger.read({
 *   filter: { kinds: ["agent.spoke"], actors: ["ada", "bob"] },
 *   direction: "backward",
 *   limit: 10
 * })
 * ```
 *
 * @since 0.1.0
 * @category accessors
 */
export const read = (query: Query): Stream.Stream<RecordedEvent, ReadError, Ledger> =>
  Stream.unwrap(Effect.map(Ledger, (ledger) => ledger.read(query)))

/**
 * The events after the cursor, then each new one, for ever.
 *
 * @example
 * ```ts
 * import { Event, Ledger } from "effect-ledger"
 * import { Console, Stream } from "effect"
 *
 * // what agents say, from now on or from where a reader left off
 * export const transcript = (after: number) =>
 *   Ledger.subscribe({ after, filter: { kinds: ["agent.spoke"] } }).pipe(
 *     Stream.runForEach((event) => Console.log(Event.summary(event)))
 *   )
 * ```
 *
 * @since 0.1.0
 * @category accessors
 */
export const subscribe = (options?: SubscribeOptions): Stream.Stream<RecordedEvent, SubscribeError, Ledger> =>
  Stream.unwrap(Effect.map(Ledger, (ledger) => ledger.subscribe(options)))

/**
 * As {@link subscribe}, and tells where it stands.
 *
 * @since 0.1.0
 * @category accessors
 */
export const follow = (options?: SubscribeOptions): Stream.Stream<Followed, SubscribeError, Ledger> =>
  Stream.unwrap(Effect.map(Ledger, (ledger) => ledger.follow(options)))

/**
 * Turns a duplicate whose content differs from what is recorded into a `DivergentDuplicate` failure, for a receipt or
 * for an array of them.
 *
 * @example
 * ```ts
 * import { type Event, Ledger } from "effect-ledger"
 *
 * export const strict = (event: Event.Event) => Ledger.append(event).pipe(Ledger.failOnDivergence)
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const failOnDivergence = <A extends Receipt | ReadonlyArray<Receipt>, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | DivergentDuplicate, R> =>
  Effect.flatMap(self, (answer): Effect.Effect<A, DivergentDuplicate> => {
    const receipts: ReadonlyArray<Receipt> = "_tag" in answer ? [answer] : answer
    const divergent = receipts.find((receipt) => receipt._tag === "Duplicate" && !receipt.identical)
    return divergent === undefined ? Effect.succeed(answer) : Effect.fail(
      new DivergentDuplicate({ id: divergent.id, offset: divergent.offset })
    )
  })

/**
 * A named, durable reader: it goes through the log event by event and remembers, in the ledger's own database, how far it
 * came. Any number of processes may run the same consumer; one of them is active, or one for each of its partitions.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import { ConsumerStore, type DeadLetter } from "./ConsumerStore.js"
import type { RecordedEvent } from "./Event.js"
import * as internal from "./internal/consumer.js"
import * as Fields from "./internal/fields.js"
import { checkSubscription } from "./internal/query.js"
import { Ledger } from "./Ledger.js"
import { ConsumerActive, InvalidQuery, type ReadError, type StoreError, type SubscribeError } from "./LedgerError.js"
import { LedgerStore } from "./LedgerStore.js"
import type { After, Filters } from "./Query.js"

/**
 * What becomes of an event whose handler is interrupted by a crash.
 *
 * - `atLeastOnce`: the checkpoint is written after the handler, so that the last batch may be handled again
 * - `exactlyOnce`: handler and checkpoint are one transaction on the ledger's client. What the handler writes with that
 *   client, the ledger included, is there once; what it does elsewhere may be done again
 *
 * @since 0.1.0
 * @category models
 */
export type Delivery = "atLeastOnce" | "exactlyOnce"

/**
 * - `name`: 1 to 255 characters; whoever runs this name goes on where the last one stopped
 * - `handler`: deals with one event; events of one partition come one after the other, in order
 * - `filter`: which events (all, unless told)
 * - `after`: where a name that was never run begins (at the beginning, unless told)
 * - `delivery`: `atLeastOnce` unless told
 * - `batch`: how many events at most share a checkpoint, 100 unless told
 * - `groups`: into how many partitions the events are divided by their run (1 unless told), each with a checkpoint of its
 *   own; the processes that are alive share them. It cannot be changed before a {@link reset}
 * - `lease`: within which time another process takes over from one that died, 15 seconds unless told. Handling one batch
 *   exactly once has to take less
 * - `retry`: how often and when a handler that failed is tried again (never, unless told)
 * - `onFailure`: after that, `stop` with the handler's error (unless told otherwise), or record a `deadLetter` and go on
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<E, R> {
  readonly name: string
  readonly handler: (event: RecordedEvent) => Effect.Effect<unknown, E, R>
  readonly filter?: Filters | undefined
  readonly after?: After | undefined
  readonly delivery?: Delivery | undefined
  readonly batch?: number | undefined
  readonly groups?: number | undefined
  readonly lease?: Duration.DurationInput | undefined
  readonly retry?: Schedule.Schedule<unknown, E, R> | undefined
  readonly onFailure?: "stop" | "deadLetter" | undefined
}

/**
 * One partition of a consumer: how far it came, how many events the log is ahead of it, and who has its lease (null when
 * nobody runs it).
 *
 * @since 0.1.0
 * @category models
 */
export interface Status {
  readonly name: string
  readonly partition: number
  readonly partitions: number
  readonly offset: number
  readonly lag: number
  readonly holder: string | null
}

/**
 * Runs the consumer until it is interrupted. Where another process is active it waits, and takes over when that one ends
 * or dies. While the store is away it waits as well. It fails with the handler's error, when that is not to be a dead
 * letter; with `LedgerReplaced`, before anything is handled, when the log is not the one in which its checkpoint was taken
 * (reset, restored to an older state, or changed); and with `CorruptEvent`.
 *
 * Costs one checkpoint a batch, and a small statement four times in the time of a lease.
 *
 * @example
 * ```ts
 * import { Consumer } from "effect-ledger"
 * import * as SqliteLedger from "effect-ledger/SqliteLedger"
 * import * as SqlClient from "@effect/sql/SqlClient"
 * import { Effect } from "effect"
 *
 * // counts what each actor said, in a table beside the ledger
 * export const count = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   yield* Consumer.run({
 *     name: "words",
 *     filter: { kinds: ["agent.spoke"] },
 *     delivery: "exactlyOnce",
 *     handler: (event) =>
 *       sql`INSERT INTO words (actor, said) VALUES (${event.actor}, 1)
 *           ON CONFLICT (actor) DO UPDATE SET said = said + 1`
 *   })
 * }).pipe(Effect.provide(SqliteLedger.layerFile("runs/agents.db")))
 * ```
 *
 * @since 0.1.0
 * @category running
 */
export const run = <E, R>(
  options: Options<E, R>
): Effect.Effect<never, E | SubscribeError, R | Ledger | LedgerStore | ConsumerStore> =>
  Effect.flatMap(
    Effect.all({ ledger: Ledger, store: LedgerStore, consumers: ConsumerStore }),
    (services) => Effect.flatMap(Effect.suspend(() => check(options)), (setting) => internal.run(services, setting))
  )

/**
 * All consumers, a line for each partition.
 *
 * @since 0.1.0
 * @category operating
 */
export const status: Effect.Effect<ReadonlyArray<Status>, StoreError, LedgerStore | ConsumerStore> = Effect.gen(
  function*() {
    const store = yield* LedgerStore
    const consumers = yield* (yield* ConsumerStore).consumers
    const head = yield* store.head
    return consumers.map(({ holder, name, partition, partitions, position }) => {
      const offset = position?.offset ?? 0
      return { name, partition, partitions, offset, lag: Math.max(0, head.offset - offset), holder }
    })
  }
)

/**
 * The events that a consumer gave up on, by offset, at most 1,000 of them after `after` (0 unless told).
 *
 * @since 0.1.0
 * @category operating
 */
export const deadLetters = (
  name: string,
  after: number = 0
): Effect.Effect<ReadonlyArray<DeadLetter>, StoreError, ConsumerStore> =>
  Effect.flatMap(ConsumerStore, (consumers) => consumers.deadLetters(name, after))

/**
 * Handles the dead letters of a consumer again, in order: those that succeed are removed from the list, those that fail
 * stay, with the new reason. With `exactlyOnce` the removal and what the handler writes are one transaction. Answers how
 * many of each there were. Fails with `LedgerReplaced`, before anything is handled, when the log is not the one in which
 * the consumer's checkpoint was taken.
 *
 * @since 0.1.0
 * @category operating
 */
export const replay = <E, R>(
  options: Pick<Options<E, R>, "name" | "handler" | "delivery" | "retry">
): Effect.Effect<
  { readonly handled: number; readonly failed: number },
  ReadError,
  R | Ledger | LedgerStore | ConsumerStore
> =>
  Effect.flatMap(
    Effect.all({ ledger: Ledger, store: LedgerStore, consumers: ConsumerStore }),
    (services) => internal.replay(services, work(options))
  )

/**
 * Forgets the consumer with its dead letters: the next one to run under this name begins anew.
 *
 * @since 0.1.0
 * @category operating
 */
export const reset = (name: string): Effect.Effect<void, ConsumerActive | StoreError, ConsumerStore> =>
  Effect.flatMap(
    ConsumerStore,
    (consumers) =>
      Effect.flatMap(consumers.forget(name), (forgotten) => forgotten ? Effect.void : new ConsumerActive({ name }))
  )

const work = <E, R>(
  { delivery, handler, name, retry }: Pick<Options<E, R>, "name" | "handler" | "delivery" | "retry">
): internal.Work<E, R> => ({ name, handler, retry, exactlyOnce: delivery === "exactlyOnce" })

const check = <E, R>(options: Options<E, R>): Effect.Effect<internal.Setting<E, R>, InvalidQuery> =>
  Effect.gen(function*() {
    const { after = 0, batch = 100, filter, groups = 1, lease = "15 seconds", name, onFailure } = options
    const badName = Fields.name(name)
    if (badName !== undefined) return yield* new InvalidQuery({ path: "name", reason: badName })
    yield* count("batch", batch, 10_000)
    yield* count("groups", groups, 1024)
    yield* checkSubscription({ after, filter })
    const millis = Option.getOrElse(Option.map(Duration.decodeUnknown(lease), Duration.toMillis), () => 0)
    if (!(millis >= minLease && millis <= maxLease)) {
      return yield* new InvalidQuery({
        path: "lease",
        reason: `expected a duration from ${minLease} milliseconds to a day`
      })
    }
    return {
      ...work(options),
      after,
      batch,
      filter,
      groups,
      deadLetters: onFailure === "deadLetter",
      leaseMillis: Math.ceil(millis * 0.75),
      tick: Duration.millis(millis / 4)
    }
  })

const minLease = 100
const maxLease = 86_400_000

const count = (path: string, value: number, max: number): Effect.Effect<void, InvalidQuery> =>
  Number.isInteger(value) && value >= 1 && value <= max
    ? Effect.void
    : new InvalidQuery({ path, reason: `expected a whole number from 1 to ${max}` })

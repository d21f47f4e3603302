/** Running a consumer: leases, checkpoints, retries, dead letters. */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import { hostname } from "node:os"
import type { ConsumerStore, Lease, Position } from "../ConsumerStore.js"
import type { RecordedEvent } from "../Event.js"
import type { Followed, Ledger } from "../Ledger.js"
import {
  InvalidQuery,
  type ReadError,
  type StoreError,
  StoreUnavailable,
  type SubscribeError,
  TransactionAborted
} from "../LedgerError.js"
import * as LedgerMetrics from "../LedgerMetrics.js"
import type { LedgerStore } from "../LedgerStore.js"
import type { After, Filters } from "../Query.js"
import { patiently } from "./patiently.js"
import { positionAt, positionOf, verify } from "./position.js"

export interface Services {
  readonly ledger: Context.Tag.Service<Ledger>
  readonly store: Context.Tag.Service<LedgerStore>
  readonly consumers: Context.Tag.Service<ConsumerStore>
}

/** What a consumer was told, checked. */
export interface Setting<E, R> extends Work<E, R> {
  readonly filter: Filters | undefined
  readonly after: After
  readonly batch: number
  readonly groups: number
  readonly deadLetters: boolean
  /** For so long a lease is given; its holder renews it, and others ask for it, each `tick`: together that is the lease. */
  readonly leaseMillis: number
  readonly tick: Duration.Duration
}

export interface Work<E, R> {
  readonly name: string
  readonly handler: (event: RecordedEvent) => Effect.Effect<unknown, E, R>
  readonly exactlyOnce: boolean
  readonly retry: Schedule.Schedule<unknown, E, R> | undefined
}

/** This process gives the partition up, for now. */
class Yielded extends Data.TaggedError("Yielded")<{ readonly reason: string }> {}

type Away = StoreUnavailable | TransactionAborted

class HandlerFailed<E> extends Data.TaggedError("HandlerFailed")<{
  readonly event: RecordedEvent
  readonly cause: Cause.Cause<E>
}> {}

export const run = <E, R>(
  services: Services,
  setting: Setting<E, R>
): Effect.Effect<never, E | SubscribeError, R> =>
  Effect.gen(function*() {
    const { consumers } = services
    const { groups, name } = setting
    const member = `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`
    const failed = yield* Deferred.make<never, E | SubscribeError>()
    const scope = yield* Effect.scope
    const held = new Map<number, Deferred.Deferred<void>>()
    let wake: (() => void) | undefined

    if (groups > 1) yield* Effect.addFinalizer(() => promptly(consumers.leave(name, member)))

    const hold = (lease: Lease, position: Position | null) =>
      Effect.flatMap(Deferred.make<void>(), (stop) => {
        held.set(lease.partition, stop)
        return partition(services, setting, lease, position, stop).pipe(
          Effect.ensuring(promptly(consumers.release(lease))),
          Effect.catchAllCause((cause) =>
            Cause.isInterruptedOnly(cause) ? Effect.void : Deferred.failCause(failed, cause)
          ),
          Effect.ensuring(Effect.sync(() => {
            held.delete(lease.partition)
            wake?.()
          })),
          Effect.annotateLogs({
            package: "effect-ledger",
            module: "Consumer",
            consumer: name,
            partition: lease.partition
          }),
          Effect.forkIn(scope)
        )
      })

    const take = (partition: number) =>
      Effect.flatMap(
        patiently(
          consumers.acquire({ name, partition, partitions: groups, holder: member, millis: setting.leaseMillis })
        ),
        (acquired) => {
          switch (acquired._tag) {
            case "Acquired":
              return hold(acquired.lease, acquired.position)
            case "Held":
              return Effect.void
            case "Divided":
              return new InvalidQuery({
                path: "groups",
                reason:
                  `the consumer is divided into ${acquired.partitions}: use that number, another name, or reset it`
              })
          }
        }
      )

    // the same division everywhere, as soon as everybody has seen the same members
    const tick = Effect.gen(function*() {
      const members = groups === 1 ? [member] : yield* patiently(consumers.join(name, member, setting.leaseMillis))
      const rank = members.indexOf(member)
      for (let partition = 0; partition < groups; partition++) {
        const own = partition % members.length === rank
        const stop = held.get(partition)
        if (own && stop === undefined) yield* take(partition)
        else if (!own && stop !== undefined) yield* Deferred.succeed(stop, undefined)
      }
    })
    const ticking = Effect.forever(Effect.zipRight(
      tick,
      Effect.raceFirst(
        Effect.sleep(setting.tick),
        // a partition that came back is looked for again, but not in a circle
        Effect.zipRight(
          Effect.async<void>((resume) => {
            wake = () => resume(Effect.void)
          }),
          Effect.sleep("100 millis")
        )
      )
    ))
    return yield* Effect.raceFirst(ticking, Deferred.await(failed))
  }).pipe(Effect.scoped)

/** Works until it is told to stop, loses the lease or the store, or fails. */
const partition = <E, R>(
  { consumers, ledger, store }: Services,
  setting: Setting<E, R>,
  lease: Lease,
  position: Position | null,
  stop: Deferred.Deferred<void>
): Effect.Effect<void, E | SubscribeError, R> =>
  Effect.gen(function*() {
    const start = position ?? (yield* beginning(store, setting))
    if (position !== null) yield* patiently(verify(store, position))
    let saved = start
    /** Everything up to here is dealt with, though it may not be saved yet. */
    let seen = start.offset
    /** A transaction has written the lease's row, and has not ended. */
    let locked = false

    const kept = (isKept: boolean): Effect.Effect<void, Yielded> =>
      isKept ? Effect.void : new Yielded({ reason: "the lease is lost, and another process may have it" })
    const renew = Effect.flatMap(patiently(consumers.renew(lease, setting.leaseMillis)), kept)
    const save = (position: Position) =>
      Effect.flatMap(patiently(consumers.save(lease, position, setting.leaseMillis)), kept).pipe(
        Effect.tap(() => {
          saved = position
        })
      )
    const bury = ({ cause, event }: HandlerFailed<E>) =>
      Effect.flatMap(consumers.bury(lease, event.offset, reasonOf(cause)), kept).pipe(
        Effect.zipRight(Metric.increment(LedgerMetrics.deadLetters)),
        Effect.zipRight(
          Effect.logWarning(`gave up on the event at offset ${event.offset}; it is a dead letter now`, cause)
        )
      )
    const attempt = (event: RecordedEvent) => attemptWith(setting, event)

    const atLeastOnce = (events: Arr.NonEmptyReadonlyArray<RecordedEvent>) =>
      Effect.zipRight(
        Effect.forEach(events, (event, index) =>
          Effect.catchIf(retrying(setting, attempt(event)), isHandlerFailed<E>, (failure) => {
            const before = index > 0
              // those succeeded
              ? save(positionOf(start.incarnation, events[index - 1]!))
              // of a dead letter it must be known in which log it is one
              : setting.deadLetters
              ? save(saved)
              : Effect.void
            return setting.deadLetters
              ? Effect.zipRight(before, patiently(bury(failure)))
              : Effect.zipRight(before, Effect.failCause(failure.cause))
          }), { discard: true }),
        save(positionOf(start.incarnation, Arr.lastNonEmpty(events)))
      )

    // the fence comes first: it holds the lease's row until the commit
    const fenced = <E2, R2>(
      event: RecordedEvent,
      effect: Effect.Effect<void, E2, R2>
    ): Effect.Effect<void, Exclude<E2 | StoreError, Away> | Yielded, R2> =>
      Effect.suspend(() => {
        const position = positionOf(start.incarnation, event)
        const fence = Effect.flatMap(consumers.save(lease, position, setting.leaseMillis), kept)
        const lock = Effect.sync(() => {
          locked = true
        })
        return store.transaction(
          Effect.zipRight(Effect.zipRight(fence, lock), effect),
          { maxIdle: setting.leaseMillis }
        ).pipe(
          Effect.ensuring(Effect.sync(() => {
            locked = false
          })),
          Effect.tap(() => {
            saved = position
          }),
          Effect.mapError((error) =>
            error instanceof StoreUnavailable || error instanceof TransactionAborted
              // whether it was committed is read from the store
              ? new Yielded({ reason: error.message })
              : error as Exclude<typeof error, Away>
          )
        )
      })
    const once = (events: Arr.NonEmptyReadonlyArray<RecordedEvent>) =>
      Effect.tapError(
        fenced(Arr.lastNonEmpty(events), Effect.forEach(events, attempt, { discard: true })),
        // with the transaction, what it had added to the lease was rolled back
        (error) => isHandlerFailed(error) ? renew : Effect.void
      )
    const exactlyOnce = (
      events: Arr.NonEmptyReadonlyArray<RecordedEvent>
    ): Effect.Effect<void, E | Yielded | Exclude<StoreError, StoreUnavailable>, R> =>
      events.length > 1
        ? Effect.catchIf(once(events), isHandlerFailed<E>, () =>
          // one by one, to find out which of them it is
          Effect.forEach(events, (event) => exactlyOnce([event]), { discard: true }))
        : Effect.catchAll(
          retrying(setting, once(events)),
          (error): Effect.Effect<void, E | Yielded | Exclude<StoreError, StoreUnavailable>> =>
            !isHandlerFailed<E>(error)
              ? Effect.fail(error)
              : setting.deadLetters
              ? fenced(events[0], bury(error))
              : Effect.failCause(error.cause)
        )

    const handle = setting.exactlyOnce ? exactlyOnce : atLeastOnce

    const turns = Effect.unsafeMakeSemaphore(1)
    const deal = (told: Chunk.Chunk<Followed>) =>
      turns.withPermits(1)(Effect.suspend(() => {
        const events: Array<RecordedEvent> = []
        let last = seen
        for (const one of told) {
          if (one._tag === "Recorded") {
            last = one.event.offset
            if (partitionOf(one.event.runId, setting.groups) === lease.partition) events.push(one.event)
          } else if (one._tag === "CaughtUp") last = one.head
        }
        return Effect.zipRight(
          Effect.forEach(Arr.chunksOf(events, setting.batch), (batch) =>
            Effect.flatMap(
              Deferred.isDone(stop),
              (stopped) => stopped ? new Yielded({ reason: "another process is to have it" }) : handle(batch)
            ), { discard: true }),
          Effect.sync(() => {
            seen = last
          })
        )
      }))

    // passing over what is filtered out is progress too
    const rest = Effect.suspend(() =>
      seen <= saved.offset ? renew : Effect.flatMap(
        patiently(positionAt(store, seen)),
        (position) => position.incarnation === start.incarnation ? save(position) : renew
      )
    )
    const beat = Effect.flatMap(turns.withPermitsIfAvailable(1)(rest), (rested) =>
      // a row that is locked can be taken by nobody, and not be renewed either
      Option.isSome(rested) || locked ? Effect.void : renew)
    const heartbeat = Effect.forever(Effect.zipRight(Effect.sleep(setting.tick), beat))

    yield* ledger.follow({
      after: { after: start.offset, incarnation: start.incarnation },
      filter: setting.filter
    }).pipe(
      Stream.interruptWhenDeferred(stop),
      Stream.runForEachChunk(deal),
      Effect.raceFirst(heartbeat),
      Effect.zipRight(turns.withPermits(1)(rest))
    )
  }).pipe(
    Effect.catchIf(
      (error) => error instanceof Yielded,
      ({ reason }) => Effect.logInfo(`gives the partition up: ${reason}`)
    )
  )

export const replay = <E, R>(
  { consumers, ledger, store }: Services,
  work: Work<E, R>
): Effect.Effect<{ readonly handled: number; readonly failed: number }, ReadError, R> =>
  Effect.gen(function*() {
    const { name } = work
    // a dead letter is an offset: in another log another event is there
    for (const { name: other, position } of yield* consumers.consumers) {
      if (other === name && position !== null) yield* verify(store, position)
    }
    let handled = 0
    let failed = 0
    for (let after = 0;;) {
      const letters = yield* consumers.deadLetters(name, after)
      if (letters.length === 0) return { handled, failed }
      for (const { offset } of letters) {
        after = offset
        const event = yield* Stream.runHead(ledger.read({ after: offset - 1, through: offset }))
        if (Option.isNone(event)) continue
        const attempt = attemptWith(work, event.value)
        const settled = yield* (work.exactlyOnce
          // who removes it handles it
          ? retrying(
            work,
            store.transaction(Effect.tap(consumers.settle(name, offset), (found) => found ? attempt : Effect.void))
          )
          // it is handled, also where the answer to its removal was lost, or another replay has removed it
          : Effect.as(Effect.zipRight(retrying(work, attempt), consumers.settle(name, offset)), true)).pipe(
            Effect.catchIf(isHandlerFailed<E>, ({ cause }) => {
              failed++
              return Effect.as(consumers.failAgain(name, offset, reasonOf(cause)), false)
            })
          )
        if (settled) handled++
      }
    }
  })

/** Where a consumer begins that was never run. */
const beginning = <E, R>(
  store: Services["store"],
  { after }: Setting<E, R>
): Effect.Effect<Position, Exclude<StoreError, StoreUnavailable>> =>
  Effect.suspend(() => {
    const cursor = typeof after === "number" ? { after } : after
    return Effect.map(patiently(positionAt(store, cursor.after)), (position) => ({
      ...position,
      incarnation: cursor.incarnation ?? position.incarnation
    }))
  })

const attemptWith = <E, R>(
  { handler }: Work<E, R>,
  event: RecordedEvent
): Effect.Effect<void, HandlerFailed<E>, R> =>
  Effect.suspend(() => handler(event)).pipe(
    Effect.asVoid,
    // where it is the consumer that is interrupted, nothing of this is run
    Effect.catchAllCause((cause) =>
      Effect.fail(
        new HandlerFailed({
          event,
          cause: Cause.isInterruptedOnly(cause) ? Cause.die(new Error("the handler interrupted itself")) : cause
        })
      )
    )
  )

const isHandlerFailed = <E>(error: unknown): error is HandlerFailed<E> => error instanceof HandlerFailed

/** Tries again as the schedule says, when the handler failed with an error. */
const retrying = <A, E, E2, R, R2>(
  { retry }: Work<E, R>,
  effect: Effect.Effect<A, HandlerFailed<E> | E2, R2>
): Effect.Effect<A, HandlerFailed<E> | E2, R | R2> =>
  retry === undefined ? effect : Effect.flatten(Effect.mapError(
    Effect.retry(
      // a schedule is asked about every error, also about one that is not to be tried again
      Effect.catchAll(
        Effect.map(effect, (answer): Effect.Effect<A, HandlerFailed<E> | E2> => Effect.succeed(answer)),
        (error) => {
          const failure = isHandlerFailed<E>(error) ? Cause.failureOption(error.cause) : Option.none()
          return Option.isSome(failure)
            ? Effect.fail({ error, failure: failure.value })
            : Effect.succeed(Effect.fail(error))
        }
      ),
      Schedule.mapInput(retry, ({ failure }: { readonly failure: E }) => failure)
    ),
    ({ error }) => error
  ))

const reasonOf = (cause: Cause.Cause<unknown>): string => Cause.pretty(cause).replaceAll("\0", "").slice(0, 2000)

/**
 * What is polite and not needed, as the lease expires by itself: tried for a second, also where the fiber is already
 * interrupted.
 */
const promptly = (effect: Effect.Effect<void, StoreError>): Effect.Effect<void> =>
  Effect.gen(function*() {
    const done = yield* Deferred.make<void>()
    yield* Effect.forkDaemon(Effect.zipRight(Effect.ignore(effect), Deferred.succeed(done, undefined)))
    const patience = yield* Effect.forkDaemon(
      Effect.interruptible(Effect.zipRight(Effect.sleep("1 second"), Deferred.succeed(done, undefined)))
    )
    yield* Deferred.await(done)
    yield* Fiber.interruptFork(patience)
  })

/** FNV-1a, 32 bits, over UTF-16 units (http://www.isthe.com/chongo/tech/comp/fnv/). Frozen: checkpoints depend on it. */
export const partitionOf = (runId: string, partitions: number): number => {
  if (partitions === 1) return 0
  let hash = 0x811c9dc5
  for (let index = 0; index < runId.length; index++) {
    hash = Math.imul(hash ^ runId.charCodeAt(index), 0x01000193)
  }
  return (hash >>> 0) % partitions
}

/** Consumers: named, durable readers with a checkpoint, a lease and dead letters. */
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Consumer from "../../src/Consumer.js"
import { ConsumerStore } from "../../src/ConsumerStore.js"
import type { RecordedEvent } from "../../src/Event.js"
import * as LedgerMetrics from "../../src/LedgerMetrics.js"
import { type Backend, Client, type Services } from "./Backend.js"
import { event, events } from "./fixtures.js"
import { eventually, expectEvents, failure, open } from "./handle.js"

class Refused extends Data.TaggedError("Refused")<{ readonly offset: number }> {}

const lease = "400 millis"
const deliveries: ReadonlyArray<Consumer.Delivery> = ["atLeastOnce", "exactlyOnce"]

/** Waits until it is so. */
const until = (condition: () => boolean) => eventually(Effect.void, condition)

/** A consumer that runs, and what it has seen. */
const consume = <R>(
  { context }: { readonly context: Context.Context<R> },
  options: Partial<Consumer.Options<Refused, never>> = {}
) =>
  Effect.gen(function*() {
    const seen: Array<RecordedEvent> = []
    const fiber = yield* Effect.forkScoped(
      Effect.provide(
        Consumer.run({
          name: "reader",
          lease,
          ...options,
          handler: (one) =>
            Effect.zipRight(
              options.handler?.(one) ?? Effect.void,
              Effect.sync(() => {
                seen.push(one)
              })
            )
        }),
        context as Context.Context<R | Services | ConsumerStore>
      ).pipe(Logger.withMinimumLogLevel(LogLevel.Error))
    )
    return { seen, fiber }
  })

const inContext = <A, E, R>(
  { context }: { readonly context: Context.Context<Services> },
  effect: Effect.Effect<A, E, R>
) => Effect.provide(effect as Effect.Effect<A, E, Services>, context)

const offsets = (seen: ReadonlyArray<RecordedEvent>): ReadonlyArray<number> => seen.map(({ offset }) => offset)

export const consuming = (backend: Backend, consumers: () => Layer.Layer<Services | ConsumerStore, unknown>): void => {
  for (const delivery of deliveries) {
    describe(delivery, () => {
      it.scopedLive("goes on where it stopped", () =>
        Effect.gen(function*() {
          const handle = yield* open(consumers())
          yield* handle.ledger.appendAll(events(250, "past"))
          const first = yield* consume(handle, { delivery })
          yield* until(() => first.seen.length === 250)
          for (const one of events(10, "live")) yield* handle.ledger.append(one)
          yield* until(() => first.seen.length === 260)
          yield* eventually(inContext(handle, Consumer.status), ([status]) => status?.offset === 260)
          yield* Fiber.interrupt(first.fiber)
          yield* handle.ledger.appendAll(events(5, "later"))
          const second = yield* consume(handle, { delivery })
          yield* until(() => second.seen.length === 5)
          expectEvents([...first.seen, ...second.seen], yield* handle.ledger.events)
        }))

      it.scopedLive("a handler that fails is tried again, and its events are seen in order", () =>
        Effect.gen(function*() {
          const handle = yield* open(consumers())
          yield* handle.ledger.appendAll(events(10))
          let tries = 0
          const { seen } = yield* consume(handle, {
            delivery,
            retry: Schedule.recurs(5),
            handler: ({ offset }) => offset === 4 && ++tries < 4 ? new Refused({ offset }) : Effect.void
          })
          yield* until(() => seen.some(({ offset }) => offset === 10))
          // what a rolled back batch has seen does not count
          expect(Array.from(new Set(offsets(seen)))).toStrictEqual(offsets(yield* handle.ledger.events))
          expect(tries).toBeGreaterThanOrEqual(4)
        }))

      it.scopedLive("it stops at an event that keeps failing, and what was before it is not handled again", () =>
        Effect.gen(function*() {
          const handle = yield* open(consumers())
          yield* handle.ledger.appendAll(events(10))
          const refuse = (one: RecordedEvent) => one.offset === 4 ? new Refused({ offset: 4 }) : Effect.void
          const first = yield* consume(handle, { delivery, handler: refuse })
          expect(yield* failure(Fiber.join(first.fiber))).toMatchObject({ _tag: "Refused", offset: 4 })
          const [status] = yield* inContext(handle, Consumer.status)
          expect(status).toMatchObject({ name: "reader", offset: 3, lag: 7, holder: null })
          const second = yield* consume(handle, { delivery })
          yield* until(() => second.seen.length === 7)
          expect(offsets(second.seen)).toStrictEqual([4, 5, 6, 7, 8, 9, 10])
        }))

      it.scopedLive("a handler that interrupts itself has failed", () =>
        Effect.gen(function*() {
          const handle = yield* open(consumers())
          yield* handle.ledger.appendAll(events(5))
          const refuse = (one: RecordedEvent) => one.offset === 3 ? Effect.interrupt : Effect.void
          const first = yield* consume(handle, { delivery, handler: refuse })
          expect(Cause.pretty(yield* failure(Effect.sandbox(Fiber.join(first.fiber))))).toContain("interrupted itself")
          const second = yield* consume(handle, { delivery, onFailure: "deadLetter", handler: refuse })
          yield* until(() => second.seen.some(({ offset }) => offset === 5))
          expect(yield* inContext(handle, Consumer.deadLetters("reader"))).toMatchObject([{ offset: 3 }])
        }))

      it.scopedLive("a handler that dies is not tried again, and what it died of is told", () =>
        Effect.gen(function*() {
          const handle = yield* open(consumers())
          yield* handle.ledger.append(event("one"))
          let calls = 0
          const { fiber } = yield* consume(handle, {
            delivery,
            retry: Schedule.recurs(3),
            handler: () => Effect.zipRight(Effect.sync(() => calls++), Effect.dieMessage("out of luck"))
          })
          expect(Cause.pretty(yield* failure(Effect.sandbox(Fiber.join(fiber))))).toContain("out of luck")
          expect(calls).toBe(1)
        }))

      it.scopedLive("dead letters are recorded, passed over, and handled later", () =>
        Effect.gen(function*() {
          const handle = yield* open(consumers())
          yield* handle.ledger.appendAll(events(10))
          const refuse = (one: RecordedEvent) =>
            one.offset % 4 === 0 ? new Refused({ offset: one.offset }) : Effect.void
          const counted = Metric.value(LedgerMetrics.deadLetters)
          const before = yield* counted
          const first = yield* consume(handle, { delivery, onFailure: "deadLetter", handler: refuse })
          yield* until(() => first.seen.some(({ offset }) => offset === 10))
          expect(Array.from(new Set(offsets(first.seen)))).toStrictEqual([1, 2, 3, 5, 6, 7, 9, 10])
          const letters = yield* inContext(handle, Consumer.deadLetters("reader"))
          expect(letters).toMatchObject([{ offset: 4, attempts: 1 }, { offset: 8, attempts: 1 }])
          expect(letters[0]?.reason).toContain("Refused")
          expect((yield* counted).count - before.count).toBe(2)
          const again: Array<number> = []
          const replay = inContext(
            handle,
            Consumer.replay({
              name: "reader",
              delivery,
              handler: ({ offset }) =>
                offset === 8 ? new Refused({ offset }) : Effect.sync(() => void again.push(offset))
            })
          )
          expect(yield* replay).toStrictEqual({ handled: 1, failed: 1 })
          expect(again).toStrictEqual([4])
          expect(yield* inContext(handle, Consumer.deadLetters("reader"))).toMatchObject([{ offset: 8, attempts: 2 }])
        }))

      it.scopedLive("one of several is active, and another takes over when it ends", () =>
        Effect.gen(function*() {
          const handle = yield* open(consumers())
          yield* handle.ledger.appendAll(events(20))
          const first = yield* consume(handle, { delivery })
          yield* until(() => first.seen.length === 20)
          const second = yield* consume(handle, { delivery })
          yield* handle.ledger.appendAll(events(20, "more"))
          yield* until(() => first.seen.length === 40)
          yield* Effect.sleep(lease)
          expect(second.seen).toHaveLength(0)
          yield* Fiber.interrupt(first.fiber)
          yield* handle.ledger.appendAll(events(20, "most"))
          yield* until(() => second.seen.length === 20)
          expectEvents([...first.seen, ...second.seen], yield* handle.ledger.events)
        }))

      it.scopedLive("who waits to try again, for longer than the lease, keeps it", () =>
        Effect.gen(function*() {
          const handle = yield* open(consumers())
          yield* handle.ledger.append(event("poison"))
          const tries: Array<string> = []
          const contend = (who: string) =>
            consume(handle, {
              delivery,
              lease: "1 second",
              retry: Schedule.intersect(Schedule.spaced("1500 millis"), Schedule.recurs(2)),
              onFailure: "deadLetter",
              handler: ({ offset }) => Effect.zipRight(Effect.sync(() => tries.push(who)), new Refused({ offset }))
            })
          yield* contend("first")
          yield* until(() => tries.length === 1)
          yield* contend("second")
          yield* eventually(inContext(handle, Consumer.status), ([status]) =>
            status?.lag === 0 || tries.includes("second"))
          // another would begin again with the first try, and so for ever
          expect(tries).toStrictEqual(["first", "first", "first"])
          expect(yield* inContext(handle, Consumer.deadLetters("reader"))).toMatchObject([{ offset: 1, attempts: 1 }])
        }))

      it.scopedLive("a log that was reset is refused before anything is handled", () =>
        Effect.gen(function*() {
          const handle = yield* open(consumers())
          yield* handle.ledger.appendAll(events(5))
          const first = yield* consume(handle, { delivery })
          yield* until(() => first.seen.length === 5)
          yield* Fiber.interrupt(first.fiber)
          yield* handle.admin.reset
          yield* handle.ledger.appendAll(events(9, "other"))
          const second = yield* consume(handle, { delivery })
          expect(yield* failure(Fiber.join(second.fiber))).toMatchObject({ _tag: "LedgerReplaced", head: 9 })
          expect(second.seen).toHaveLength(0)
          yield* inContext(handle, Consumer.reset("reader"))
          const third = yield* consume(handle, { delivery })
          yield* until(() => third.seen.length === 9)
        }))
    })
  }

  it.scopedLive("a log with another event at the checkpoint is refused, though its incarnation is the same", () =>
    Effect.gen(function*() {
      const handle = yield* open(consumers())
      yield* handle.ledger.appendAll(events(5))
      const store = Context.get(handle.context, ConsumerStore)
      const acquired = yield* store.acquire({
        name: "reader",
        partition: 0,
        partitions: 1,
        holder: "somebody",
        millis: 1
      })
      if (acquired._tag !== "Acquired") return expect.fail("not acquired")
      const incarnation = yield* handle.ledger.incarnation
      // as a backup leaves it that was restored, and appended to since
      yield* store.save(acquired.lease, { incarnation, offset: 3, digest: "0".repeat(64) }, 1)
      yield* store.release(acquired.lease)
      const { fiber, seen } = yield* consume(handle)
      const error = yield* failure(Fiber.join(fiber))
      expect(error).toMatchObject({ _tag: "LedgerReplaced", expected: incarnation, found: incarnation })
      expect((error as Error).message).toContain("restored")
      expect(seen).toHaveLength(0)
    }))

  it.scopedLive("dead letters of a log that was reset are not replayed, also where nothing else was handled", () =>
    Effect.gen(function*() {
      const handle = yield* open(consumers())
      yield* handle.ledger.appendAll(events(5))
      const reached = yield* Effect.makeLatch()
      const { fiber } = yield* consume(handle, {
        onFailure: "deadLetter",
        handler: ({ offset }) => offset === 1 ? new Refused({ offset }) : Effect.zipRight(reached.open, Effect.never)
      })
      yield* reached.await
      yield* Fiber.interrupt(fiber)
      yield* handle.admin.reset
      yield* handle.ledger.appendAll(events(5, "other"))
      const again: Array<RecordedEvent> = []
      const replay = Consumer.replay({ name: "reader", handler: (one) => Effect.sync(() => again.push(one)) })
      expect(yield* failure(inContext(handle, replay))).toMatchObject({ _tag: "LedgerReplaced" })
      expect(again).toHaveLength(0)
    }))

  it.scopedLive("who begins in the middle and fails at once goes on from there", () =>
    Effect.gen(function*() {
      const handle = yield* open(consumers())
      yield* handle.ledger.appendAll(events(5))
      const reached = yield* Effect.makeLatch()
      const { fiber } = yield* consume(handle, {
        after: 3,
        onFailure: "deadLetter",
        handler: ({ offset }) => offset === 4 ? new Refused({ offset }) : Effect.zipRight(reached.open, Effect.never)
      })
      yield* reached.await
      yield* Fiber.interrupt(fiber)
      const { seen } = yield* consume(handle)
      yield* until(() => seen.some(({ offset }) => offset === 5))
      const replay = Consumer.replay({ name: "reader", handler: () => Effect.void })
      expect(yield* inContext(handle, replay)).toMatchObject({ handled: 1, failed: 0 })
    }))

  it.scopedLive("a checkpoint passes over what the filter keeps back", () =>
    Effect.gen(function*() {
      const handle = yield* open(consumers())
      yield* handle.ledger.append(event("one", { actor: "bob" }))
      yield* handle.ledger.appendAll(events(500))
      const { seen } = yield* consume(handle, { filter: { actors: ["bob"] } })
      yield* eventually(inContext(handle, Consumer.status), ([status]) => status?.lag === 0)
      expect(offsets(seen)).toStrictEqual([1])
    }))

  it.scopedLive("a new name begins where it is told", () =>
    Effect.gen(function*() {
      const handle = yield* open(consumers())
      yield* handle.ledger.appendAll(events(10))
      const { seen } = yield* consume(handle, { after: 7 })
      yield* until(() => seen.length === 3)
      expect(offsets(seen)).toStrictEqual([8, 9, 10])
      const beyond = yield* consume(handle, { name: "beyond", after: 11 })
      expect(yield* failure(Fiber.join(beyond.fiber))).toMatchObject({ _tag: "LedgerReplaced" })
    }))

  it.scopedLive("partitions: each run is handled by one member, in order, and all of them by those that are alive", () =>
    Effect.gen(function*() {
      const handle = yield* open(consumers())
      const mixed = (prefix: string) =>
        Array.from({ length: 200 }, (_, n) => event(`${prefix}-${n}`, { runId: `run-${n % 23}` }))
      yield* handle.ledger.appendAll(mixed("past"))
      const first = yield* consume(handle, { groups: 4 })
      const second = yield* consume(handle, { groups: 4 })
      const seen = () => [...first.seen, ...second.seen]
      // what was handled when a member was interrupted may be handled again
      const distinct = (count: number) => until(() => new Set(offsets(seen())).size === count)
      yield* distinct(200)
      // two of the four each, sooner or later
      yield* eventually(inContext(handle, Consumer.status), (all) => {
        const holders = all.map(({ holder }) => holder)
        return all.length === 4 && new Set(holders).size === 2 &&
          holders.every((one) => one !== null && holders.filter((other) => other === one).length === 2)
      })
      yield* handle.ledger.appendAll(mixed("live"))
      yield* distinct(400)
      expect(second.seen.length).toBeGreaterThan(0)
      yield* Fiber.interrupt(second.fiber)
      yield* handle.ledger.appendAll(mixed("late"))
      yield* distinct(600)
      for (const { seen } of [first, second]) {
        for (const runId of yield* handle.ledger.runs) {
          const own = offsets(seen.filter((one) => one.runId === runId))
          expect(own).toStrictEqual(own.toSorted((self, that) => self - that))
        }
      }
      const other = yield* consume(handle, { groups: 3 })
      const error = yield* failure(Fiber.join(other.fiber))
      expect(error).toMatchObject({ _tag: "InvalidQuery", path: "groups" })
    }))

  it.scopedLive("bad options are refused by name", () =>
    Effect.gen(function*() {
      const handle = yield* open(consumers())
      const refused = (options: Partial<Consumer.Options<Refused, never>>) =>
        Effect.flatMap(consume(handle, options), ({ fiber }) => failure(Fiber.join(fiber)))
      const path = (path: string) => ({ _tag: "InvalidQuery", path })
      expect(yield* refused({ name: "" })).toMatchObject(path("name"))
      expect(yield* refused({ batch: 0 })).toMatchObject(path("batch"))
      expect(yield* refused({ groups: 1.5 })).toMatchObject(path("groups"))
      expect(yield* refused({ lease: "1 millis" })).toMatchObject(path("lease"))
      expect(yield* refused({ after: -1 })).toMatchObject(path("after"))
      expect(yield* refused({ filter: { kinds: [] } })).toMatchObject(path("filter.kinds"))
    }))

  it.scopedLive("a consumer that is run is not reset", () =>
    Effect.gen(function*() {
      const handle = yield* open(consumers())
      yield* handle.ledger.append(event("one"))
      const { fiber, seen } = yield* consume(handle)
      yield* until(() => seen.length === 1)
      expect(yield* failure(inContext(handle, Consumer.reset("reader")))).toMatchObject({ _tag: "ConsumerActive" })
      yield* Fiber.interrupt(fiber)
      yield* inContext(handle, Consumer.reset("reader"))
      expect(yield* inContext(handle, Consumer.status)).toStrictEqual([])
    }))

  describe("the port", () => {
    it.scopedLive("a lease is held, expires, and is fenced", () =>
      Effect.gen(function*() {
        const handle = yield* open(consumers())
        const store = Context.get(handle.context, ConsumerStore)
        const acquire = (holder: string, millis: number) =>
          store.acquire({ name: "leased", partition: 0, partitions: 1, holder, millis })
        const position = { incarnation: yield* handle.ledger.incarnation, offset: 0, digest: null }
        const first = yield* acquire("first", 200)
        if (first._tag !== "Acquired") return expect.fail("not acquired")
        expect(first.position).toBeNull()
        expect(yield* acquire("second", 60_000)).toStrictEqual({ _tag: "Held" })
        expect(yield* store.save(first.lease, position, 200)).toBe(true)
        const second = yield* eventually(acquire("second", 60_000), ({ _tag }) => _tag === "Acquired")
        if (second._tag !== "Acquired") return expect.fail("not acquired")
        expect(second.position).toStrictEqual(position)
        expect(second.lease.token).toBeGreaterThan(first.lease.token)
        expect(yield* store.save(first.lease, position, 200)).toBe(false)
        expect(yield* store.renew(first.lease, 200)).toBe(false)
        expect(yield* store.bury(first.lease, 1, "reason")).toBe(false)
        yield* store.release(first.lease)
        expect(yield* acquire("third", 200)).toStrictEqual({ _tag: "Held" })
        expect(yield* store.renew(second.lease, 60_000)).toBe(true)
        yield* store.release(second.lease)
        expect(yield* acquire("third", 200)).toMatchObject({ _tag: "Acquired" })
        expect(yield* store.acquire({ name: "leased", partition: 2, partitions: 3, holder: "x", millis: 1 }))
          .toStrictEqual({ _tag: "Divided", partitions: 1 })
      }))

    it.scopedLive("a dead letter counts its failures, and one that is settled stays away", () =>
      Effect.gen(function*() {
        const handle = yield* open(consumers())
        const store = Context.get(handle.context, ConsumerStore)
        const acquired = yield* store.acquire({
          name: "failing",
          partition: 0,
          partitions: 1,
          holder: "first",
          millis: 60_000
        })
        if (acquired._tag !== "Acquired") return expect.fail("not acquired")
        expect(yield* store.bury(acquired.lease, 3, "first")).toBe(true)
        expect(yield* store.bury(acquired.lease, 3, "second")).toBe(true)
        expect(yield* store.deadLetters("failing", 0)).toMatchObject([{ offset: 3, attempts: 2, reason: "second" }])
        yield* store.failAgain("failing", 3, "third")
        expect(yield* store.deadLetters("failing", 0)).toMatchObject([{ offset: 3, attempts: 3, reason: "third" }])
        expect(yield* store.settle("failing", 3)).toBe(true)
        expect(yield* store.settle("failing", 3)).toBe(false)
        yield* store.failAgain("failing", 3, "of another replay")
        expect(yield* store.deadLetters("failing", 0)).toStrictEqual([])
      }))

    it.scopedLive("a transaction that fails leaves nothing, and nobody else sees what is not committed", () =>
      Effect.gen(function*() {
        const handle = yield* open(consumers())
        yield* handle.ledger.appendAll(events(3))
        const store = Context.get(handle.context, ConsumerStore)
        const acquired = yield* store.acquire({
          name: "fenced",
          partition: 0,
          partitions: 1,
          holder: "first",
          millis: 60_000
        })
        if (acquired._tag !== "Acquired") return expect.fail("not acquired")
        const incarnation = yield* handle.ledger.incarnation
        const work = Effect.zipRight(
          store.save(acquired.lease, { incarnation, offset: 3, digest: "0".repeat(64) }, 60_000),
          handle.ledger.appendAll(events(4, "inside"))
        )
        const inside = Effect.zipRight(work, handle.ledger.latestOffset)
        expect(yield* failure(handle.store.transaction(Effect.zipRight(inside, Effect.fail("undo"))))).toBe("undo")
        expect(yield* handle.ledger.latestOffset).toBe(3)
        expect(yield* store.consumers).toMatchObject([{ name: "fenced", position: null, holder: "first" }])
        expect(yield* handle.store.transaction(inside)).toBe(7)
        expect(yield* store.consumers).toMatchObject([{ name: "fenced", position: { incarnation, offset: 3 } }])
        expect(yield* handle.ledger.latestOffset).toBe(7)
        const stopped = yield* Effect.makeLatch()
        const endless = yield* Effect.fork(
          handle.store.transaction(Effect.zipRight(inside, Effect.zipRight(stopped.open, Effect.never)))
        )
        yield* stopped.await
        yield* Fiber.interrupt(endless)
        expect(yield* handle.ledger.latestOffset).toBe(7)
      }))
  })

  if (backend.client !== undefined) {
    const { client } = backend
    it.scopedLive("exactly once: what the handler writes and the checkpoint are one, however often it fails", () =>
      Effect.gen(function*() {
        const handle = yield* open(client())
        const { note, notes } = Context.get(handle.context, Client)
        yield* handle.ledger.appendAll(events(60))
        let call = 0
        const { seen } = yield* consume(handle, {
          delivery: "exactlyOnce",
          batch: 7,
          retry: Schedule.forever,
          handler: (one) =>
            Effect.zipRight(
              Effect.orDie(note(one.id)),
              // after it has written
              Effect.suspend(() => ++call % 5 === 0 ? new Refused({ offset: one.offset }) : Effect.void)
            )
        })
        yield* until(() => seen.some(({ offset }) => offset === 60))
        yield* eventually(inContext(handle, Consumer.status), ([status]) => status?.lag === 0)
        expect(yield* notes).toStrictEqual(events(60).map(({ id }) => id))
      }))

    it.scopedLive("exactly once: a statement may fail in a transaction of its own within the handler", () =>
      Effect.gen(function*() {
        const handle = yield* open(client())
        const { note, notes, transaction } = Context.get(handle.context, Client)
        yield* handle.ledger.appendAll(events(9))
        yield* consume(handle, {
          delivery: "exactlyOnce",
          batch: 3,
          handler: (one) =>
            Effect.zipRight(Effect.orDie(note(one.id)), Effect.ignore(transaction(note(null as unknown as string))))
        })
        yield* eventually(inContext(handle, Consumer.status), ([status]) => status?.lag === 0)
        expect(yield* notes).toStrictEqual(events(9).map(({ id }) => id))
      }))

    it.scopedLive("exactly once: a handler that hides a failed statement loses no event", () =>
      Effect.gen(function*() {
        const handle = yield* open(client())
        const { note, notes } = Context.get(handle.context, Client)
        yield* handle.ledger.appendAll(events(9))
        const hide = (one: RecordedEvent) =>
          Effect.zipRight(
            Effect.orDie(note(one.id)),
            // with it, Postgres has given up the whole transaction, and answers COMMIT with a rollback
            one.offset % 3 === 0 ? Effect.ignore(note(null as unknown as string)) : Effect.void
          )
        const { fiber } = yield* consume(handle, { delivery: "exactlyOnce", batch: 3, handler: hide })
        const [status] = yield* eventually(inContext(handle, Consumer.status), ([status]) =>
          status?.lag === 0 || fiber.unsafePoll() !== null)
        // either it is as if nothing had failed, or the consumer stops: what is passed is written
        expect(yield* notes).toStrictEqual(
          events(9).map(({ id }) =>
            id
          ).slice(0, status?.offset ?? 0)
        )
        if (status?.lag !== 0) {
          const error = yield* failure(Fiber.join(fiber))
          expect(error).toMatchObject({ _tag: "StoreFailure", method: "transaction" })
        }
      }))
  }

  if (backend.stored !== undefined) {
    const { stored } = backend
    it.scopedLive("another handle takes over from one that died without a word", () =>
      Effect.gen(function*() {
        const layer = stored()
        const other = yield* open(layer)
        yield* other.ledger.appendAll(events(30))
        const scope = yield* Scope.make()
        const dying = yield* Scope.extend(open(layer), scope)
        // what a process leaves that was killed: a lease, and a checkpoint
        const store = Context.get(
          dying.context as Context.Context<never> as Context.Context<ConsumerStore>,
          ConsumerStore
        )
        const acquired = yield* store.acquire({
          name: "reader",
          partition: 0,
          partitions: 1,
          holder: "dead",
          millis: 300
        })
        expect(acquired._tag).toBe("Acquired")
        yield* Scope.close(scope, Exit.void)
        const { seen } = yield* consume(other)
        yield* until(() => seen.length === 30)
      }))
  }
}

/** Laws 15 and 16: who follows the log misses nothing, sees nothing twice, and sees it in order. */
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as Stream from "effect/Stream"
import type { RecordedEvent } from "../../src/Event.js"
import type { Followed } from "../../src/Ledger.js"
import { StoreUnavailable } from "../../src/LedgerError.js"
import * as LedgerMetrics from "../../src/LedgerMetrics.js"
import { LedgerStore } from "../../src/LedgerStore.js"
import * as StoreLedger from "../../src/StoreLedger.js"
import { type Backend, Client } from "./Backend.js"
import { event, events } from "./fixtures.js"
import { collect, eventually, expectEvents, failure, type Handle, open, recordedAt, type Store } from "./handle.js"

/** Waits for no hint and no second: what is under test has to notice by itself. */
const impatient = (store: Store, change: Partial<Store> = {}) =>
  StoreLedger.layerWith({ pollInterval: "5 millis" }).pipe(
    Layer.provideMerge(Layer.succeed(LedgerStore, { ...store, ...change }))
  )

const first = (handle: Handle, count: number, after = 0) =>
  collect(handle.ledger.subscribe({ after }).pipe(Stream.take(count)))

export const subscribing = (backend: Backend): void => {
  it.scopedLive("law 15: a subscriber is given the past, then what is appended, in order", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      yield* handle.ledger.appendAll(events(5, "past"))
      const reading = yield* Effect.fork(first(handle, 8, 2))
      for (const one of events(5, "live")) yield* handle.ledger.append(one)
      expectEvents(yield* reading, recordedAt(3, [...events(5, "past").slice(2), ...events(5, "live")]))
    }))

  it.scopedLive("law 15: several subscribers, fast and slow, see exactly the log while many write", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const count = 8 * 40 * 3
      const slow = handle.ledger.subscribe().pipe(
        Stream.rechunk(1),
        Stream.tap((one) => one.offset % 50 === 0 ? Effect.sleep("2 millis") : Effect.void),
        Stream.take(count)
      )
      const subscribers = yield* Effect.forEach(
        [first(handle, count), first(handle, count), collect(slow)],
        (subscriber) => Effect.fork(subscriber)
      )
      yield* Effect.forEach(
        Array.from({ length: 8 }, (_, writer) => writer),
        (writer) =>
          Effect.forEach(
            Array.from({ length: 40 }, (_, n) => n),
            (n) => handle.ledger.appendAll(events(3, `w${writer}-${n}`)),
            { discard: true }
          ),
        {
          concurrency: "unbounded",
          discard: true
        }
      )
      // a late one has it all from the past
      const late = yield* first(handle, count)
      const log = yield* handle.ledger.events
      for (const seen of [...(yield* Effect.forEach(subscribers, Fiber.join)), late]) expectEvents(seen, log)
    }))

  it.scopedLive("law 15: a subscriber that falls thousands behind goes back to the log", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const seen: Array<RecordedEvent> = []
      const gate = yield* Effect.makeLatch()
      const reading = yield* handle.ledger.subscribe().pipe(
        Stream.take(7001),
        Stream.runForEach((one) => {
          seen.push(one)
          return one.offset === 1 ? gate.await : Effect.void
        }),
        Effect.fork
      )
      yield* handle.ledger.append(event("first"))
      for (let batch = 0; batch < 7; batch++) yield* handle.ledger.appendAll(events(1000, `batch${batch}`))
      yield* gate.open
      yield* reading
      expectEvents(seen, yield* handle.ledger.events)
    }))

  it.scopedLive("law 15: a filter is applied to the past and to what comes", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const mixed = (prefix: string) => [
        event(`${prefix}-1`, { actor: "ada" }),
        event(`${prefix}-2`, { actor: "bob" }),
        event(`${prefix}-3`, { actor: "cy", kind: "run.finished" })
      ]
      yield* handle.ledger.appendAll(mixed("past"))
      const filter = [{ actors: ["bob"] }, { kinds: ["run.finished"] }]
      const reading = yield* Effect.fork(collect(handle.ledger.subscribe({ filter }).pipe(Stream.take(4))))
      yield* handle.ledger.appendAll(mixed("live"))
      expect((yield* reading).map(({ offset }) => offset)).toStrictEqual([2, 3, 5, 6])
    }))

  it.scopedLive("law 15: follow tells how far behind a reader is, and when it has caught up", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      yield* handle.ledger.appendAll(events(2500))
      const told: Array<Followed> = []
      yield* handle.ledger.follow().pipe(
        Stream.takeUntil((one) => one._tag === "CaughtUp"),
        Stream.runForEach((one) => Effect.sync(() => told.push(one)))
      )
      expect(told.filter((one) => one._tag !== "Recorded")).toStrictEqual([
        expect.objectContaining({ _tag: "Behind", lag: 2500 }),
        expect.objectContaining({ _tag: "Behind", lag: 1500 }),
        expect.objectContaining({ _tag: "CaughtUp", head: 2500 })
      ])
      expect(told.filter((one) => one._tag === "Recorded")).toHaveLength(2500)
      // an event that its filter keeps back still moves the head
      const filtered = yield* Effect.fork(
        handle.ledger.follow({ after: 2500, filter: { actors: ["nobody"] } }).pipe(Stream.take(2), collect)
      )
      yield* Effect.yieldNow()
      yield* Effect.sleep("20 millis")
      yield* handle.ledger.append(event("more"))
      expect(yield* filtered).toStrictEqual([
        expect.objectContaining({ _tag: "CaughtUp", head: 2500 }),
        expect.objectContaining({ _tag: "CaughtUp", head: 2501 })
      ])
    }))

  it.scopedLive("law 15: a cursor of another log, and a reset meanwhile, fail LedgerReplaced", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      yield* handle.ledger.appendAll(events(3))
      const beyond = yield* failure(Stream.runDrain(handle.ledger.subscribe({ after: 4 })))
      expect(beyond).toMatchObject({ _tag: "LedgerReplaced", expected: null, head: 3 })
      const foreign = yield* failure(
        Stream.runDrain(handle.ledger.subscribe({ after: { after: 1, incarnation: "x" } }))
      )
      expect(foreign).toMatchObject({ _tag: "LedgerReplaced", expected: "x" })
      const read = yield* Effect.makeLatch()
      const reading = yield* handle.ledger.subscribe().pipe(
        Stream.runForEach((one) => one.offset === 3 ? read.open : Effect.void),
        failure,
        Effect.fork
      )
      yield* read.await
      yield* handle.admin.reset
      // grown again to the same length, so that only the incarnation tells
      yield* handle.ledger.appendAll(events(3, "other"))
      expect(yield* reading).toMatchObject({ _tag: "LedgerReplaced", found: yield* handle.ledger.incarnation })
    }))

  it.scopedLive("law 15: a log that was restored and has grown again, with the same incarnation, fails LedgerReplaced", () =>
    Effect.gen(function*() {
      const before = yield* open(backend.layer())
      const after = yield* open(backend.layer())
      yield* before.ledger.appendAll(events(5))
      // the backup had three of them
      yield* after.ledger.appendAll([...events(3), ...events(4, "other")])
      let store = before.store
      const incarnation = "the same"
      const reader = yield* open(impatient(before.store, {
        page: (request) => Effect.map(store.page(request), (page) => Object.assign({}, page, { incarnation })),
        head: Effect.suspend(() => Effect.map(store.head, (head) => Object.assign({}, head, { incarnation })))
      }))
      const caughtUp = yield* Effect.makeLatch()
      const seen: Array<string> = []
      const reading = yield* reader.ledger.follow().pipe(
        Stream.runForEach((one) => {
          if (one._tag === "Recorded") seen.push(one.event.id)
          return one._tag === "CaughtUp" ? caughtUp.open : Effect.void
        }),
        failure,
        Effect.fork
      )
      yield* caughtUp.await
      store = after.store
      expect(yield* reading).toMatchObject({ _tag: "LedgerReplaced", expected: incarnation, found: incarnation })
      expect(seen).toStrictEqual(events(5).map(({ id }) => id))
    }))

  it.scopedLive("law 15: bad options are refused by name", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      expect(yield* failure(Stream.runDrain(ledger.subscribe({ after: -1 })))).toMatchObject({
        _tag: "InvalidQuery",
        path: "after"
      })
      expect(yield* failure(Stream.runDrain(ledger.subscribe({ filter: { kinds: [] } })))).toMatchObject({
        _tag: "InvalidQuery",
        path: "filter.kinds"
      })
    }))

  it.scopedLive("law 16: without a single hint everything is noticed all the same", () =>
    Effect.gen(function*() {
      const writer = yield* open(backend.layer())
      const reader = yield* open(impatient(writer.store, { changes: Stream.never }))
      const reading = yield* Effect.fork(first(reader, 20))
      for (const one of events(20)) yield* writer.ledger.append(one)
      expectEvents(yield* reading, recordedAt(1, events(20)))
    }))

  it.scopedLive("law 16: hints for nothing give nothing", () =>
    Effect.gen(function*() {
      const writer = yield* open(backend.layer())
      const reader = yield* open(
        impatient(writer.store, { changes: Stream.forever(Stream.fromEffect(Effect.yieldNow())) })
      )
      const reading = yield* Effect.fork(first(reader, 20))
      for (const one of events(20)) yield* writer.ledger.append(one)
      expectEvents(yield* reading, recordedAt(1, events(20)))
    }))

  it.scopedLive("law 15: while the store is away a subscriber waits, says so once, and goes on", () => {
    const lines: Array<string> = []
    const logger = Logger.replace(
      Logger.defaultLogger,
      Logger.make(({ message }) => {
        lines.push(String(message))
      })
    )
    return Effect.gen(function*() {
      const { store } = yield* open(backend.layer())
      let away = false
      let refused = 0
      const whileHere = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E | StoreUnavailable> =>
        Effect.suspend((): Effect.Effect<A, E | StoreUnavailable> => {
          if (!away) return effect
          refused++
          return new StoreUnavailable({ reason: "away" })
        })
      const reader = yield* open(impatient(store, {
        page: (request) => whileHere(store.page(request)),
        head: whileHere(store.head)
      }))
      const half = yield* Effect.makeLatch()
      const reading = yield* reader.ledger.subscribe().pipe(
        Stream.take(20),
        Stream.tap((one) => one.offset === 10 ? half.open : Effect.void),
        collect,
        Effect.fork
      )
      yield* reader.ledger.appendAll(events(10))
      yield* half.await
      const outages = Metric.value(LedgerMetrics.outages)
      const before = yield* outages
      away = true
      // so that no look is on its way that could see what comes
      yield* eventually(Effect.void, () => refused >= 1)
      yield* reader.ledger.appendAll(events(10, "later"))
      yield* eventually(Effect.void, () => refused >= 3)
      away = false
      expectEvents(yield* reading, recordedAt(1, [...events(10), ...events(10, "later")]))
      expect(lines.filter((line) => line.includes("is away"))).toHaveLength(1)
      expect(lines.filter((line) => line.includes("is back"))).toHaveLength(1)
      expect((yield* outages).count - before.count).toBe(1)
    }).pipe(Effect.provide(logger))
  })

  it.scopedLive("law 15: a store that is lost between two pages of one look is no other log", () =>
    Effect.gen(function*() {
      const writer = yield* open(backend.layer())
      let calls = 0
      const reader = yield* open(impatient(writer.store, {
        page: (request) =>
          Effect.suspend((): ReturnType<Store["page"]> =>
            ++calls % 3 === 0 ? new StoreUnavailable({ reason: "lost" }) : writer.store.page(request)
          )
      })).pipe(Logger.withMinimumLogLevel(LogLevel.Error))
      const caughtUp = yield* Effect.makeLatch()
      const seen: Array<RecordedEvent> = []
      const reading = yield* reader.ledger.follow().pipe(
        Stream.takeUntil((one) => one._tag === "CaughtUp" && one.head === 3500),
        Stream.runForEach((one) => {
          if (one._tag === "Recorded") seen.push(one.event)
          return one._tag === "CaughtUp" ? caughtUp.open : Effect.void
        }),
        Logger.withMinimumLogLevel(LogLevel.Error),
        Effect.fork
      )
      yield* caughtUp.await
      // more than one page, in one piece
      yield* writer.ledger.appendAll(events(3500))
      yield* reading
      expectEvents(seen, recordedAt(1, events(3500)))
    }))

  it.scopedLive("law 9: a subscriber that catches up is in one page, has the next at hand, and asks for none twice", () =>
    Effect.gen(function*() {
      const { store } = yield* open(backend.layer())
      const asked: Array<number> = []
      const reader = yield* open(impatient(store, {
        readsAhead: true,
        page: (request) => Effect.zipRight(Effect.sync(() => asked.push(request.after)), store.page(request))
      }))
      yield* reader.ledger.appendAll(events(4500))
      let seen = 0
      yield* Stream.runForEach(Stream.take(reader.ledger.subscribe(), 4500), () =>
        Effect.sync(() => {
          seen++
          expect(asked.filter((after) => after < 4500).length).toBe(Math.min(Math.ceil(seen / 1000) + 1, 5))
        }))
      expect(asked.filter((after) => after < 4500)).toStrictEqual([0, 1000, 2000, 3000, 4000])
    }))

  it.scopedLive("law 15: a store that is away while a subscriber catches up is waited for", () =>
    Effect.gen(function*() {
      const { store } = yield* open(backend.layer())
      let calls = 0
      const reader = yield* open(impatient(store, {
        readsAhead: true,
        page: (request) =>
          Effect.suspend((): ReturnType<Store["page"]> =>
            request.after === 2000 && ++calls <= 3 ? new StoreUnavailable({ reason: "away" }) : store.page(request)
          )
      }))
      yield* reader.ledger.appendAll(events(3500))
      expectEvents(yield* first(reader, 3500), recordedAt(1, events(3500)))
      expect(calls).toBe(4)
    }).pipe(Logger.withMinimumLogLevel(LogLevel.Error)))

  it.scopedLive("law 15: the log is watched from the first subscriber to the last, and not beyond", () =>
    Effect.gen(function*() {
      const { store } = yield* open(backend.layer())
      let looks = 0
      const reader = yield* open(impatient(store, {
        changes: Stream.never,
        page: (request) => Effect.zipRight(Effect.sync(() => looks++), store.page(request))
      }))
      yield* Effect.sleep("30 millis")
      expect(looks).toBe(0)
      yield* reader.ledger.append(event("one"))
      expect(yield* Effect.all([first(reader, 1), first(reader, 1)], { concurrency: 2 })).toHaveLength(2)
      yield* Effect.sleep("30 millis")
      const before = looks
      yield* Effect.sleep("30 millis")
      expect(looks).toBe(before)
    }))

  if (backend.stored !== undefined) {
    const { stored } = backend
    it.scopedLive("law 15: what another handle appends is seen", () =>
      Effect.gen(function*() {
        const layer = stored()
        const reader = yield* open(layer)
        const writer = yield* open(layer)
        const reading = yield* Effect.fork(first(reader, 30))
        for (const one of events(30)) yield* writer.ledger.append(one)
        expectEvents(yield* reading, recordedAt(1, events(30)))
      }))
  }

  if (backend.client !== undefined) {
    const { client } = backend
    describe("law 12 and 15: the caller's transaction", () => {
      it.scopedLive("a subscriber sees what was committed, and never what was rolled back", () =>
        Effect.gen(function*() {
          const handle = yield* open(client())
          const { transaction } = Context.get(handle.context, Client)
          const reading = yield* Effect.fork(first(handle, 3))
          yield* Effect.ignore(
            transaction(Effect.zipRight(handle.ledger.appendAll(events(5, "undone")), Effect.fail("roll back")))
          )
          yield* transaction(handle.ledger.appendAll(events(3)))
          expectEvents(yield* reading, recordedAt(1, events(3)))
        }))

      it.scopedLive("law 11: a damaged event ends the subscription at its offset, after those before it", () =>
        Effect.gen(function*() {
          const handle = yield* open(client())
          yield* handle.ledger.appendAll(events(3))
          yield* Context.get(handle.context, Client).damage(2, "payload", "[]")
          const seen: Array<number> = []
          const error = yield* failure(
            Stream.runForEach(handle.ledger.subscribe(), ({ offset }) => Effect.sync(() => seen.push(offset)))
          )
          expect(error).toMatchObject({ _tag: "CorruptEvent", offset: 2 })
          expect(seen).toStrictEqual([1])
        }))
    })
  }
}

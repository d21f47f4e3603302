/** Laws 1, 2 and 4: what an append answers, once and again. */
import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type { Event } from "../../src/Event.js"
import * as Ledger from "../../src/Ledger.js"
import { StoreUnavailable } from "../../src/LedgerError.js"
import * as LedgerMetrics from "../../src/LedgerMetrics.js"
import type { Backend } from "./Backend.js"
import { event, events, worldEvent } from "./fixtures.js"
import { expectEvents, expectGapless, expectHistory, failure, open, recordedAt, shared, wrapped } from "./handle.js"

export const identity = (backend: Backend): void => {
  it.scopedLive("law 1: an unseen id is Appended, at the next offset", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const [first, second] = [event("first"), event("second")]
      expect(yield* handle.ledger.append(first)).toStrictEqual(Ledger.Receipt.Appended({ id: "first", offset: 1 }))
      expect(yield* handle.ledger.append(second)).toStrictEqual(Ledger.Receipt.Appended({ id: "second", offset: 2 }))
      yield* expectHistory(handle, [first, second])
    }))

  it.scopedLive("the accessors of the module ask the ledger in the context", () =>
    Effect.gen(function*() {
      const { context, store } = yield* open(backend.layer())
      const [one, two, three] = [event("one"), event("two", { runId: "run-2" }), event("three")]
      yield* Effect.provide(
        Effect.gen(function*() {
          expect(yield* Ledger.append(one)).toStrictEqual(Ledger.Receipt.Appended({ id: "one", offset: 1 }))
          expect(yield* Ledger.appendAll([two])).toStrictEqual([Ledger.Receipt.Appended({ id: "two", offset: 2 })])
          expect(yield* Ledger.appendIf({ noneMatch: {}, after: 2 }, [three])).toStrictEqual([
            Ledger.Receipt.Appended({ id: "three", offset: 3 })
          ])
          expectEvents(yield* Ledger.events, recordedAt(1, [one, two, three]))
          expectEvents(yield* Ledger.eventsForRun("run-2"), recordedAt(2, [two]))
          expectEvents(Option.toArray(yield* Ledger.get("three")), recordedAt(3, [three]))
          expect(yield* Ledger.runs).toStrictEqual(["run-1", "run-2"])
          expect(yield* Ledger.latestOffset).toBe(3)
          expect(yield* Ledger.incarnation).toBe((yield* store.head).incarnation)
        }),
        context
      )
    }))

  it.scopedLive("law 2: a known id is Duplicate at its first offset, and nothing is written", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const [first, second] = [event("first"), event("second")]
      yield* handle.ledger.appendAll([first, second])
      expect(yield* handle.ledger.append(first)).toStrictEqual(
        Ledger.Receipt.Duplicate({ id: "first", offset: 1, identical: true })
      )
      expect(yield* handle.ledger.append(second)).toStrictEqual(
        Ledger.Receipt.Duplicate({ id: "second", offset: 2, identical: true })
      )
      yield* expectHistory(handle, [first, second])
    }))

  it.scopedLive("law 2: an id that stands twice in a batch is a duplicate of its first place", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const [one, two] = [event("one"), event("two")]
      expect(yield* handle.ledger.appendAll([one, one, two, one, two])).toStrictEqual([
        Ledger.Receipt.Appended({ id: "one", offset: 1 }),
        Ledger.Receipt.Duplicate({ id: "one", offset: 1, identical: true }),
        Ledger.Receipt.Appended({ id: "two", offset: 2 }),
        Ledger.Receipt.Duplicate({ id: "one", offset: 1, identical: true }),
        Ledger.Receipt.Duplicate({ id: "two", offset: 2, identical: true })
      ])
      yield* expectHistory(handle, [one, two])
    }))

  it.scopedLive("law 2: known, new and repeated ids in one batch each get their own receipt", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const known = events(3, "known")
      const fresh = events(3, "fresh")
      yield* handle.ledger.appendAll(known)
      const [a, b, c] = fresh as [Event, Event, Event]
      const receipts = yield* handle.ledger.appendAll([a, known[2]!, b, b, known[0]!, c, a])
      expect(receipts).toStrictEqual([
        Ledger.Receipt.Appended({ id: a.id, offset: 4 }),
        Ledger.Receipt.Duplicate({ id: "known-3", offset: 3, identical: true }),
        Ledger.Receipt.Appended({ id: b.id, offset: 5 }),
        Ledger.Receipt.Duplicate({ id: b.id, offset: 5, identical: true }),
        Ledger.Receipt.Duplicate({ id: "known-1", offset: 1, identical: true }),
        Ledger.Receipt.Appended({ id: c.id, offset: 6 }),
        Ledger.Receipt.Duplicate({ id: a.id, offset: 4, identical: true })
      ])
      yield* expectHistory(handle, [...known, ...fresh])
    }))

  it.scopedLive("law 2: a large batch that is half recorded already writes the other half", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const all = events(1500)
      const before = all.filter((_, index) => index % 2 === 0)
      yield* handle.ledger.appendAll(before)
      const receipts = yield* handle.ledger.appendAll(all)
      expect(receipts).toStrictEqual(all.map(({ id }, index) =>
        index % 2 === 0
          ? Ledger.Receipt.Duplicate({ id, offset: index / 2 + 1, identical: true })
          : Ledger.Receipt.Appended({ id, offset: before.length + (index + 1) / 2 })
      ))
      yield* expectHistory(handle, [...before, ...all.filter((_, index) => index % 2 === 1)])
    }))

  it.scopedLive("law 2: of 64 fibers racing for one id exactly one appends", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const contested = event("contested")
      const receipts = yield* Effect.all(
        Array.from({ length: 64 }, () => handle.ledger.append(contested)),
        { concurrency: "unbounded" }
      )
      expect(receipts.filter(Ledger.Receipt.$is("Appended"))).toStrictEqual([
        Ledger.Receipt.Appended({ id: "contested", offset: 1 })
      ])
      expect(receipts.filter(Ledger.Receipt.$is("Duplicate"))).toStrictEqual(
        Array.from({ length: 63 }, () => Ledger.Receipt.Duplicate({ id: "contested", offset: 1, identical: true }))
      )
      yield* expectHistory(handle, [contested])
    }))

  it.scopedLive("law 2: when the acknowledgement was lost, the second try is a duplicate", () =>
    Effect.gen(function*() {
      let lost = 0
      const handle = yield* wrapped(backend, (store) => ({
        append: (groups) =>
          Effect.tap(
            store.append(groups),
            () => lost++ % 2 === 0 ? new StoreUnavailable({ reason: "the line went dead" }) : Effect.void
          )
      }))
      const [one, two] = [event("one"), event("two")]
      const batch = handle.ledger.appendAll([one])
      const error = yield* failure(batch)
      expect(error).toBeInstanceOf(StoreUnavailable)
      expect(yield* batch).toStrictEqual([Ledger.Receipt.Duplicate({ id: "one", offset: 1, identical: true })])

      const decided = handle.ledger.appendIf({ noneMatch: { runId: "run-1" }, after: 1 }, [two])
      expect(yield* failure(decided)).toBeInstanceOf(StoreUnavailable)
      expect(yield* decided).toStrictEqual([Ledger.Receipt.Duplicate({ id: "two", offset: 2, identical: true })])
      yield* expectHistory(handle, [one, two])
    }))

  it.scopedLive("law 4: an empty batch writes nothing and has no receipts", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      expect(yield* handle.ledger.appendAll([])).toStrictEqual([])
      yield* expectHistory(handle, [])
    }))

  it.scopedLive("law 4: a batch may be any iterable, and is read once each time the effect runs", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const all = events(3)
      const set = new Set(all)
      const batch = handle.ledger.appendAll(set)
      yield* expectHistory(handle, [])
      yield* batch
      const late = event("late")
      set.add(late)
      expect((yield* batch).map((receipt) => receipt._tag)).toStrictEqual([
        "Duplicate",
        "Duplicate",
        "Duplicate",
        "Appended"
      ])
      yield* expectHistory(handle, [...all, late])
    }))

  it.scopedLive("law 4: an invalid event fails its batch before anything is written", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const batch = [event("one"), event("two"), event("three", { turn: -1 }), event("four", { actor: "" })]
      const error = yield* failure(handle.ledger.appendAll(batch))
      expect(error).toMatchObject({ _tag: "InvalidEvent", index: 2, path: "turn" })
      yield* expectHistory(handle, [])
      expect(yield* handle.ledger.get("one")).toStrictEqual(Option.none())
      expect(yield* handle.ledger.append(event("one"))).toStrictEqual(
        Ledger.Receipt.Appended({ id: "one", offset: 1 })
      )
    }))

  it.scopedLive("law 4: 100,000 events are one atomic append, with receipts in order", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const count = 100_000
      const batch = Array.from({ length: count }, (_, index) => event(`event-${index + 1}`))
      const fiber = yield* Effect.fork(handle.ledger.appendAll(batch))
      const heads = new Set<number>()
      while ((yield* fiber.poll)._tag === "None") {
        heads.add(yield* handle.ledger.latestOffset)
        yield* Effect.yieldNow()
      }
      const receipts = yield* fiber
      expect(receipts.length).toBe(count)
      const misplaced = receipts.findIndex((receipt, index) =>
        receipt._tag !== "Appended" || receipt.offset !== index + 1 || receipt.id !== batch[index]!.id
      )
      expect(misplaced).toBe(-1)
      expect([0, count]).toEqual(expect.arrayContaining(Array.from(heads)))
      expect(yield* handle.ledger.latestOffset).toBe(count)
      expectEvents(
        Option.toArray(yield* handle.ledger.get("event-77777")),
        recordedAt(77777, [batch[77776]!])
      )
      expect(yield* handle.ledger.append(batch[count - 1]!)).toStrictEqual(
        Ledger.Receipt.Duplicate({ id: `event-${count}`, offset: count, identical: true })
      )
    }), 120_000)

  it.scopedLive("what was appended and what was a duplicate is counted", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      const counters = Effect.all([
        Metric.value(LedgerMetrics.appended),
        Metric.value(LedgerMetrics.duplicates),
        Metric.value(LedgerMetrics.divergent)
      ])
      const before = yield* counters
      yield* ledger.appendAll(events(5))
      yield* ledger.appendAll(events(3))
      yield* ledger.append(event("event-1", { turn: 99 }))
      const after = yield* counters
      expect(after.map(({ count }, index) => count - before[index]!.count)).toStrictEqual([5, 4, 1])
    }))

  const model = shared(backend.layer)
  const batches = FastCheck.array(
    FastCheck.array(worldEvent(FastCheck.constantFrom("a", "b", "c", "d", "e", "f")), { maxLength: 5 }),
    { maxLength: 6 }
  )

  it.live.prop(
    "laws 2, 3 and 5: any sequence of batches answers as the definition says",
    { batches },
    ({ batches }) =>
      Effect.gen(function*() {
        const handle = yield* model
        yield* handle.admin.reset
        const log: Array<Event> = []
        for (const batch of batches) {
          const expected = batch.map((one) => {
            const { id } = one
            const place = log.findIndex((known) => known.id === id)
            return place < 0
              ? Ledger.Receipt.Appended({ id, offset: log.push(one) })
              : Ledger.Receipt.Duplicate({ id, offset: place + 1, identical: isSameStep(log[place]!, one) })
          })
          expect(yield* handle.ledger.appendAll(batch)).toStrictEqual(expected)
        }
        yield* expectHistory(handle, log)
      }),
    { fastCheck: { numRuns: 40 } }
  )

  it.scopedLive("law 4: of many concurrent batches each is contiguous", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const batches = Array.from({ length: 40 }, (_, index) => events(1 + index % 7, `batch${index}`))
      const receipts = yield* Effect.forEach(batches, (batch) => handle.ledger.appendAll(batch), {
        concurrency: "unbounded"
      })
      receipts.forEach((batch) =>
        batch.forEach((receipt, index) => expect(receipt.offset).toBe(batch[0]!.offset + index))
      )
      const recorded = yield* expectGapless(handle, batches.flat().length)
      const byOffset = receipts.flat().sort((self, that) => self.offset - that.offset).map((receipt) => receipt.id)
      expect(recorded.map((one) => one.id)).toStrictEqual(byOffset)
    }))
}

/** Every field but the time, by the words of law 3. */
const isSameStep = (self: Event, that: Event): boolean => {
  const content = ({ createdAt: _, ...rest }: Event) => JSON.stringify(Object.entries(rest).sort())
  return content(self) === content(that)
}

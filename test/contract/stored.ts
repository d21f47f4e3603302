/** What a ledger that outlives its Layer owes to several handles, at the same time or one after the other. */
import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { Receipt } from "../../src/Ledger.js"
import type { Services } from "./Backend.js"
import { event, events } from "./fixtures.js"
import { follow } from "./follow.js"
import { collect, expectEvents, expectGapless, expectHistory, failure, open, recordedAt } from "./handle.js"

export const stored = (make: () => Layer.Layer<Services, unknown>): void => {
  it.live("law 1: what was appended is there when the ledger is opened again", () =>
    Effect.gen(function*() {
      const layer = make()
      const before = yield* Effect.scoped(Effect.gen(function*() {
        const { ledger, store } = yield* open(layer)
        yield* ledger.appendAll(events(3))
        return yield* store.head
      }))
      yield* Effect.scoped(Effect.gen(function*() {
        const handle = yield* open(layer)
        yield* expectHistory(handle, events(3))
        expect(yield* handle.store.head).toStrictEqual(before)
        expect(yield* handle.ledger.append(event("next"))).toStrictEqual(Receipt.Appended({ id: "next", offset: 4 }))
      }))
    }))

  it.live("law 2: a retry after a restart is a duplicate", () =>
    Effect.gen(function*() {
      const layer = make()
      yield* Effect.scoped(Effect.flatMap(open(layer), ({ ledger }) => ledger.appendAll(events(3))))
      yield* Effect.scoped(Effect.gen(function*() {
        const handle = yield* open(layer)
        expect(yield* handle.ledger.append(event("event-2", { turn: 1 }))).toStrictEqual(
          Receipt.Duplicate({ id: "event-2", offset: 2, identical: true })
        )
        expect(yield* handle.ledger.append(event("event-2", { turn: 2 }))).toStrictEqual(
          Receipt.Duplicate({ id: "event-2", offset: 2, identical: false })
        )
        yield* expectHistory(handle, events(3))
      }))
    }))

  it.scopedLive("hazard: what a second handle appends shows in events", () =>
    Effect.gen(function*() {
      const layer = make()
      const [mine, other] = [yield* open(layer), yield* open(layer)]
      yield* mine.ledger.append(event("mine"))
      yield* expectHistory(mine, [event("mine")])
      yield* other.ledger.append(event("other", { runId: "run-2" }))
      yield* expectHistory(mine, [event("mine"), event("other", { runId: "run-2" })])
      expectEvents(yield* collect(mine.ledger.tail(1)), recordedAt(2, [event("other", { runId: "run-2" })]))
      expectEvents(yield* mine.ledger.eventsForRun("run-2"), recordedAt(2, [event("other", { runId: "run-2" })]))
      expect(yield* mine.ledger.runs).toStrictEqual(["run-1", "run-2"])
      expect(Option.isSome(yield* mine.ledger.get("other"))).toBe(true)
      expect(yield* mine.ledger.append(event("third"))).toStrictEqual(Receipt.Appended({ id: "third", offset: 3 }))
    }))

  it.scopedLive("hazard: an offset that two handles both want is not swallowed as a duplicate", () =>
    Effect.gen(function*() {
      const layer = make()
      const handles = yield* Effect.all(Array.from({ length: 4 }, () => open(layer)))
      const receipts = yield* Effect.forEach(
        handles,
        ({ ledger }, index) => Effect.forEach(events(15, `handle${index}`), (one) => ledger.append(one)),
        { concurrency: "unbounded" }
      )
      expect(receipts.flat().every(Receipt.$is("Appended"))).toBe(true)
      for (const handle of handles) yield* expectGapless(handle, 60)
      const places = receipts.flat().map((receipt) => receipt.offset).sort((self, that) => self - that)
      expect(places).toStrictEqual(Array.from({ length: 60 }, (_, index) => index + 1))
    }))

  it.scopedLive("law 2: of many handles racing for one id exactly one appends", () =>
    Effect.gen(function*() {
      const layer = make()
      const handles = yield* Effect.all(Array.from({ length: 4 }, () => open(layer)))
      for (const one of events(5, "contested")) {
        const receipts = yield* Effect.forEach(
          [...handles, ...handles, ...handles],
          ({ ledger }) => ledger.append(one),
          { concurrency: "unbounded" }
        )
        expect(receipts.filter(Receipt.$is("Appended")).length).toBe(1)
        expect(new Set(receipts.map((receipt) => receipt.offset)).size).toBe(1)
        expect(receipts.every((receipt) => receipt._tag === "Appended" || receipt.identical)).toBe(true)
      }
      yield* expectHistory(handles[0]!, events(5, "contested"))
    }))

  it.scopedLive("hazard: a reader beside writers on other handles never gets an earlier offset later", () =>
    Effect.gen(function*() {
      const layer = make()
      const [reader, ...writers] = yield* Effect.all(Array.from({ length: 5 }, () => open(layer)))
      yield* follow(reader!, [...writers, ...writers])
    }))

  it.scopedLive("hazard: of two handles that both append \"the\" run.finished exactly one wins", () =>
    Effect.gen(function*() {
      const layer = make()
      const handles = [yield* open(layer), yield* open(layer)]
      for (let round = 0; round < 5; round++) {
        const runId = `run-${round}`
        const { offset } = yield* handles[round % 2]!.ledger.append(event(`${runId} started`, { runId }))
        const answers = yield* Effect.forEach(handles, ({ ledger }, index) => {
          const finished = event(`${runId} finished by ${index}`, { runId, kind: "run.finished" })
          return Effect.either(
            ledger.appendIf({ noneMatch: { runId, kinds: ["run.finished"] }, after: offset }, [finished])
          )
        }, { concurrency: "unbounded" })
        const [losers, winners] = [answers.filter(Either.isLeft), answers.filter(Either.isRight)]
        expect(winners.length).toBe(1)
        expect(losers[0]!.left).toMatchObject({
          _tag: "AppendConditionFailed",
          offset: winners[0]!.right[0]!.offset
        })
        expect((yield* handles[0]!.ledger.eventsForRun(runId)).length).toBe(2)
      }
    }))

  it.scopedLive("hazard: a duplicate leaves nothing locked for another handle", () =>
    Effect.gen(function*() {
      const layer = make()
      const [mine, other] = [yield* open(layer), yield* open(layer)]
      yield* mine.ledger.append(event("one"))
      yield* mine.ledger.append(event("one"))
      expect(yield* other.ledger.append(event("two"))).toMatchObject({ _tag: "Appended", offset: 2 })
      yield* other.ledger.append(event("one", { turn: 3 }))
      expect(yield* mine.ledger.append(event("three"))).toMatchObject({ _tag: "Appended", offset: 3 })
    }))

  it.scopedLive("hazard: eight that start at once on an empty database all open one ledger", () =>
    Effect.gen(function*() {
      const layer = make()
      const handles = yield* Effect.all(Array.from({ length: 8 }, () => open(layer)), { concurrency: "unbounded" })
      yield* Effect.forEach(handles, ({ ledger }, index) => ledger.append(event(`handle-${index}`)), {
        concurrency: "unbounded"
      })
      yield* expectGapless(handles[0]!, 8)
      const incarnations = yield* Effect.forEach(handles, ({ ledger }) => ledger.incarnation)
      expect(new Set(incarnations).size).toBe(1)
    }))

  it.scopedLive("hazard: a reset by another handle is noticed, however far the ledger has grown again", () =>
    Effect.gen(function*() {
      const layer = make()
      const [mine, other] = [yield* open(layer), yield* open(layer)]
      yield* mine.ledger.appendAll(events(3))
      const cursor = { after: 2, incarnation: yield* mine.ledger.incarnation }
      expect((yield* collect(mine.ledger.tail(cursor))).length).toBe(1)
      yield* other.admin.reset
      expect(yield* mine.ledger.events).toStrictEqual([])
      yield* other.ledger.appendAll(events(3, "new"))
      expect(yield* failure(collect(mine.ledger.tail(cursor)))).toMatchObject({
        _tag: "LedgerReplaced",
        expected: cursor.incarnation,
        found: yield* other.ledger.incarnation,
        head: 3
      })
      yield* expectHistory(mine, events(3, "new"))
      expect(yield* mine.ledger.append(event("event-1"))).toMatchObject({ _tag: "Appended", offset: 4 })
    }))

  it.live("law 13: what was acknowledged before the ledger was closed is there afterwards, and whole batches only", () =>
    Effect.gen(function*() {
      const layer = make()
      const answers = yield* Effect.scoped(Effect.gen(function*() {
        const { ledger } = yield* open(layer)
        const appending = yield* Effect.forkDaemon(Effect.forEach(
          Array.from({ length: 30 }, (_, index) => events(3, `batch${index}`)),
          (batch) => Effect.either(ledger.appendAll(batch)),
          { concurrency: "unbounded" }
        ))
        yield* Effect.repeatN(Effect.yieldNow(), 20)
        return appending
      })).pipe(Effect.flatten)
      yield* Effect.scoped(Effect.gen(function*() {
        const handle = yield* open(layer)
        const recorded = yield* expectGapless(handle, yield* handle.ledger.latestOffset)
        for (const [index, answer] of answers.entries()) {
          const offsets = recorded.filter((one) => one.id.startsWith(`batch${index}-`)).map((one) => one.offset)
          if (Either.isRight(answer)) expect(offsets).toStrictEqual(answer.right.map((receipt) => receipt.offset))
          else expect([0, 3]).toContain(offsets.length)
        }
      }))
    }))
}

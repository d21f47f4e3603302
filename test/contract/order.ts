/** Laws 5, 6 and 7: offsets. */
import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Receipt } from "../../src/Ledger.js"
import { StoreFailure } from "../../src/LedgerError.js"
import type { Backend } from "./Backend.js"
import { event, events } from "./fixtures.js"
import { follow } from "./follow.js"
import { collect, expectGapless, expectHistory, failure, open, recordedAt, wrapped } from "./handle.js"

export const order = (backend: Backend): void => {
  it.scopedLive("law 5: duplicates, refused events and refused conditions spend no offset", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const { ledger } = handle
      yield* ledger.append(event("one"))
      yield* ledger.append(event("one"))
      yield* ledger.append(event("one", { turn: 5 }))
      yield* ledger.appendAll([event("one"), event("one")])
      yield* failure(ledger.append(event("bad", { turn: -1 })))
      yield* failure(ledger.appendAll([event("two"), event("bad", { kind: "bad" })]))
      yield* failure(ledger.appendIf({ noneMatch: {}, after: 0 }, [event("two")]))
      expect(yield* ledger.append(event("two"))).toStrictEqual(Receipt.Appended({ id: "two", offset: 2 }))
      yield* expectHistory(handle, [event("one"), event("two")])
    }))

  it.scopedLive("law 5: a write that the store refused leaves no hole", () =>
    Effect.gen(function*() {
      const handle = yield* wrapped(backend, (store) => ({
        append: (groups) =>
          groups.some((group) => group.rows.some((row) => row.id === "poison"))
            ? new StoreFailure({ method: "append", cause: new Error("the disk is a lie") })
            : store.append(groups)
      }))
      yield* handle.ledger.append(event("one"))
      const error = yield* failure(handle.ledger.appendAll([event("two"), event("poison"), event("three")]))
      expect(error).toBeInstanceOf(StoreFailure)
      expect(yield* handle.ledger.append(event("four"))).toStrictEqual(Receipt.Appended({ id: "four", offset: 2 }))
      yield* expectHistory(handle, [event("one"), event("four")])
    }))

  it.scopedLive("law 5: a reader beside eight writers never sees a hole, nor anything at or below what it saw", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      yield* follow(handle, Array.from({ length: 8 }, () => handle))
    }))

  it.scopedLive("law 6: what one fiber appends in sequence is recorded in that sequence", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      yield* Effect.forEach(Array.from({ length: 10 }, (_, writer) => writer), (writer) =>
        Effect.forEach(events(10, `writer${writer}`, { runId: `run-${writer}` }), (one) =>
          handle.ledger.append(one)), { concurrency: "unbounded" })
      const recorded = yield* expectGapless(handle, 100)
      for (let writer = 0; writer < 10; writer++) {
        expect(
          recorded.filter((one) =>
            one.runId === `run-${writer}`
          ).map((one) => one.id)
        ).toStrictEqual(
          events(10, `writer${writer}`).map((one) => one.id)
        )
      }
    }))

  it.scopedLive("law 7: latestOffset is the number of events and the offset of the last one", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      expect(yield* ledger.latestOffset).toBe(0)
      for (const [batch, head] of [[1, 1], [5, 6], [0, 6], [300, 306]] as const) {
        yield* ledger.appendAll(events(batch, `to-${head}`))
        expect(yield* ledger.latestOffset).toBe(head)
        expect((yield* ledger.events).length).toBe(head)
      }
      const last = yield* collect(ledger.read({ direction: "backward", limit: 1 }))
      expect(last.map((one) => one.offset)).toStrictEqual([306])
    }))

  it.scopedLive("law 7: no event slips by between tail and latestOffset", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      const writer = yield* Effect.fork(
        Effect.forEach(events(60), (one) => ledger.append(one), { concurrency: 6, discard: true })
      )
      while ((yield* writer.poll)._tag === "None") {
        const before = yield* ledger.latestOffset
        const seen = yield* collect(ledger.tail())
        const after = yield* ledger.latestOffset
        expect(seen.map((one) => one.offset)).toStrictEqual(
          Array.from({ length: seen.length }, (_, index) => index + 1)
        )
        expect(seen.length).toBeGreaterThanOrEqual(before)
        expect(after).toBeGreaterThanOrEqual(seen.length)
        // whoever was told an offset goes on from there
        expect((yield* collect(ledger.tail(before)))[0]?.offset ?? before + 1).toBe(before + 1)
        yield* Effect.yieldNow()
      }
      yield* writer
      expect((yield* collect(ledger.tail())).length).toBe(60)
    }))

  it.scopedLive("law 7: the store's head is the last event", () =>
    Effect.gen(function*() {
      const { ledger, store } = yield* open(backend.layer())
      expect(yield* store.head).toStrictEqual({ incarnation: yield* ledger.incarnation, offset: 0, digest: null })
      yield* ledger.appendAll(events(3))
      const first = yield* store.head
      expect(first).toMatchObject({ incarnation: yield* ledger.incarnation, offset: 3 })
      yield* ledger.append(event("event-2", { turn: 50 }))
      expect(yield* store.head).toStrictEqual(first)
      expect(recordedAt(3, events(3).slice(2))[0]!.offset).toBe(first.offset)
    }))
}

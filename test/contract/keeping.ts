/** Law 8 for the events that a ledger keeps at hand: they are never stale, and nobody can tell them from the log. */
import { expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { LedgerStore } from "../../src/LedgerStore.js"
import * as StoreLedger from "../../src/StoreLedger.js"
import { type Backend, Client } from "./Backend.js"
import { event, events } from "./fixtures.js"
import { collect, expectEvents, expectHistory, failure, open, over, recordedAt, type Store } from "./handle.js"

/** A second ledger on the same store, which keeps about so many bytes of events at hand. */
const keeping = (store: Store, cacheBytes: number) =>
  open(
    StoreLedger.layerWith({ cacheBytes }).pipe(Layer.provideMerge(Layer.succeed(LedgerStore, store)))
  )

/** An append of so many, a read between two offsets, in hundredths of the head, or a reset. */
type Step =
  | { readonly append: number }
  | { readonly after: number; readonly through: number; readonly limit: number }
  | "reset"

const step: FastCheck.Arbitrary<Step> = FastCheck.oneof(
  { weight: 3, arbitrary: FastCheck.integer({ min: 1, max: 30 }).map((append) => ({ append })) },
  {
    weight: 6,
    arbitrary: FastCheck.record({
      after: FastCheck.integer({ min: 0, max: 70 }),
      through: FastCheck.integer({ min: 0, max: 150 }),
      limit: FastCheck.constantFrom(1, 7, 50, 1000)
    })
  },
  { weight: 1, arbitrary: FastCheck.constant("reset" as const) }
)

export const keepingAtHand = (backend: Backend): void => {
  it.live.prop(
    "law 8: whatever was read before, a read gives what is in the log",
    [FastCheck.array(step, { minLength: 20, maxLength: 40 }), FastCheck.constantFrom(3000, 12_000, 2 ** 24)],
    ([steps, bytes]) =>
      Effect.scoped(Effect.gen(function*() {
        // two handles read, a third writes
        const { admin, ledger, store } = yield* open(backend.layer())
        const plain = yield* keeping(store, 0)
        const kept = yield* keeping(store, bytes)
        let made = 0
        let head = 0
        for (const one of steps) {
          if (one === "reset") {
            yield* admin.reset
            head = 0
          } else if ("append" in one) {
            yield* ledger.appendAll(events(one.append, `batch${++made}`))
            head += one.append
          } else {
            const after = Math.floor(one.after * head / 100)
            const query = { after, through: Math.floor(one.through * head / 100), limit: one.limit }
            const expected = yield* collect(plain.ledger.read(query))
            expect(expected).toHaveLength(Math.max(0, Math.min(one.limit, Math.min(query.through, head) - after)))
            expectEvents(yield* collect(kept.ledger.read(query)), expected)
          }
        }
        expectEvents(yield* kept.ledger.events, yield* plain.ledger.events)
      })),
    { fastCheck: { numRuns: 15 } }
  )

  it.scopedLive("a stream of what is at hand can be folded, however long it is", () =>
    Effect.gen(function*() {
      const { ledger, store } = yield* open(backend.layer())
      yield* ledger.appendAll(events(20_000))
      const kept = yield* keeping(store, 2 ** 26)
      const count = Stream.runFold(kept.ledger.tail(0), 0, (count) => count + 1)
      expect(yield* count).toBe(20_000)
      expect(yield* count).toBe(20_000)
    }))

  it.scopedLive("law 8: between an offset and an earlier one there is nothing, whatever was read before", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      yield* ledger.appendAll(events(3))
      yield* Stream.runDrain(ledger.tail(1))
      expect(yield* collect(ledger.read({ after: 1, through: 0 }))).toEqual([])
    }))

  it.scopedLive("law 9: what is read again costs the store one page, and gives way to what is newer", () =>
    Effect.gen(function*() {
      const { store } = yield* open(backend.layer())
      let pages = 0
      const counted: Store = {
        ...store,
        page: (request) => Effect.zipRight(Effect.sync(() => pages++), store.page(request))
      }
      const { ledger } = yield* keeping(counted, 2 ** 24)
      yield* ledger.appendAll(events(3000))
      const cost = Effect.fnUntraced(function*<A, E>(read: Effect.Effect<A, E>) {
        const before = pages
        yield* read
        return pages - before
      })
      expect(yield* cost(ledger.events)).toBeGreaterThanOrEqual(3)
      expect(yield* cost(ledger.events)).toBe(1)
      expect(yield* cost(Stream.runDrain(ledger.tail(1500)))).toBe(1)
      const few = yield* keeping(counted, 400_000)
      expectEvents(yield* few.ledger.events, recordedAt(1, events(3000)))
      expect(yield* cost(few.ledger.events)).toBeGreaterThan(1)
      expect(yield* cost(Stream.runDrain(few.ledger.tail(2990)))).toBe(1)
    }))

  if (backend.client !== undefined) {
    const { client } = backend
    it.scopedLive("law 12: what was read in a transaction that is rolled back is not remembered", () =>
      Effect.gen(function*() {
        const handle = yield* open(client())
        const { transaction } = Context.get(handle.context, Client)
        yield* handle.ledger.appendAll(events(3))
        yield* expectHistory(handle, events(3))
        const inside = Effect.zipRight(handle.ledger.append(event("undone")), handle.ledger.events)
        yield* Effect.ignore(transaction(Effect.flatMap(inside, (all) => Effect.fail(all.length))))
        yield* expectHistory(handle, events(3))
        yield* handle.ledger.append(event("kept"))
        yield* expectHistory(handle, [...events(3), event("kept")])
      }))

    it.scopedLive("law 12: a transaction reads what it wrote, however many pages, and nobody else does", () =>
      Effect.gen(function*() {
        const handle = yield* open(client())
        const { transaction } = Context.get(handle.context, Client)
        const { ledger } = yield* open(over(handle.store, () => ({ readsAhead: true })))
        yield* ledger.appendAll(events(2500))
        const all = [...events(2500), ...Array.from({ length: 2000 }, (_, n) => event(`undone-${n}`))]
        const inside = Effect.zipRight(ledger.appendAll(all.slice(2500)), ledger.events)
        yield* failure(transaction(Effect.flatMap(inside, (seen) => {
          expectEvents(seen, recordedAt(1, all))
          return Effect.fail("undone")
        })))
        expectEvents(yield* ledger.events, recordedAt(1, events(2500)))
      }))
  }
}

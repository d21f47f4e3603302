/** What every backend owes to whoever checks its log, and to whoever declares that it goes on by itself. */
import { expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { LedgerStore } from "../../src/LedgerStore.js"
import * as Verify from "../../src/Verify.js"
import { type Backend, Client } from "./Backend.js"
import { canonicalBytes, digest, digestOver, events, world } from "./fixtures.js"
import { collect, expectHistory, failure, type Handle, open, shared, wrapped } from "./handle.js"

const verify = (handle: Handle, options?: Verify.Options) =>
  Effect.provideService(Verify.run(options), LedgerStore, handle.store)

export const verifying = (backend: Backend): void => {
  it.scopedLive("verify: a log that is as it was written has no problem, and a digest over all", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      expect(yield* verify(handle)).toStrictEqual({
        head: 0,
        checked: 0,
        bytes: 0,
        digest: digestOver([]),
        count: 0,
        problems: []
      })
      const held = world(2300)
      yield* handle.ledger.appendAll(held)
      const seen: Array<object> = []
      expect(yield* verify(handle, { onProgress: (at) => Effect.sync(() => void seen.push(at)) })).toStrictEqual({
        head: 2300,
        checked: 2300,
        bytes: canonicalBytes(held),
        digest: digestOver(held),
        count: 0,
        problems: []
      })
      expect(seen).toStrictEqual([1000, 2000, 2300].map((checked) => ({ checked, total: 2300 })))
      expect(yield* handle.store.digests(3, 5)).toStrictEqual([[4, digest(held[3]!)], [5, digest(held[4]!)]])
      expect(yield* handle.store.digests(2298, 9999)).toHaveLength(2)
    }))

  it.scopedLive("verify: a log that is reset meanwhile is another one", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      yield* handle.ledger.appendAll(events(1500))
      const reset = Effect.zipRight(
        Effect.orDie(handle.admin.reset),
        Effect.orDie(handle.ledger.appendAll(events(1600, "new")))
      )
      const error = yield* failure(verify(handle, {
        onProgress: ({ checked }) => checked === 1000 ? Effect.asVoid(reset) : Effect.void
      }))
      expect(error).toMatchObject({ _tag: "LedgerReplaced", head: 1600 })
    }))

  it.scopedLive("verify: counts every problem, and lists the first 1,000", () =>
    Effect.gen(function*() {
      const handle = yield* wrapped(backend, ({ digests }) => ({
        digests: (after, through) =>
          Effect.map(digests(after, through), (all) => all.map(([offset]) => [offset, null] as const))
      }))
      yield* handle.ledger.appendAll(events(1100))
      const { count, problems } = yield* verify(handle)
      expect(problems.map(({ offset }) => offset)).toStrictEqual(Array.from({ length: 1000 }, (_, n) => n + 1))
      expect(count).toBe(1100)
    }))

  if (backend.client !== undefined) {
    const { client } = backend
    it.scopedLive("verify: whatever is changed past every guard is found at its offset, and the rest is read", () =>
      Effect.gen(function*() {
        const handle = yield* open(client())
        const { damage, remove } = Context.get(handle.context as Context.Context<Client>, Client)
        yield* handle.ledger.appendAll(events(1200, "event", { sessionId: "s", modelProfile: "p", modelId: "m" }))
        const changes: ReadonlyArray<readonly [string, string | number]> = [
          ["id", "another"],
          ["run_id", "run-2"],
          ["turn", 77],
          ["kind", "agent.acted"],
          ["actor", "eve"],
          ["payload", "{\"said\":\"other\"}"],
          ["created_at", 1_767_225_600_001],
          ["schema_version", 2],
          ["session_id", "t"],
          ["model_profile", "q"],
          ["model_id", "n"],
          // what cannot be an event at all
          ["payload", "[]"],
          ["payload", "{\"said\": \"event-13\"}"],
          ["kind", "Agent"],
          ["turn", -1]
        ]
        yield* Effect.forEach(changes, ([column, value], index) => damage(index + 1, column, value))
        yield* Effect.forEach([100, 101, 102, 999, 1000, 1001], remove)
        const { checked, count, head, problems } = yield* verify(handle)
        expect({ checked, head }).toStrictEqual({ checked: 1194, head: 1200 })
        const found = problems.filter(({ offset }) => offset !== null)
        expect(found.map(({ offset }) => offset)).toStrictEqual([...changes.map((_, index) => index + 1), 100, 999])
        expect(found.at(-1)!.what).toMatch(/rows up to 1001 are missing/)
        expect(found[11]!.what).toMatch(/payload/)
        expect(count).toBe(problems.length)
        // the guards that were lifted for this are missed too
        expect(problems.length).toBeGreaterThan(found.length)
      }))

    it.scopedLive("incarnate: in a transaction that is rolled back nothing is declared", () =>
      Effect.gen(function*() {
        const handle = yield* open(client())
        const { transaction } = Context.get(handle.context as Context.Context<Client>, Client)
        yield* handle.ledger.appendAll(events(2))
        const before = yield* handle.admin.lineage
        yield* Effect.ignore(transaction(Effect.zipRight(handle.admin.incarnate, Effect.fail("undo"))))
        expect(yield* handle.admin.lineage).toStrictEqual(before)
        yield* transaction(handle.admin.incarnate)
        expect((yield* handle.admin.lineage).parents).toHaveLength(1)
        yield* expectHistory(handle, events(2))
      }))
  }

  const handle = shared(backend.layer)
  it.live("incarnate: events stay, a new incarnation begins, and old cursors fail with LedgerReplaced", () =>
    Effect.gen(function*() {
      const log = yield* handle
      yield* log.ledger.appendAll(events(5))
      const first = yield* log.store.head
      expect(yield* log.admin.lineage).toStrictEqual({ incarnation: first.incarnation, parents: [] })
      // read before, so that it is at hand
      yield* log.ledger.events
      const follower = yield* Effect.fork(failure(Stream.runDrain(log.ledger.subscribe({
        after: { after: 5, incarnation: first.incarnation }
      }))))
      const declared = yield* log.admin.incarnate
      expect(declared).toStrictEqual({ incarnation: declared.incarnation, parents: [first] })
      expect(declared.incarnation).not.toBe(first.incarnation)
      expect(yield* log.ledger.incarnation).toBe(declared.incarnation)
      yield* expectHistory(log, events(5))
      const old = { after: 2, incarnation: first.incarnation }
      expect(yield* failure(Stream.runDrain(log.ledger.tail(old)))).toMatchObject({
        _tag: "LedgerReplaced",
        expected: first.incarnation,
        found: declared.incarnation,
        head: 5
      })
      expect((yield* Fiber.join(follower))._tag).toBe("LedgerReplaced")
      expect(yield* collect(log.ledger.tail({ after: 2, incarnation: declared.incarnation }))).toHaveLength(3)
      expect(Option.isSome(yield* log.ledger.get("event-1"))).toBe(true)

      yield* log.ledger.appendAll(events(1, "later"))
      const second = yield* log.store.head
      expect((yield* log.admin.incarnate).parents).toStrictEqual([second, first])
      expect((yield* verify(log)).count).toBe(0)
      // another history has no parents
      yield* log.admin.reset
      expect((yield* log.admin.lineage).parents).toStrictEqual([])
    }))

  it.scopedLive("location: one log has one key, and another has another", () =>
    Effect.gen(function*() {
      const make = backend.stored
      if (make === undefined) {
        const [one, other] = [yield* open(backend.layer()), yield* open(backend.layer())]
        const keys = [yield* one.store.location, yield* other.store.location].map(({ key }) => key)
        expect(keys[0] === null || keys[0] !== keys[1]).toBe(true)
        return
      }
      const layer = make()
      const [one, again, other] = [yield* open(layer), yield* open(layer), yield* open(make())]
      const key = (yield* one.store.location).key
      expect(key).not.toBeNull()
      expect((yield* again.store.location).key).toBe(key)
      expect((yield* other.store.location).key).not.toBe(key)
    }))
}

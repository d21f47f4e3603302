/** Laws 12, 13 and 14, and the end of a ledger: what happens beside other work. */
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { Receipt } from "../../src/Ledger.js"
import { StoreFailure, StoreUnavailable } from "../../src/LedgerError.js"
import { type Backend, Client, type Services } from "./Backend.js"
import { event, events } from "./fixtures.js"
import { expectGapless, expectHistory, failure, open, type Store, wrapped } from "./handle.js"

export const composition = (backend: Backend): void => {
  if (backend.client !== undefined) {
    const { client } = backend
    describe("law 12: in the caller's transaction", () => transactions(client))
  }

  it.scopedLive("law 13: an append that is interrupted in the queue is never written", () =>
    Effect.gen(function*() {
      const gate = yield* makeGate
      const handle = yield* wrapped(backend, gate.change)
      const writing = yield* Effect.fork(handle.ledger.append(event("writing")))
      yield* gate.entered
      const waiting = yield* Effect.fork(handle.ledger.appendAll(events(3)))
      yield* letOthersRun
      expect(Exit.isInterrupted(yield* Fiber.interrupt(waiting))).toBe(true)
      yield* gate.open
      yield* writing
      yield* expectHistory(handle, [event("writing")])
      expect(yield* handle.ledger.append(event("event-1"))).toStrictEqual(
        Receipt.Appended({ id: "event-1", offset: 2 })
      )
    }))

  it.scopedLive("law 13: an append that is interrupted while it is written is settled before its caller goes on", () =>
    Effect.gen(function*() {
      const gate = yield* makeGate
      const handle = yield* wrapped(backend, gate.change)
      const writing = yield* Effect.fork(handle.ledger.appendAll(events(3)))
      yield* gate.entered
      const interrupting = yield* Effect.fork(Fiber.interrupt(writing))
      yield* letOthersRun
      yield* gate.open
      yield* interrupting
      const written = yield* handle.ledger.latestOffset
      expect([0, 3]).toContain(written)
      const receipts = yield* handle.ledger.appendAll(events(3))
      expect(receipts.map(({ offset }) => offset)).toStrictEqual([1, 2, 3])
      yield* expectHistory(handle, events(3))
    }))

  it.scopedLive("law 13: interrupted among many, each append is wholly there or wholly absent, and doing it again repairs", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const { ledger } = handle
      const batches = Array.from({ length: 60 }, (_, index) => events(3, `batch${index}`))
      const fibers = yield* Effect.forEach(batches, (batch) => Effect.fork(ledger.appendAll(batch)))
      const exits: Array<Exit.Exit<ReadonlyArray<Receipt>, unknown>> = []
      for (const [index, fiber] of fibers.entries()) {
        exits.push(yield* index % 2 === 0 ? Fiber.interrupt(fiber) : Fiber.await(fiber))
        yield* letOthersRun
      }
      const recorded = yield* expectGapless(handle, yield* ledger.latestOffset)
      for (const [index, batch] of batches.entries()) {
        const offsets = recorded.filter((one) => one.id.startsWith(`batch${index}-`)).map((one) => one.offset)
        const exit = exits[index]!
        if (Exit.isSuccess(exit)) expect(offsets).toStrictEqual(exit.value.map((receipt) => receipt.offset))
        else {
          expect(Cause.isInterruptedOnly(exit.cause)).toBe(true)
          expect([0, batch.length]).toContain(offsets.length)
          offsets.forEach((offset, place) => expect(offset).toBe(offsets[0]! + place))
        }
      }
      for (const batch of batches) yield* ledger.appendAll(batch)
      yield* expectGapless(handle, batches.flat().length)
    }))

  it.scopedLive("law 14: one caller's invalid batch fails no other caller's append", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const exits = yield* Effect.forEach(events(40), (one, index) =>
        Effect.exit(handle.ledger.append(index % 4 === 0 ? { ...one, turn: -1 } : one)), { concurrency: "unbounded" })
      expect(exits.map(Exit.isSuccess)).toStrictEqual(exits.map((_, index) =>
        index % 4 !== 0
      ))
      yield* expectGapless(handle, 30)
    }))

  it.scopedLive("law 14: one caller's refused condition fails no other caller's append", () =>
    Effect.gen(function*() {
      const gate = yield* makeGate
      const handle = yield* wrapped(backend, gate.change)
      const { ledger } = handle
      const first = yield* Effect.fork(ledger.append(event("first")))
      yield* gate.entered
      const rest = yield* Effect.fork(Effect.forEach(events(20), (one, index) =>
        Effect.exit(
          index % 4 === 0
            ? Effect.asVoid(ledger.appendIf({ noneMatch: { runId: "run-1" }, after: 0 }, [one]))
            : Effect.asVoid(ledger.append(one))
        ), { concurrency: "unbounded" }))
      yield* letOthersRun
      yield* gate.open
      yield* first
      const exits = yield* rest
      expect(exits.map(Exit.isSuccess)).toStrictEqual(exits.map((_, index) => index % 4 !== 0))
      expect(Math.max(...gate.sizes)).toBeGreaterThan(1)
      yield* expectGapless(handle, 16)
    }))

  it.scopedLive.each<readonly [string, Effect.Effect<never, StoreFailure>]>([
    ["fails", Effect.suspend(() => new StoreFailure({ method: "append", cause: new Error("poison") }))],
    ["dies", Effect.die(new Error("poison"))]
  ])("law 14: a store that %s for one caller's event fails that caller alone", ([, outcome]) =>
    Effect.gen(function*() {
      const gate = yield* makeGate
      const handle = yield* wrapped(backend, (store) =>
        gate.change({
          ...store,
          append: (groups) =>
            groups.some((group) => group.rows.some((row) => row.id === "event-7")) ? outcome : store.append(groups)
        }))
      const { ledger } = handle
      const first = yield* Effect.fork(ledger.append(event("first")))
      yield* gate.entered
      const rest = yield* Effect.fork(
        Effect.forEach(events(20), (one) => Effect.exit(ledger.append(one)), { concurrency: "unbounded" })
      )
      yield* letOthersRun
      yield* gate.open
      yield* first
      const exits = yield* rest
      expect(exits.map(Exit.isSuccess)).toStrictEqual(exits.map((_, index) => index !== 6))
      expect(yield* failure(exits[6]!)).toMatchObject({ _tag: "StoreFailure", method: "append" })
      // the case is about callers that are written together
      expect(Math.max(...gate.sizes)).toBeGreaterThan(1)
      yield* expectGapless(handle, 20)
      expect(yield* ledger.append(event("afterwards"))).toMatchObject({ _tag: "Appended", offset: 21 })
    }))

  it.live("an append after the ledger was closed fails with StoreUnavailable, and does not hang", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { ledger } = yield* Scope.extend(open(backend.layer()), scope)
      yield* ledger.append(event("one"))
      yield* Scope.close(scope, Exit.void)
      expect(yield* failure(ledger.append(event("two")))).toBeInstanceOf(StoreUnavailable)
      expect(yield* failure(ledger.appendAll(events(3)))).toBeInstanceOf(StoreUnavailable)
      const conditional = ledger.appendIf({ noneMatch: {}, after: 1 }, [event("two")])
      expect(yield* failure(conditional)).toBeInstanceOf(StoreUnavailable)
    }))

  it.live("appends that are under way when the ledger is closed end one way or the other", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { ledger } = yield* Scope.extend(open(backend.layer()), scope)
      const appending = yield* Effect.fork(
        Effect.forEach(events(50), (one) => Effect.either(ledger.append(one)), { concurrency: "unbounded" })
      )
      yield* letOthersRun
      yield* Scope.close(scope, Exit.void)
      for (const answer of yield* appending) {
        if (answer._tag === "Left") expect(answer.left).toBeInstanceOf(StoreUnavailable)
      }
      expect(yield* failure(ledger.append(event("late")))).toBeInstanceOf(StoreUnavailable)
    }))
}

const transactions = (client: () => Layer.Layer<Services | Client, unknown>): void => {
  const opened = Effect.map(
    Effect.suspend(() => open(client())),
    (handle) => ({ ...handle, client: Context.get(handle.context, Client) })
  )
  const abort = Effect.fail("abort" as const)

  it.scopedLive("law 12: commit makes the events visible together with the caller's rows", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      yield* client.transaction(Effect.gen(function*() {
        yield* client.note("before")
        expect(yield* ledger.append(event("one"))).toStrictEqual(Receipt.Appended({ id: "one", offset: 1 }))
        expect(yield* ledger.appendAll(events(2))).toStrictEqual([
          Receipt.Appended({ id: "event-1", offset: 2 }),
          Receipt.Appended({ id: "event-2", offset: 3 })
        ])
        yield* client.note("after")
        // the transaction sees what it wrote
        yield* expectHistory(handle, [event("one"), ...events(2)])
      }))
      yield* expectHistory(handle, [event("one"), ...events(2)])
      expect(yield* client.notes).toStrictEqual(["before", "after"])
    }))

  it.scopedLive("law 12: rollback removes the events wholly, receipts notwithstanding, and leaves no hole", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      yield* ledger.append(event("kept"))
      let receipt: Receipt | undefined
      const rolledBack = client.transaction(Effect.gen(function*() {
        yield* client.note("gone")
        receipt = yield* ledger.append(event("gone"))
        yield* ledger.appendAll(events(3))
        return yield* abort
      }))
      expect(yield* failure(rolledBack)).toBe("abort")
      expect(receipt).toStrictEqual(Receipt.Appended({ id: "gone", offset: 2 }))
      yield* expectHistory(handle, [event("kept")])
      expect((yield* ledger.get("gone"))._tag).toBe("None")
      expect(yield* ledger.runs).toStrictEqual(["run-1"])
      expect(yield* client.notes).toStrictEqual([])
      expect(yield* ledger.append(event("gone"))).toStrictEqual(Receipt.Appended({ id: "gone", offset: 2 }))
      yield* expectHistory(handle, [event("kept"), event("gone")])
    }))

  it.scopedLive("law 12: a transaction that is interrupted or dies leaves nothing", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      for (const end of [Effect.interrupt, Effect.die("defect")]) {
        const exit = yield* Effect.exit(client.transaction(Effect.zipRight(ledger.append(event("gone")), end)))
        expect(Exit.isFailure(exit)).toBe(true)
      }
      yield* expectHistory(handle, [])
    }))

  it.scopedLive("law 12: a nested transaction that rolls back takes only its own events along", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      yield* client.transaction(Effect.gen(function*() {
        yield* ledger.append(event("outer"))
        yield* Effect.ignore(client.transaction(Effect.zipRight(ledger.append(event("inner")), abort)))
        expect(yield* ledger.append(event("outer again"))).toMatchObject({ _tag: "Appended", offset: 2 })
        yield* client.transaction(ledger.append(event("inner kept")))
      }))
      yield* expectHistory(handle, [event("outer"), event("outer again"), event("inner kept")])
    }))

  it.scopedLive("law 2: a duplicate inside a transaction is a receipt, and the transaction goes on to commit", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      yield* ledger.append(event("known"))
      yield* client.transaction(Effect.gen(function*() {
        yield* client.note("with a duplicate")
        expect(yield* ledger.append(event("known"))).toStrictEqual(
          Receipt.Duplicate({ id: "known", offset: 1, identical: true })
        )
        expect(yield* ledger.append(event("known", { turn: 9 }))).toStrictEqual(
          Receipt.Duplicate({ id: "known", offset: 1, identical: false })
        )
        yield* ledger.append(event("new"))
        expect(yield* ledger.append(event("new"))).toStrictEqual(
          Receipt.Duplicate({ id: "new", offset: 2, identical: true })
        )
      }))
      yield* expectHistory(handle, [event("known"), event("new")])
      expect(yield* client.notes).toStrictEqual(["with a duplicate"])
    }))

  it.scopedLive("law 12: refused input and a refused condition do not harm the transaction", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      yield* client.transaction(Effect.gen(function*() {
        yield* ledger.append(event("one"))
        const invalid = yield* failure(ledger.appendAll([event("two"), event("bad", { turn: -1 })]))
        expect(invalid).toMatchObject({ _tag: "InvalidEvent", index: 1 })
        const refused = yield* failure(ledger.appendIf({ noneMatch: {}, after: 0 }, [event("two")]))
        expect(refused).toMatchObject({ _tag: "AppendConditionFailed", offset: 1 })
        yield* ledger.appendIf({ noneMatch: {}, after: 1 }, [event("three")])
        yield* client.note("committed")
      }))
      yield* expectHistory(handle, [event("one"), event("three")])
      expect(yield* client.notes).toStrictEqual(["committed"])
    }))

  it.scopedLive("law 12: concurrent appends inside one transaction do not undo each other", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      const receipts = yield* client.transaction(
        Effect.forEach(events(20), (one, index) =>
          index % 5 === 0
            ? Effect.either(ledger.append({ ...one, turn: -1 }))
            : Effect.either(ledger.append(one)), { concurrency: "unbounded" })
      )
      expect(receipts.filter((receipt) => receipt._tag === "Right").length).toBe(16)
      yield* expectGapless(handle, 16)
    }))

  it.scopedLive("law 12: a large batch and a reading fiber share a transaction", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      const [receipts] = yield* client.transaction(
        Effect.all([ledger.appendAll(events(3000)), ledger.latestOffset], { concurrency: "unbounded" })
      )
      expect(receipts.length).toBe(3000)
      yield* expectGapless(handle, 3000)
    }))

  it.scopedLive("law 2: two transactions racing for one id: the second gets what the first left", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      for (const [id, commits] of [["committed", true], ["rolled back", false]] as const) {
        const appended = yield* Deferred.make<void>()
        const first = yield* Effect.fork(Effect.exit(client.transaction(Effect.gen(function*() {
          yield* ledger.append(event(id))
          yield* Deferred.succeed(appended, undefined)
          // work, so that the second comes to wait for the first
          yield* Effect.repeatN(ledger.latestOffset, 30)
          if (!commits) yield* abort
        }))))
        yield* Deferred.await(appended)
        const receipt = yield* client.transaction(ledger.append(event(id)))
        expect(receipt._tag).toBe(commits ? "Duplicate" : "Appended")
        expect(Exit.isSuccess(yield* first)).toBe(commits)
      }
      yield* expectHistory(handle, [event("committed"), event("rolled back")])
    }))

  it.scopedLive("law 5: transactions that append at the same time all commit, each with offsets of its own", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      yield* Effect.forEach(
        Array.from({ length: 8 }, (_, index) => `transaction-${index}`),
        (name) =>
          client.transaction(Effect.gen(function*() {
            const first = yield* ledger.append(event(`${name} first`))
            yield* client.note(name)
            const second = yield* ledger.append(event(`${name} second`))
            expect(second.offset).toBe(first.offset + 1)
          })),
        { concurrency: "unbounded" }
      )
      yield* expectGapless(handle, 16)
      expect((yield* client.notes).length).toBe(8)
    }))

  it.scopedLive("law 12: what is not committed nobody else sees, and others' appends wait for their place", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { client, ledger } = handle
      const appended = yield* Deferred.make<void>()
      const finish = yield* Deferred.make<void>()
      const transaction = yield* Effect.fork(client.transaction(Effect.gen(function*() {
        yield* ledger.appendAll(events(2))
        yield* Deferred.succeed(appended, undefined)
        yield* Deferred.await(finish)
      })))
      yield* Deferred.await(appended)
      const other = yield* Effect.fork(ledger.append(event("other")))
      const reading = yield* Effect.fork(ledger.events)
      yield* letOthersRun
      yield* Deferred.succeed(finish, undefined)
      yield* transaction
      expect(yield* other).toStrictEqual(Receipt.Appended({ id: "other", offset: 3 }))
      // before the commit, or after it, or after the other: never a part
      expect([0, 2, 3]).toContain((yield* reading).length)
      yield* expectHistory(handle, [...events(2), event("other")])
    }))

  it.scopedLive("law 12: a transaction of another client is not joined", () =>
    Effect.gen(function*() {
      const mine = yield* opened
      const other = yield* opened
      const rolledBack = mine.client.transaction(Effect.gen(function*() {
        yield* mine.ledger.append(event("mine"))
        yield* other.ledger.append(event("other"))
        expect(yield* other.ledger.latestOffset).toBe(1)
        return yield* abort
      }))
      expect(yield* failure(rolledBack)).toBe("abort")
      yield* expectHistory(mine, [])
      yield* expectHistory(other, [event("other")])
    }))

  it.scopedLive("law 12: reset in a transaction that rolls back deletes nothing", () =>
    Effect.gen(function*() {
      const handle = yield* opened
      const { admin, client, ledger } = handle
      yield* ledger.appendAll(events(3))
      const incarnation = yield* ledger.incarnation
      expect(yield* failure(client.transaction(Effect.zipRight(admin.reset, abort)))).toBe("abort")
      yield* expectHistory(handle, events(3))
      expect(yield* ledger.incarnation).toBe(incarnation)
      yield* client.transaction(Effect.zipRight(admin.reset, ledger.append(event("new"))))
      yield* expectHistory(handle, [event("new")])
      expect(yield* ledger.incarnation).not.toBe(incarnation)
    }))

  it.scopedLive("hazard: a duplicate leaves nothing locked for others", () =>
    Effect.gen(function*() {
      const { client, ledger } = yield* opened
      yield* ledger.append(event("one"))
      yield* ledger.append(event("one"))
      yield* client.note("not locked")
      yield* client.transaction(client.note("nor in a transaction"))
      expect(yield* client.notes).toStrictEqual(["not locked", "nor in a transaction"])
    }))
}

/** A store whose first write waits until the gate opens, so that callers gather behind it. */
const makeGate = Effect.gen(function*() {
  const entered = yield* Deferred.make<void>()
  const latch = yield* Effect.makeLatch()
  const sizes: Array<number> = []
  return {
    entered: Deferred.await(entered),
    open: latch.open,
    /** How many callers each write was for. */
    sizes,
    change: (store: Store): Store => ({
      ...store,
      append: (groups) =>
        Deferred.succeed(entered, undefined).pipe(
          Effect.zipRight(latch.await),
          Effect.zipRight(Effect.suspend(() => {
            sizes.push(groups.length)
            return store.append(groups)
          }))
        )
    })
  }
})

/** Lets other fibers come as far as they can without waiting. */
const letOthersRun = Effect.repeatN(Effect.yieldNow(), 20)

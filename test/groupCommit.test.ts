import { describe, expect, it } from "@effect/vitest"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as Tracer from "effect/Tracer"
import * as GroupCommit from "../src/internal/groupCommit.js"
import { type StoreError, StoreFailure, StoreUnavailable, TransactionAborted } from "../src/LedgerError.js"
import type { AppendGroup, GroupResult, Row } from "../src/LedgerStore.js"

describe("many callers, one write", () => {
  it.scoped("writes a lone caller at once and alone, without waiting for the clock", () =>
    Effect.gen(function*() {
      const { commit, next } = yield* controlled()
      const caller = yield* start(commit.submit(group("a")))
      const write = yield* next
      expect(write.ids).toStrictEqual([["a"]])
      yield* write.succeed
      expect(yield* Fiber.join(caller)).toStrictEqual(written("a"))
    }))

  it.scoped("writes in its own step for who was written alone before, and lets others in after sixteen of them", () =>
    Effect.gen(function*() {
      const calls: Array<ReadonlyArray<string>> = []
      const ready = yield* Deferred.make<void>()
      const commit = yield* make((groups) =>
        Effect.suspend(() => {
          calls.push(groups.flatMap(namesOf))
          return Effect.as(
            calls.length === 5 ? Deferred.succeed(ready, undefined) : Effect.void,
            groups.map(writtenGroup)
          )
        })
      )
      const lone = Effect.forEach(ids(40), (id) => commit.submit(group(`lone${id}`)), { discard: true })
      const other = Effect.zipRight(Deferred.await(ready), commit.submit(group("other")))
      yield* Effect.all([lone, other], { concurrency: "unbounded", discard: true })
      // it is ready during the fifth write, and the eighteenth is the first that gives it a turn
      expect(calls[17]).toStrictEqual(["lone17", "other"])
      const order = calls.flat()
      expect(order.filter((id) => id !== "other")).toStrictEqual(ids(40).map((id) => `lone${id}`))
    }))

  it.scoped("of callers that take turns, none is written in a step of its own", () =>
    Effect.gen(function*() {
      const { calls, commit } = yield* automatic()
      const lane = (name: string) => Effect.forEach(ids(20), (id) => commit.submit(group(name + id)), { discard: true })
      yield* Effect.all([lane("a"), lane("b"), lane("c")], { concurrency: "unbounded", discard: true })
      expect(calls.every((call) => call.length === 3)).toBe(true)
    }))

  it.scoped("hands the group over as it is, its condition included", () =>
    Effect.gen(function*() {
      const { commit, next } = yield* controlled()
      const given: AppendGroup = { ...group("a"), condition: { noneMatch: [{ runId: "r" }], after: 3 } }
      yield* start(commit.submit(given))
      const write = yield* next
      expect(write.groups).toHaveLength(1)
      expect(write.groups[0]).toBe(given)
    }))

  it.scoped("writes together what comes while a write is under way, and answers each caller its own", () =>
    Effect.gen(function*() {
      const { commit, next } = yield* controlled()
      const first = yield* start(commit.submit(group("a")))
      const write = yield* next
      const others = yield* Effect.forEach(["b", "c", "d"], (id) => start(commit.submit(group(id))))
      yield* write.succeed
      yield* Fiber.join(first)
      const second = yield* next
      expect(second.ids).toStrictEqual([["b"], ["c"], ["d"]])
      yield* second.answer((groups) =>
        groups.map((one, index) => index === 1 ? { _tag: "Refused", offset: 9 } : writtenGroup(one))
      )
      expect(yield* Effect.forEach(others, (fiber) => Fiber.join(fiber))).toStrictEqual([
        written("b"),
        { _tag: "Refused", offset: 9 },
        written("d")
      ])
    }))

  it.scoped("has one write at a time", () =>
    Effect.gen(function*() {
      const { commit, next, pending } = yield* controlled()
      yield* start(commit.submit(group("a")))
      const write = yield* next
      yield* start(commit.submit(group("b")))
      yield* settleDown
      expect(yield* pending).toBe(0)
      yield* write.succeed
      expect((yield* next).ids).toStrictEqual([["b"]])
    }))

  it.scoped("keeps the order of arrival, whatever the sizes", () =>
    Effect.gen(function*() {
      const { calls, commit } = yield* automatic({ maxEvents: 7, maxLength: 40 })
      const groups = Array.from(
        { length: 200 },
        (_, index) => Array.from({ length: 1 + (index * 7) % 5 }, (_, row) => `${index}.${row}`)
      )
      yield* Effect.forEach(groups, (ids) => commit.submit(group(...ids)), { concurrency: "unbounded" })
      expect(calls.flat()).toStrictEqual(groups)
      expect(calls.length).toBeLessThan(groups.length)
      expect(calls.length).toBeGreaterThan(groups.length / 7)
    }))

  it.scoped("takes callers until a write has maxEvents events; a larger group goes alone", () =>
    Effect.gen(function*() {
      const { calls, commit } = yield* automatic({ maxEvents: 3 })
      const sizes = [1, 1, 1, 2, 2, 5, 1, 3, 1]
      yield* Effect.forEach(sizes, (size) => commit.submit(group(...ids(size))), { concurrency: "unbounded" })
      const batches = calls.map((call) => call.map((rows) => rows.length))
      // the first write begins when the first caller has come, or when all have
      expect(batches[0]).toSatisfy((first) => ["1", "1,1,1"].includes(String(first)))
      expect(batches.flat()).toStrictEqual(sizes)
      for (const batch of batches) {
        expect(batch.length === 1 || batch.reduce((sum, size) => sum + size) <= 3).toBe(true)
      }
      expect(batches).toContainEqual([5])
      expect(batches.length).toBeLessThanOrEqual(7)
    }))

  it.scoped("takes callers until a write has maxLength characters of payload; a longer one goes alone", () =>
    Effect.gen(function*() {
      const { calls, commit } = yield* automatic({ maxLength: 100 })
      const lengths = [40, 40, 20, 1, 99, 1, 500, 30, 70]
      yield* Effect.forEach(lengths, (length) => commit.submit(heavy(length)), { concurrency: "unbounded" })
      const batches = calls.map((call) => call.map(([id]) => Number(id)))
      expect(batches.flat()).toStrictEqual(lengths)
      for (const batch of batches) {
        expect(batch.length === 1 || batch.reduce((sum, length) => sum + length) <= 100).toBe(true)
      }
      expect(batches.length).toBeLessThan(lengths.length)
    }))
})

describe("a store that can be asked directly", () => {
  type Done = Parameters<NonNullable<GroupCommit.Options["write"]["direct"]>>[1]

  const asked = Effect.fnUntraced(function*(direct: (names: ReadonlyArray<string>, done: Done) => void) {
    const run: Array<ReadonlyArray<string>> = []
    const commit = yield* make(Object.assign(
      (groups: ReadonlyArray<AppendGroup>) =>
        Effect.sync(() => {
          run.push(groups.flatMap(namesOf))
          return groups.map(writtenGroup)
        }),
      { direct: (groups: ReadonlyArray<AppendGroup>, done: Done) => direct(groups.flatMap(namesOf), done) }
    ))
    return { commit, run }
  })
  const answerOf = (names: ReadonlyArray<string>) => Exit.succeed(names.map((name) => writtenGroup(group(name))))

  it.scoped("is, at once, and answers once", () =>
    Effect.gen(function*() {
      const { commit, run } = yield* asked((names, done) => {
        done(answerOf(names))
        done(Exit.die("a second answer"))
      })
      expect(yield* commit.submit(group("now"))).toStrictEqual(written("now"))
      expect(run).toStrictEqual([])
    }))

  it.scoped("answers many callers later", () =>
    Effect.gen(function*() {
      const later: Array<() => void> = []
      const { commit, run } = yield* asked((names, done) => void later.push(() => done(answerOf(names))))
      const callers = yield* Effect.forEach(["a", "b"], (id) => start(commit.submit(group(id))))
      expect(later.length).toBe(1)
      later[0]!()
      yield* settleDown
      later[1]!()
      expect(yield* Effect.forEach(callers, (fiber) => Fiber.join(fiber))).toStrictEqual([written("a"), written("b")])
      expect(run).toStrictEqual([])
    }))

  it.scoped("is run as an effect where it says so, and where a caller is traced", () =>
    Effect.gen(function*() {
      const { commit, run } = yield* asked((_, done) => done(undefined))
      expect(yield* commit.submit(group("a"))).toStrictEqual(written("a"))
      expect(run).toStrictEqual([["a"]])
      const traced = yield* asked((names, done) => done(answerOf(names)))
      yield* commit.submit(group("b")).pipe(Effect.withSpan("caller"))
      yield* traced.commit.submit(group("c")).pipe(Effect.withSpan("caller"))
      expect(traced.run).toStrictEqual([["c"]])
    }))

  it.scoped("fails one caller where it throws, and goes on", () =>
    Effect.gen(function*() {
      const { commit } = yield* asked((names, done) => {
        if (names.includes("poison")) throw new Error("poison")
        done(answerOf(names))
      })
      const exits = yield* Effect.forEach(["a", "poison", "b"], (id) => Effect.exit(commit.submit(group(id))), {
        concurrency: "unbounded"
      })
      expect(exits.map(Exit.isSuccess)).toStrictEqual([true, false, true])
      expect(Exit.match(exits[1]!, { onSuccess: Option.some, onFailure: Cause.failureOption })).toMatchObject(
        Option.some({ _tag: "StoreFailure", method: "append" })
      )
    }))

  it.scoped("writes nothing any more when its time is over", () =>
    Effect.gen(function*() {
      const later: Array<() => void> = []
      const { commit, run } = yield* asked((names, done) =>
        names.includes("a") ? void later.push(() => done(undefined)) : done(answerOf(names))
      )
      const caller = yield* start(Effect.flip(commit.submit(group("a"))))
      yield* TestClock.adjust("1 minute")
      expect(yield* Fiber.join(caller)).toMatchObject({ _tag: "StoreUnavailable" })
      later[0]!()
      expect(yield* commit.submit(group("b"))).toStrictEqual(written("b"))
      expect(run).toStrictEqual([])
    }))

  const lanes = (millis: number, busy: number, pause: number, apart = 0) =>
    Effect.gen(function*() {
      const sizes: Array<number> = []
      const order: Array<string> = []
      const { commit } = yield* asked((names, done) => {
        sizes.push(names.length)
        order.push(...names)
        setTimeout(() => done(answerOf(names)), millis)
      })
      yield* commit.submit(group("before"))
      yield* Effect.sleep(pause)
      sizes.length = order.length = 0
      yield* Effect.forEach(ids(32), (lane) =>
        Effect.zipRight(
          apart === 0 ? Effect.void : Effect.sleep(Number(lane) % 2 * apart),
          Effect.forEach(ids(12), (turn) =>
            Effect.suspend(() => {
              for (const until = performance.now() + busy; performance.now() < until;);
              return commit.submit(group(`${turn}.${lane}`))
            }))
        ), { concurrency: "unbounded", discard: true })
      expect(order).toHaveLength(12 * 32)
      for (const lane of ids(32)) {
        const own = order.filter((name) => name.endsWith(`.${lane}`))
        expect(own).toStrictEqual(
          ids(12).map((turn) => `${turn}.${lane}`)
        )
      }
      return sizes.slice(0, -2)
    })

  it.scopedLive("writes half of many callers at a time where they take longer than a write", () =>
    Effect.map(lanes(2, 0.3, 0), (sizes) => expect(sizes.every((size) => size <= 20)).toBe(true)))

  it.scopedLive("writes all of them together where a write takes longer than they do, whatever time has passed", () =>
    Effect.map(lanes(60, 0.01, 300), (sizes) => expect(sizes.every((size) => size === 32)).toBe(true)))

  it.scopedLive("writes all of them together where it answers at once, also after one of them failed", () =>
    Effect.gen(function*() {
      const sizes: Array<number> = []
      const { commit } = yield* asked((names, done) => {
        sizes.push(names.length)
        done(
          names.includes("poison")
            ? Exit.fail(new StoreFailure({ method: "append", cause: new Error("poison") }))
            : answerOf(names)
        )
      })
      const lane = (first: string) =>
        Effect.forEach([first, ...ids(10)], (id) =>
          Effect.suspend(() => {
            for (const until = performance.now() + 0.1; performance.now() < until;);
            return Effect.exit(commit.submit(group(id)))
          }))
      yield* Effect.forEach(ids(32), (id) => lane(id === "3" ? "poison" : id), {
        concurrency: "unbounded",
        discard: true
      })
      // the first together, each of them alone, and from then on together
      expect(sizes).toStrictEqual([32, ...ids(32).map(() => 1), ...ids(10).map(() => 32)])
    }))

  it.scopedLive("brings those together again who come apart", () =>
    Effect.map(
      lanes(60, 0.01, 0, 30),
      (sizes) => expect(sizes.slice(2, 8).every((size) => size === 32)).toBe(true)
    ))
})

describe("a store that begins ahead", () => {
  const told = Effect.fnUntraced(function*(options: Partial<GroupCommit.Options> = {}) {
    const calls: Array<readonly ["ahead" | "write" | "run", ReadonlyArray<string>]> = []
    const groupsOf = { ahead: [] as Array<AppendGroup>, write: [] as Array<AppendGroup> }
    const answered = (groups: ReadonlyArray<AppendGroup>) => groups.map(writtenGroup)
    const commit = yield* make(
      Object.assign(
        (groups: ReadonlyArray<AppendGroup>) =>
          Effect.sync(() => {
            calls.push(["run", groups.flatMap(namesOf)])
            return answered(groups)
          }),
        {
          ahead: (groups: ReadonlyArray<AppendGroup>) => {
            calls.push(["ahead", groups.flatMap(namesOf)])
            groupsOf.ahead.push(...groups)
          },
          direct: (
            groups: ReadonlyArray<AppendGroup>,
            done: (exit: Exit.Exit<ReadonlyArray<GroupResult>>) => void
          ) => {
            calls.push(["write", groups.flatMap(namesOf)])
            groupsOf.write.push(...groups)
            setImmediate(() => done(Exit.succeed(answered(groups))))
          }
        }
      ),
      options
    )
    const submit = (names: ReadonlyArray<string>) =>
      Effect.forEach(names, (name) => commit.submit(group(name)), { concurrency: "unbounded", discard: true })
    return { calls, commit, groupsOf, submit }
  })

  it.scoped("is told of the callers that wait, in order, and the write begins with them as they are", () =>
    Effect.gen(function*() {
      const { calls, groupsOf, submit } = yield* told()
      yield* submit(ids(40))
      expect(calls).toStrictEqual([
        ["ahead", ids(16)],
        ["ahead", ids(32).slice(16)],
        ["write", ids(40)]
      ])
      expect(groupsOf.ahead.every((one, index) => one === groupsOf.write[index])).toBe(true)
      calls.length = 0
      yield* submit(ids(15))
      expect(calls).toStrictEqual([["write", ids(15)]])
    }))

  it.scoped("is told of those who came during a write once that is over, and of none before", () =>
    Effect.gen(function*() {
      const { calls, submit } = yield* told()
      const first = yield* Effect.fork(submit(["a", "b"]))
      yield* settleDown
      yield* submit(ids(20))
      yield* Fiber.join(first)
      expect(calls).toStrictEqual([["write", ["a", "b"]], ["ahead", ids(20)], ["write", ids(20)]])
    }))

  it.scoped("is told of nobody who is traced, and of no more than one write takes", () =>
    Effect.gen(function*() {
      const traced = yield* told()
      yield* Effect.withSpan(traced.submit(ids(32)), "caller")
      expect(traced.calls).toStrictEqual([["run", ids(32)]])
      const { calls, submit } = yield* told({ maxEvents: 32 })
      yield* submit(ids(64))
      expect(calls.map(([what, names]) => [what, names.length])).toStrictEqual([
        ["ahead", 16],
        ["ahead", 16],
        ["write", 32],
        ["ahead", 32],
        ["write", 32]
      ])
    }))

  it.scoped("is asked for no half of many callers", () =>
    Effect.gen(function*() {
      const { calls, submit } = yield* told()
      const lane = Effect.forEach(ids(10), () =>
        Effect.suspend(() => {
          for (const until = performance.now() + 0.2; performance.now() < until;);
          return submit(["a"])
        }))
      yield* submit(["a"])
      yield* Effect.all(ids(32).map(() => lane), { concurrency: "unbounded", discard: true })
      const sizes = calls.filter(([what]) => what === "write").map(([, names]) => names.length)
      expect(sizes.slice(1)).toStrictEqual(ids(10).map(() => 32))
    }))
})

describe("back-pressure", () => {
  it.scoped("has room until capacity events wait; then callers are held back until the next write takes some", () =>
    Effect.gen(function*() {
      const { commit, next } = yield* controlled({ capacity: 3 })
      yield* start(commit.submit(group("a")))
      const write = yield* next
      yield* commit.room
      yield* start(commit.submit(group("b", "c")))
      yield* commit.room
      yield* start(commit.submit(group("d")))
      const held = yield* start(commit.room)
      yield* settleDown
      expect(yield* held.poll).toStrictEqual(Option.none())
      yield* write.succeed
      yield* Fiber.join(held)
    }))

  it.scoped("lets in as many of those held back as there is room for, first come first", () =>
    Effect.gen(function*() {
      const { commit, next } = yield* controlled({ capacity: 2 })
      const append = (id: string) => start(Effect.zipRight(commit.room, commit.submit(group(id))))
      const names = Array.from({ length: 20 }, (_, index) => `n${index}`)
      yield* append("a")
      let write = yield* next
      const callers = yield* Effect.forEach(names, append)
      const seen: Array<string> = []
      while (seen.length < names.length) {
        yield* write.succeed
        write = yield* next
        expect(write.ids.length).toBeLessThanOrEqual(2)
        seen.push(...write.ids.flat())
        yield* settleDown
      }
      yield* write.succeed
      yield* Effect.forEach(callers, (fiber) => Fiber.join(fiber))
      expect(seen).toStrictEqual(names)
    }))

  it.scoped("gives the room of an interrupted caller to others", () =>
    Effect.gen(function*() {
      const { commit, next } = yield* controlled({ capacity: 1 })
      yield* start(commit.submit(group("a")))
      yield* next
      const queued = yield* start(commit.submit(group("b")))
      yield* Fiber.interrupt(queued)
      yield* commit.room
    }))
})

describe("interruption", () => {
  it.scoped("of a caller in the queue: it ends at once and is never written", () =>
    Effect.gen(function*() {
      const { commit, next, pending } = yield* controlled()
      yield* start(commit.submit(group("a")))
      const write = yield* next
      const [b, c] = yield* Effect.all([start(commit.submit(group("b"))), start(commit.submit(group("c")))])
      expect(Exit.isInterrupted(yield* Fiber.interrupt(b))).toBe(true)
      yield* write.succeed
      const second = yield* next
      expect(second.ids).toStrictEqual([["c"]])
      yield* second.succeed
      yield* Fiber.join(c)
      yield* settleDown
      expect(yield* pending).toBe(0)
    }))

  it.scoped("of all callers in the queue: nothing is written, and the next one is", () =>
    Effect.gen(function*() {
      const { commit, next, pending } = yield* controlled()
      const a = yield* start(commit.submit(group("a")))
      const write = yield* next
      const b = yield* start(commit.submit(group("b")))
      yield* Fiber.interrupt(b)
      yield* write.succeed
      yield* Fiber.join(a)
      yield* settleDown
      expect(yield* pending).toBe(0)
      yield* start(commit.submit(group("c")))
      expect((yield* next).ids).toStrictEqual([["c"]])
    }))

  it.scoped("of a lone caller whose write began in its own step: the write is settled first", () =>
    Effect.gen(function*() {
      const { commit, interrupted, next, pending } = yield* controlled()
      const caller = yield* start(Effect.zipRight(commit.submit(group("a")), commit.submit(group("b"))))
      yield* Effect.flatMap(next, (write) => write.succeed)
      yield* settleDown
      expect(yield* pending).toBe(1)
      const interruption = yield* start(Fiber.interrupt(caller))
      expect(Option.isNone(yield* Fiber.poll(interruption))).toBe(true)
      const write = yield* next
      expect(write.ids).toStrictEqual([["b"]])
      yield* write.succeed
      expect(Exit.isInterrupted(yield* Fiber.join(interruption))).toBe(true)
      expect(interrupted()).toBe(0)
      yield* works(commit, next)
    }))

  it.scoped("of a caller whose write is under way: the write is settled first", () =>
    Effect.gen(function*() {
      const { commit, interrupted, next } = yield* controlled()
      const [a, b] = yield* Effect.all([start(commit.submit(group("a"))), start(commit.submit(group("b")))])
      const write = yield* next
      yield* Fiber.interruptFork(a)
      yield* settleDown
      expect(yield* a.poll).toStrictEqual(Option.none())
      expect(interrupted()).toBe(0)
      yield* write.succeed
      expect(Exit.isInterrupted(yield* Fiber.await(a))).toBe(true)
      // b was in the same write or is in the next
      if (write.ids.length === 1) yield* (yield* next).succeed
      expect(yield* Fiber.join(b)).toStrictEqual(written("b"))
      expect(interrupted()).toBe(0)
    }))
})

describe("failures", () => {
  const failure = new StoreFailure({ method: "append", cause: new Error("check constraint") })
  const aborted = new TransactionAborted({ reason: "deadlock" })
  const unavailable = new StoreUnavailable({ reason: "no server" })

  it.scoped.each<StoreError>([failure, aborted])(
    "of one caller's content ($_tag): each is written alone, in order, and only the guilty one fails",
    (error) =>
      Effect.gen(function*() {
        const { callers, next, commit } = yield* queued(["b", "bad", "c"])
        const shared = yield* next
        expect(shared.ids).toStrictEqual([["b"], ["bad"], ["c"]])
        yield* shared.fail(error)
        for (const id of ["b", "bad", "c"]) {
          const alone = yield* next
          expect(alone.ids).toStrictEqual([[id]])
          yield* id === "bad" ? alone.fail(error) : alone.succeed
        }
        const exits = yield* Effect.forEach(callers, (fiber) => Fiber.await(fiber))
        expect(exits).toStrictEqual([Exit.succeed(written("b")), Exit.fail(error), Exit.succeed(written("c"))])
        yield* works(commit, next)
      })
  )

  it.scoped("of a lone caller is not repeated", () =>
    Effect.gen(function*() {
      const { commit, next, pending } = yield* controlled()
      const caller = yield* start(commit.submit(group("bad")))
      yield* (yield* next).fail(failure)
      expect(yield* Fiber.await(caller)).toStrictEqual(Exit.fail(failure))
      yield* settleDown
      expect(yield* pending).toBe(0)
      yield* works(commit, next)
    }))

  it.scoped("of the store fail all its callers at once", () =>
    Effect.gen(function*() {
      const { callers, commit, next, pending } = yield* queued(["b", "c"])
      yield* (yield* next).fail(unavailable)
      const exits = yield* Effect.forEach(callers, (fiber) => Fiber.await(fiber))
      expect(exits).toStrictEqual([Exit.fail(unavailable), Exit.fail(unavailable)])
      yield* settleDown
      expect(yield* pending).toBe(0)
      yield* works(commit, next)
    }))

  it.scoped("of the store while callers are written alone fail only the caller that they meet", () =>
    Effect.gen(function*() {
      const { callers, next } = yield* queued(["b", "c"])
      yield* (yield* next).fail(failure)
      yield* (yield* next).fail(unavailable)
      yield* (yield* next).succeed
      const exits = yield* Effect.forEach(callers, (fiber) => Fiber.await(fiber))
      expect(exits).toStrictEqual([Exit.fail(unavailable), Exit.succeed(written("c"))])
    }))

  it.scoped.each<[string, (id: string) => Effect.Effect<never>]>([
    ["dies", (id) => Effect.die(new Error(id))],
    ["throws within the effect", (id) =>
      Effect.suspend(() => {
        throw new Error(id)
      })],
    ["throws instead of answering an effect", (id) => {
      throw new Error(id)
    }],
    ["interrupts itself", () => Effect.interrupt]
  ])(
    "a write that %s: StoreFailure for those it concerns, and the next callers are served",
    ([, hostile]) =>
      Effect.gen(function*() {
        const calls: Array<ReadonlyArray<string>> = []
        const commit = yield* make((groups) => {
          const names = groups.flatMap(namesOf)
          calls.push(names)
          return names.includes("bad") ? hostile("bad") : Effect.succeed(groups.map(writtenGroup))
        })
        const exits = yield* Effect.forEach(["b", "bad", "c"], (id) => Effect.exit(commit.submit(group(id))), {
          concurrency: "unbounded"
        })
        expect(exits[0]).toStrictEqual(Exit.succeed(written("b")))
        expect(exits[2]).toStrictEqual(Exit.succeed(written("c")))
        expect(Exit.match(exits[1]!, { onFailure: Cause.failureOption, onSuccess: Option.some })).toMatchObject(
          Option.some({ _tag: "StoreFailure", method: "append" })
        )
        expect(yield* commit.submit(group("d"))).toStrictEqual(written("d"))
        expect(calls.at(-1)).toStrictEqual(["d"])
      })
  )

  it.scoped("of a write with thousands of callers overflow no stack", () =>
    Effect.gen(function*() {
      const commit = yield* make(
        (groups) => groups.length > 1 ? Effect.fail(failure) : Effect.succeed(groups.map(writtenGroup)),
        { maxEvents: 20_000 }
      )
      const results = yield* Effect.forEach(ids(20_000), (id) => commit.submit(group(id)), {
        concurrency: "unbounded"
      })
      expect(results).toHaveLength(20_000)
      expect(results[19_999]).toStrictEqual(written("19999"))
    }))
})

describe("a write that does not answer", () => {
  it.scoped("fails its callers with an unknown outcome after the timeout, not before; the next ones are written", () =>
    Effect.gen(function*() {
      const { commit, next } = yield* controlled({ timeout: "10 seconds" })
      const caller = yield* start(commit.submit(group("a")))
      const lost = yield* next
      const waiting = yield* start(commit.submit(group("b")))
      yield* TestClock.adjust("9999 millis")
      expect(yield* caller.poll).toStrictEqual(Option.none())
      yield* TestClock.adjust("1 millis")
      expect(yield* Effect.flip(Fiber.join(caller))).toMatchObject({
        _tag: "StoreUnavailable",
        reason: expect.stringContaining("unknown")
      })
      const write = yield* next
      expect(write.ids).toStrictEqual([["b"]])
      yield* write.succeed
      expect(yield* Fiber.join(waiting)).toStrictEqual(written("b"))
      // the lost answer comes after all, and means nothing to anybody
      yield* lost.succeed
      yield* works(commit, next)
    }))

  it.scoped("is timed from its own beginning, whatever was written before it", () =>
    Effect.gen(function*() {
      const { commit, next } = yield* controlled({ timeout: "10 seconds" })
      yield* start(commit.submit(group("a")))
      yield* TestClock.adjust("3 seconds")
      yield* (yield* next).succeed
      yield* TestClock.adjust("3 seconds")
      const caller = yield* start(commit.submit(group("b")))
      yield* next
      yield* TestClock.adjust("9999 millis")
      expect(yield* caller.poll).toStrictEqual(Option.none())
      yield* TestClock.adjust("1 millis")
      expect(yield* Effect.flip(Fiber.join(caller))).toMatchObject({ _tag: "StoreUnavailable" })
      // and after a time without any
      yield* start(commit.submit(group("c")))
      yield* (yield* next).succeed
      yield* TestClock.adjust("1 minute")
      const last = yield* start(commit.submit(group("d")))
      yield* next
      yield* TestClock.adjust("10 seconds")
      expect(yield* Effect.flip(Fiber.join(last))).toMatchObject({ _tag: "StoreUnavailable" })
    }))

  it.scoped("releases a caller that was interrupted meanwhile", () =>
    Effect.gen(function*() {
      const { commit, next } = yield* controlled({ timeout: "10 seconds" })
      const caller = yield* start(commit.submit(group("a")))
      yield* next
      yield* Fiber.interruptFork(caller)
      yield* TestClock.adjust("10 seconds")
      expect(Exit.isInterrupted(yield* Fiber.await(caller))).toBe(true)
    }))
})

describe("closing", () => {
  const closedError = { _tag: "StoreUnavailable", reason: expect.stringContaining("closed") }

  it.effect("waits for what is under way and for the queue, then refuses", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { commit, next } = yield* Scope.extend(manual(), scope)
      const first = yield* start(commit.submit(group("a")))
      const write = yield* next
      const second = yield* start(commit.submit(group("b")))
      const closing = yield* start(Scope.close(scope, Exit.void))
      yield* settleDown
      expect(yield* closing.poll).toStrictEqual(Option.none())
      expect(yield* Effect.flip(commit.submit(group("late")))).toMatchObject(closedError)
      yield* write.succeed
      const rest = yield* next
      expect(rest.ids).toStrictEqual([["b"]])
      yield* rest.succeed
      yield* Fiber.join(closing)
      expect([yield* Fiber.join(first), yield* Fiber.join(second)]).toStrictEqual([written("a"), written("b")])
      yield* commit.room
      expect(yield* Effect.flip(commit.submit(group("later")))).toMatchObject(closedError)
    }))

  it.effect("of an idle queue is immediate", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { commit } = yield* Scope.extend(automatic(), scope)
      yield* commit.submit(group("a"))
      yield* Scope.close(scope, Exit.void)
      expect(yield* Effect.flip(commit.submit(group("b")))).toMatchObject(closedError)
    }))

  it.effect("leaves nobody waiting: neither a write that never answers, nor the queue, nor those held back", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { commit, next } = yield* Scope.extend(manual({ timeout: "10 seconds", maxEvents: 1, capacity: 3 }), scope)
      const names = ["a", "b", "c", "d"]
      const callers = yield* Effect.forEach(names, (id) => start(Effect.exit(commit.submit(group(id)))))
      yield* next
      const held = yield* start(Effect.exit(Effect.zipRight(commit.room, commit.submit(group("held")))))
      yield* TestClock.adjust("5 seconds")
      const closing = yield* start(Scope.close(scope, Exit.void))
      yield* settleDown
      // a is lost after 10 seconds, then b is written and lost too, and so on: nothing answers ever again
      yield* Effect.replicateEffect(Effect.zipRight(TestClock.adjust("10 seconds"), settleDown), 10)
      yield* Fiber.join(closing)
      const exits = yield* Effect.forEach([...callers, held], (fiber) => Fiber.join(fiber))
      for (const exit of exits) {
        expect(Exit.match(exit, { onFailure: Cause.failureOption, onSuccess: Option.some })).toMatchObject(
          Option.some({ _tag: "StoreUnavailable" })
        )
      }
    }))
})

describe("whose fiber it is", () => {
  class Secret extends Context.Tag("test/Secret")<Secret, string>() {}

  it.scoped("writes with an empty context: neither the caller's nor the maker's transaction comes along", () =>
    Effect.gen(function*() {
      const contexts: Array<ReadonlyArray<string>> = []
      const commit = yield* make((groups) =>
        Effect.map(Effect.context<never>(), (context) => {
          contexts.push(Array.from(context.unsafeMap.keys()))
          return groups.map(writtenGroup)
        })
      ).pipe(Effect.provideService(Secret, "maker"))
      yield* commit.submit(group("a")).pipe(Effect.provideService(Secret, "caller"))
      yield* Effect.forEach(["b", "c"], (id) => commit.submit(group(id)), { concurrency: "unbounded" }).pipe(
        Effect.provideService(Secret, "caller")
      )
      expect(contexts.length).toBeGreaterThan(1)
      for (const keys of contexts) expect(keys).not.toContain(Secret.key)
      expect(contexts.flat().filter((key) => key !== Tracer.ParentSpan.key)).toStrictEqual([])
    }))

  it.scoped("traces a commit as a root span that is linked to the spans of its callers", () =>
    Effect.gen(function*() {
      const spans: Array<Tracer.Span> = []
      const native = yield* Effect.tracer
      const tracer = Tracer.make({
        span: (...args) => {
          const span = native.span(...args)
          spans.push(span)
          return span
        },
        context: native.context
      })
      yield* Effect.gen(function*() {
        const { commit, next } = yield* controlled()
        const first = yield* start(commit.submit(group("a")).pipe(Effect.withSpan("caller a")))
        const write = yield* next
        const others = yield* Effect.all([
          start(commit.submit(group("b")).pipe(Effect.withSpan("caller b"))),
          start(commit.submit(group("c")).pipe(Effect.withSpan("caller c")))
        ])
        yield* write.succeed
        yield* Fiber.join(first)
        yield* (yield* next).fail(new StoreUnavailable({ reason: "no server" }))
        yield* Effect.forEach(others, (fiber) => Fiber.await(fiber))
      }).pipe(Effect.withTracer(tracer), Effect.withSpan("starter"))
      const commits = spans.filter((span) => span.name === "Ledger.commit")
      expect(commits.map((span) => span.parent)).toStrictEqual([Option.none(), Option.none()])
      expect(commits.map(linkedNames)).toStrictEqual([["caller a"], ["caller b", "caller c"]])
      expect(commits.map((span) => span.attributes.get("ledger.callers"))).toStrictEqual([1, 2])
      expect(commits.map((span) => span.status._tag === "Ended" && span.status.exit._tag)).toStrictEqual([
        "Success",
        "Failure"
      ])
      expect(new Set(commits.map((span) => span.traceId)).size).toBe(2)
    }))
})

interface Write {
  readonly groups: ReadonlyArray<AppendGroup>
  readonly ids: ReadonlyArray<ReadonlyArray<string>>
  readonly succeed: Effect.Effect<void>
  readonly answer: (f: (groups: ReadonlyArray<AppendGroup>) => ReadonlyArray<GroupResult>) => Effect.Effect<void>
  readonly fail: (error: StoreError) => Effect.Effect<void>
}

const make = (write: GroupCommit.Options["write"], options: Partial<GroupCommit.Options> = {}) =>
  GroupCommit.make({ write, maxEvents: 1000, maxLength: 1e6, capacity: 1e5, timeout: "1 minute", ...options })

/** As `manual`, and at the end of the test every write is answered, or closing would wait for the test's clock. */
const controlled = Effect.fnUntraced(function*(options: Partial<GroupCommit.Options> = {}) {
  const harness = yield* manual(options)
  yield* Effect.addFinalizer(() => harness.release)
  return harness
})

/** Every write waits until the test has it (`next`) and settles it. */
const manual = Effect.fnUntraced(function*(options: Partial<GroupCommit.Options> = {}) {
  const writes = yield* Queue.unbounded<Write>()
  const open: Array<Effect.Effect<void>> = []
  let released = false
  let interrupted = 0
  const commit = yield* make((groups) =>
    Effect.gen(function*() {
      const settled = yield* Deferred.make<ReadonlyArray<GroupResult>, StoreError>()
      const answer: Write["answer"] = (f) => Effect.asVoid(Deferred.succeed(settled, f(groups)))
      yield* Queue.offer(writes, {
        groups,
        ids: groups.map(namesOf),
        succeed: answer((groups) => groups.map(writtenGroup)),
        answer,
        fail: (error) => Effect.asVoid(Deferred.fail(settled, error))
      })
      const succeed = answer((groups) => groups.map(writtenGroup))
      if (released) yield* succeed
      open.push(succeed)
      return yield* Deferred.await(settled)
    }).pipe(Effect.onInterrupt(() => Effect.sync(() => interrupted++))), options)
  return {
    commit,
    next: Queue.take(writes),
    pending: Queue.size(writes),
    interrupted: () => interrupted,
    release: Effect.suspend(() => {
      released = true
      return Effect.all(open, { discard: true })
    })
  }
})

/** A first write is under way, and these callers wait for the next one, which begins when `next` is asked for. */
const queued = Effect.fnUntraced(function*(names: ReadonlyArray<string>) {
  const { commit, next, pending } = yield* controlled()
  yield* start(commit.submit(group("first")))
  const first = yield* next
  const callers = yield* Effect.forEach(names, (id) => start(commit.submit(group(id))))
  yield* first.succeed
  return { callers, commit, next, pending }
})

/** Every write succeeds when its turn comes. */
const automatic = Effect.fnUntraced(function*(options: Partial<GroupCommit.Options> = {}) {
  const calls: Array<ReadonlyArray<ReadonlyArray<string>>> = []
  const commit = yield* make((groups) =>
    Effect.zipRight(
      Effect.yieldNow(),
      Effect.sync(() => {
        calls.push(groups.map(namesOf))
        return groups.map(writtenGroup)
      })
    ), options)
  return { commit, calls }
})

const works = (commit: GroupCommit.GroupCommit, next: Effect.Effect<Write>) =>
  Effect.gen(function*() {
    const caller = yield* start(commit.submit(group("after")))
    const write = yield* next
    expect(write.ids).toStrictEqual([["after"]])
    yield* write.succeed
    expect(yield* Fiber.join(caller)).toStrictEqual(written("after"))
  })

/** Every fiber that can go on without the clock has done so. */
const settleDown = Effect.replicateEffect(Effect.yieldNow(), 50)

const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.zipLeft(Effect.fork(effect), settleDown)

const ids = (count: number): ReadonlyArray<string> => Array.from({ length: count }, (_, index) => String(index))

const group = (...ids: ReadonlyArray<string>): AppendGroup => ({
  rows: ids.map((id) => row(id, "{}")) as unknown as NonEmptyReadonlyArray<Row>,
  condition: undefined
})

const heavy = (length: number): AppendGroup => ({
  rows: [row(String(length), "x".repeat(length))],
  condition: undefined
})

const row = (id: string, payload: string): Row => ({
  id,
  runId: "r",
  turn: 0,
  kind: "a.b",
  actor: "ada",
  payload,
  createdAt: 0,
  schemaVersion: 1,
  sessionId: null,
  modelProfile: null,
  modelId: null,
  digest: ""
})

const namesOf = (group: AppendGroup): ReadonlyArray<string> => group.rows.map((row) => row.id)

// an offset that tells whose answer it is
const written = (...ids: ReadonlyArray<string>): GroupResult => ({
  _tag: "Written",
  outcomes: ids.map((id) => ({
    offset: Array.from(id).reduce((sum, char) => sum * 131 + char.charCodeAt(0), 0),
    status: "appended"
  }))
})

const writtenGroup = (group: AppendGroup): GroupResult => written(...namesOf(group))

const linkedNames = (span: Tracer.Span): ReadonlyArray<string> =>
  span.links.map(({ span }) => span._tag === "Span" ? span.name : "external")

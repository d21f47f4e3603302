/** Law 8 for every query, against the definition in plain JavaScript, and the queries that are refused. */
import { describe, expect, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type { Event } from "../../src/Event.js"
import { InvalidQuery, LedgerReplaced } from "../../src/LedgerError.js"
import type { Filter, Query } from "../../src/Query.js"
import type { Backend } from "./Backend.js"
import { epoch, event, events, filters, matches, world } from "./fixtures.js"
import { collect, expectEvents, failure, type Handle, open, recordedAt, shared } from "./handle.js"

export const query = (backend: Backend): void => {
  describe("law 8: a query answers what its words say", () => {
    const all = recordedAt(1, world(400))
    const handle = shared(() =>
      Layer.unwrapScoped(Effect.map(
        Effect.tap(open(backend.layer()), ({ ledger }) => ledger.appendAll(world(400))),
        ({ context }) => Layer.succeedContext(context)
      ))
    )
    const answer = ({ after, direction, filter, limit, through }: Query) => {
      const chosen = all.filter((one) =>
        one.offset > (typeof after === "object" ? after.after : after ?? 0) &&
        one.offset <= (through ?? Infinity) &&
        matches(filter, one)
      )
      return (direction === "backward" ? chosen.toReversed() : chosen).slice(0, limit)
    }
    const expectAnswer = Effect.fnUntraced(function*({ ledger }: Handle, query: Query) {
      expectEvents(yield* collect(ledger.read(query)), answer(query))
    })
    const at = (minute: number) => DateTime.unsafeMake(epoch + minute * 60_000)

    it.live.each<readonly [string, Query]>([
      ["nothing said", {}],
      ["an empty filter", { filter: {} }],
      ["one run", { filter: { runId: "run-2" } }],
      ["one kind", { filter: { kinds: ["tool.called"] } }],
      ["several kinds", { filter: { kinds: ["tool.called", "agent.spoke", "never.seen"] } }],
      ["one actor", { filter: { actors: ["bob"] } }],
      ["several actors", { filter: { actors: ["bob", "ada"] } }],
      ["one session", { filter: { sessionIds: ["night"] } }],
      ["several sessions", { filter: { sessionIds: ["night", "morning"] } }],
      ["one model", { filter: { modelIds: ["small"] } }],
      ["several models", { filter: { modelIds: ["small", "large"] } }],
      ["a member said twice", { filter: { kinds: ["tool.called", "tool.called"] } }],
      ["from a time, inclusive", { filter: { createdFrom: at(5) } }],
      ["until a time, exclusive", { filter: { createdUntil: at(5) } }],
      ["one instant", { filter: { createdFrom: at(5), createdUntil: DateTime.add(at(5), { millis: 1 }) } }],
      ["no time at all", { filter: { createdFrom: at(5), createdUntil: at(5) } }],
      ["a time in a zone", { filter: { createdFrom: DateTime.setZoneOffset(at(5), 3_600_000) } }],
      ["all fields together", {
        filter: {
          runId: "run-1",
          kinds: ["agent.spoke", "agent.acted"],
          actors: ["ada", "bob", "cyd"],
          sessionIds: ["morning", "night"],
          modelIds: ["small", "large"],
          createdFrom: at(1),
          createdUntil: at(18)
        }
      }],
      ["several filters that overlap", {
        filter: [{ runId: "run-1" }, { kinds: ["agent.spoke"] }, { actors: ["ada", "bob"] }, { runId: "run-1" }]
      }],
      ["several filters, one of them empty", { filter: [{ runId: "run-1" }, {}] }],
      ["a filter with undefined fields", { filter: { runId: undefined, kinds: undefined } }],
      ["sixty filters", {
        filter: Array.from({ length: 60 }, (_, n): Filter => ({ runId: "run-1", actors: ["ada"], createdFrom: at(n) }))
      }],
      ["after", { after: 123 }],
      ["through", { through: 123 }],
      ["between", { after: 17, through: 300 }],
      ["after equals through", { after: 50, through: 50 }],
      ["after lies beyond through", { after: 60, through: 50 }],
      ["through lies beyond the head", { after: 390, through: 10_000 }],
      ["after is the head", { after: 400 }],
      ["nothing, please", { limit: 0 }],
      ["a limit", { limit: 10 }],
      ["a limit with a filter", { limit: 10, filter: { runId: "run-3" } }],
      ["a limit larger than the answer", { limit: 1000, filter: { runId: "run-3" } }]
    ])("law 8: %s, and backwards the exact reverse", ([, query]) =>
      Effect.gen(function*() {
        const opened = yield* handle
        yield* expectAnswer(opened, query)
        yield* expectAnswer(opened, { ...query, direction: "forward" })
        yield* expectAnswer(opened, { ...query, direction: "backward" })
        const { limit: _, ...unlimited } = query
        const forward = yield* collect(opened.ledger.read(unlimited))
        const backward = yield* collect(opened.ledger.read({ ...unlimited, direction: "backward" }))
        expectEvents(backward.toReversed(), forward)
      }))

    it.live("law 8: a filter may name thousands of members", () =>
      Effect.gen(function*() {
        const opened = yield* handle
        const many = (count: number) => Array.from({ length: count }, (_, n) => `member-${n}`)
        yield* expectAnswer(opened, { filter: { actors: [...many(5000), "ada"] } })
        yield* expectAnswer(opened, { filter: [{ sessionIds: [...many(40_000), "night"] }, { runId: "run-1" }] })
      }))

    it.scopedLive("law 8: by time, in a ledger that is long, with times that come and go", () =>
      Effect.gen(function*() {
        const { ledger } = yield* open(backend.layer())
        // four times a day passes; now and then comes one from long ago, or from far ahead
        const minutes = Array.from({ length: 18_500 }, (_, n) => n === 11_111 ? 2 : n === 5000 ? 900_000 : n % 4625)
        const long = recordedAt(
          1,
          minutes.map((minute, n) =>
            event(`long-${n}`, { createdAt: at(minute), kind: n % 5 === 0 ? "tool.called" : "agent.spoke" })
          )
        )
        yield* ledger.appendAll(long.map(({ offset: _, ...event }) => event))
        const filters: ReadonlyArray<Filter | ReadonlyArray<Filter>> = [
          { createdFrom: at(899_999) },
          { createdFrom: at(4600) },
          { createdUntil: at(3) },
          { createdFrom: at(4624), createdUntil: at(4625) },
          { createdFrom: at(2), createdUntil: at(3), kinds: ["tool.called"] },
          { createdFrom: at(5000), createdUntil: at(6000) },
          [{ createdFrom: at(900_000) }, { createdUntil: at(1) }],
          [{ createdFrom: at(900_000) }, { kinds: ["tool.called"], createdUntil: at(50) }],
          [{ createdFrom: at(900_000) }, { kinds: ["never.seen"] }]
        ]
        const ranges: ReadonlyArray<Pick<Query, "after" | "through" | "limit">> = [
          {},
          { after: 4096, through: 12_288 },
          { after: 9000, limit: 7 },
          { after: 16_384 },
          { through: 8191, limit: 3 }
        ]
        for (const filter of filters) {
          for (const range of ranges) {
            for (const direction of ["forward", "backward"] as const) {
              const chosen = long.filter((one) =>
                one.offset > Number(range.after ?? 0) && one.offset <= (range.through ?? Infinity) &&
                matches(filter, one)
              )
              const found = yield* collect(ledger.read({ ...range, filter, direction }))
              expectEvents(found, (direction === "backward" ? chosen.toReversed() : chosen).slice(0, range.limit))
            }
          }
        }
      }))

    const query = FastCheck.record({
      filter: filters,
      after: FastCheck.nat(400),
      through: FastCheck.nat(450),
      direction: FastCheck.constantFrom("forward" as const, "backward" as const),
      limit: FastCheck.nat(60)
    }, { requiredKeys: [] })

    it.live.prop(
      "law 8: any query answers as the definition says",
      { query },
      ({ query }) => Effect.flatMap(handle, (opened) => expectAnswer(opened, query)),
      { fastCheck: { numRuns: 150 } }
    )
  })

  describe("a cursor from another log", () => {
    it.scopedLive("law 8: a cursor beyond the head fails LedgerReplaced, and never silently skips", () =>
      Effect.gen(function*() {
        const { ledger } = yield* open(backend.layer())
        yield* ledger.appendAll(events(3))
        const incarnation = yield* ledger.incarnation
        const bare = yield* failure(collect(ledger.tail(4)))
        expect(bare).toMatchObject({ _tag: "LedgerReplaced", expected: null, found: incarnation, head: 3 })
        const full = yield* failure(
          collect(ledger.read({ after: { after: 9, incarnation }, direction: "backward" }))
        )
        expect(full).toMatchObject({ _tag: "LedgerReplaced", expected: incarnation, found: incarnation, head: 3 })
        expect(yield* failure(collect(ledger.read({ after: 4, limit: 0 })))).toBeInstanceOf(LedgerReplaced)
      }))

    it.scopedLive("hazard: after reset an old cursor fails LedgerReplaced, however far the ledger has grown again", () =>
      Effect.gen(function*() {
        const { admin, ledger } = yield* open(backend.layer())
        yield* ledger.appendAll(events(3))
        const cursor = { after: 2, incarnation: yield* ledger.incarnation }
        expectEvents(yield* collect(ledger.tail(cursor)), recordedAt(3, events(3).slice(2)))
        yield* admin.reset
        const found = yield* ledger.incarnation
        expect(found).not.toBe(cursor.incarnation)
        expect(yield* failure(collect(ledger.tail(cursor)))).toMatchObject({
          _tag: "LedgerReplaced",
          expected: cursor.incarnation,
          found,
          head: 0
        })
        yield* ledger.appendAll(events(5, "new"))
        expect(yield* failure(collect(ledger.tail(cursor)))).toMatchObject({
          _tag: "LedgerReplaced",
          expected: cursor.incarnation,
          found,
          head: 5
        })
        expect((yield* collect(ledger.tail({ after: 2, incarnation: found }))).length).toBe(3)
      }))

    it.scopedLive("reset deletes every event, and offsets begin at 1 again", () =>
      Effect.gen(function*() {
        const { admin, ledger, store } = yield* open(backend.layer())
        yield* ledger.appendAll(events(3))
        yield* admin.reset
        expect(yield* ledger.events).toStrictEqual([])
        expect(yield* ledger.runs).toStrictEqual([])
        expect(yield* ledger.eventsForRun("run-1")).toStrictEqual([])
        expect((yield* ledger.get("event-1"))._tag).toBe("None")
        expect(yield* store.head).toMatchObject({ offset: 0, digest: null })
        expect(yield* ledger.append(event("event-2", { turn: 9 }))).toMatchObject({ _tag: "Appended", offset: 1 })
        yield* admin.reset
        yield* admin.reset
        expect(yield* ledger.latestOffset).toBe(0)
      }))

    it.scopedLive("a reset under a reader's feet fails the reader with LedgerReplaced", () =>
      Effect.gen(function*() {
        const { admin, ledger } = yield* open(backend.layer())
        yield* ledger.appendAll(events(2500))
        const incarnation = yield* ledger.incarnation
        let done = false
        const seen: Array<Event> = []
        const error = yield* failure(Stream.runForEach(ledger.tail(), (one) => {
          seen.push(one)
          if (done) return Effect.void
          done = true
          return Effect.zipRight(admin.reset, ledger.appendAll(events(2500, "new")))
        }))
        expect(error).toMatchObject({
          _tag: "LedgerReplaced",
          expected: incarnation,
          found: yield* ledger.incarnation,
          head: 2500
        })
        expect(seen.filter((one) => !one.id.startsWith("event-"))).toStrictEqual([])
      }))
  })

  describe("law 17: a bad query is refused, and nothing is read", () => {
    const handle = shared(backend.layer)
    const late = DateTime.unsafeMake(253402300800000)
    const bad: ReadonlyArray<readonly [name: string, query: unknown, path: string]> = [
      ["a query that is no object", 1, "query"],
      ["null", null, "query"],
      ["an unknown field", { filters: {} }, "query.filters"],
      ["an unknown field in a filter", { filter: { runid: "x" } }, "filter.runid"],
      ["an unknown field in the second filter", { filter: [{}, { kind: "x.y" }] }, "filter[1].kind"],
      ["no filters", { filter: [] }, "filter"],
      ["a filter that is no object", { filter: "run-1" }, "filter"],
      ["null as a filter", { filter: null }, "filter"],
      ["no kinds", { filter: { kinds: [] } }, "filter.kinds"],
      ["no actors", { filter: { actors: [] } }, "filter.actors"],
      ["no sessions", { filter: { sessionIds: [] } }, "filter.sessionIds"],
      ["no models", { filter: { modelIds: [] } }, "filter.modelIds"],
      ["kinds that are no array", { filter: { kinds: "agent.spoke" } }, "filter.kinds"],
      ["a kind that is none", { filter: { kinds: ["agent.spoke", "Agent"] } }, "filter.kinds[1]"],
      ["null as a session", { filter: { sessionIds: [null] } }, "filter.sessionIds[0]"],
      ["an empty run id", { filter: { runId: "" } }, "filter.runId"],
      ["a NUL", { filter: { actors: ["a\0"] } }, "filter.actors[0]"],
      ["a lone surrogate", { filter: { modelIds: ["\udc00"] } }, "filter.modelIds[0]"],
      ["a name that is too long", { filter: [{ actors: ["x".repeat(256)] }] }, "filter[0].actors[0]"],
      ["a time as text", { filter: { createdFrom: "2026-01-01" } }, "filter.createdFrom"],
      ["a Date", { filter: { createdUntil: new Date(0) } }, "filter.createdUntil"],
      ["a time after the year 9999", { filter: { createdUntil: late } }, "filter.createdUntil"],
      ["a negative after", { after: -1 }, "after"],
      ["a fractional after", { after: 1.5 }, "after"],
      ["NaN", { after: Number.NaN }, "after"],
      ["infinity", { through: Infinity }, "through"],
      ["text as after", { after: "1" }, "after"],
      ["a cursor without an offset", { after: { incarnation: "x" } }, "after.after"],
      ["a cursor with an unknown field", { after: { after: 0, offset: 1 } }, "after.offset"],
      ["a cursor with a bad incarnation", { after: { after: 0, incarnation: 5 } }, "after.incarnation"],
      ["an empty incarnation", { after: { after: 0, incarnation: "" } }, "after.incarnation"],
      ["a negative through", { through: -1 }, "through"],
      ["an unsafe through", { through: 2 ** 53 }, "through"],
      ["a negative limit", { limit: -1 }, "limit"],
      ["a fractional limit", { limit: 0.5 }, "limit"],
      ["null as a limit", { limit: null }, "limit"],
      ["a direction of its own", { direction: "sideways" }, "direction"],
      ["a query that cannot be read", revoked(), "query"],
      ["a filter that cannot be read", { filter: revoked() }, "query"],
      ["filters that cannot be read", { filter: [{}, revoked()] }, "query"],
      ["kinds that cannot be read", { filter: { kinds: revoked() } }, "query"],
      ["a cursor that cannot be read", { after: revoked() }, "query"],
      ["a field that throws", {
        get limit(): never {
          throw new Error("no")
        }
      }, "query"],
      ["a hole for a filter", { filter: new Array(1) }, "filter[0]"],
      ["a hole for a kind", { filter: { kinds: new Array(1) } }, "filter.kinds[0]"],
      ["a hole among actors", { filter: { actors: Object.assign(new Array(2), { 0: "ada" }) } }, "filter.actors[1]"],
      ["a BigInt", { after: 1n }, "after"],
      ["a boxed number", { limit: new Number(1) }, "limit"],
      ["a symbol", { through: Symbol("s") }, "through"],
      ["a function as a filter", { filter: () => true }, "filter"],
      ["a set of kinds", { filter: { kinds: new Set(["a.b"]) } }, "filter.kinds"],
      ["a __proto__ key", { filter: JSON.parse("{\"__proto__\":{\"runId\":\"x\"}}") }, "filter.__proto__"]
    ]

    it.live.each(bad)("law 17: %s", ([, query, path]) =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        const error = yield* failure(collect(ledger.read(query as Query)))
        expect(error).toBeInstanceOf(InvalidQuery)
        expect(error).toMatchObject({ path, reason: expect.stringMatching(/./) })
      }))

    it.live("law 17: tail, get and eventsForRun refuse alike", () =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        for (const after of [-1, 0.5, Number.NaN, Infinity]) {
          expect(yield* failure(collect(ledger.tail(after)))).toMatchObject({ _tag: "InvalidQuery", path: "after" })
        }
        for (const id of ["", "x".repeat(65), "\0", "\ud800"]) {
          expect(yield* failure(ledger.get(id))).toMatchObject({ _tag: "InvalidQuery", path: "id" })
        }
        // undefined would be every run, in a filter
        for (const runId of ["", "x".repeat(256), "\0", "\ud800", undefined as never, null as never]) {
          const error = yield* failure(ledger.eventsForRun(runId))
          expect(error).toMatchObject({ _tag: "InvalidQuery", path: expect.stringMatching(/runId$/) })
        }
      }))

    it.live.each<readonly [string, unknown, string]>([
      ["no condition", undefined, "condition"],
      ["an unknown field", { noneMatch: {}, after: 0, before: 1 }, "condition.before"],
      ["no filter", { after: 0 }, "noneMatch"],
      ["no filters", { noneMatch: [], after: 0 }, "noneMatch"],
      ["no kinds", { noneMatch: { kinds: [] }, after: 0 }, "noneMatch.kinds"],
      ["an unknown field in a filter", { noneMatch: [{}, { kind: "x" }], after: 0 }, "noneMatch[1].kind"],
      ["a NUL", { noneMatch: { runId: "\0" }, after: 0 }, "noneMatch.runId"],
      ["no offset", { noneMatch: {} }, "after"],
      ["a negative offset", { noneMatch: {}, after: -1 }, "after"],
      ["a fractional offset", { noneMatch: {}, after: 0.5 }, "after"],
      ["a cursor", { noneMatch: {}, after: { after: 0 } }, "after"],
      ["nothing that can be read", revoked(), "condition"],
      ["a filter that cannot be read", { noneMatch: revoked(), after: 0 }, "condition"],
      ["a hole for a filter", { noneMatch: new Array(1), after: 0 }, "noneMatch[0]"]
    ])(
      "law 17: a condition with %s is refused, and nothing is written",
      ([, condition, path]) =>
        Effect.gen(function*() {
          const { ledger } = yield* handle
          const error = yield* failure(ledger.appendIf(condition as never, [event("never")]))
          expect(error).toBeInstanceOf(InvalidQuery)
          expect(error).toMatchObject({ path })
          expect(yield* ledger.latestOffset).toBe(0)
        })
    )
  })
}

/** A proxy that throws whatever is done with it. */
const revoked = (): object => {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

/** Laws 8 to 11: what comes back. */
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as EventModule from "../../src/Event.js"
import type { Event, JsonObject, RecordedEvent } from "../../src/Event.js"
import { CorruptEvent, type ReadError, StoreUnavailable } from "../../src/LedgerError.js"
import type { Page, PageRequest, StoredRow } from "../../src/LedgerStore.js"
import { type Backend, Client } from "./Backend.js"
import { anyEvent, canonical, digest, event, events } from "./fixtures.js"
import {
  collect,
  expectEvents,
  expectHistory,
  failure,
  open,
  over,
  recordedAt,
  shared,
  type Store,
  wrapped
} from "./handle.js"

export const reading = (backend: Backend): void => {
  it.scopedLive("law 8: an empty ledger reads as empty", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      expect(yield* ledger.events).toStrictEqual([])
      expect(yield* collect(ledger.tail())).toStrictEqual([])
      expect(yield* collect(ledger.tail(0))).toStrictEqual([])
      expect(yield* collect(ledger.read({ direction: "backward" }))).toStrictEqual([])
      expect(yield* ledger.eventsForRun("run-1")).toStrictEqual([])
      expect(yield* ledger.runs).toStrictEqual([])
      expect(yield* ledger.latestOffset).toBe(0)
      expect(yield* ledger.get("event-1")).toStrictEqual(Option.none())
    }))

  it.scopedLive("law 8: tail(k) is exactly k+1..head", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      const all = events(7)
      yield* ledger.appendAll(all)
      const incarnation = yield* ledger.incarnation
      for (let after = 0; after <= 7; after++) {
        expectEvents(yield* collect(ledger.tail(after)), recordedAt(1, all).slice(after))
        expectEvents(yield* collect(ledger.tail({ after })), recordedAt(1, all).slice(after))
        expectEvents(yield* collect(ledger.tail({ after, incarnation })), recordedAt(1, all).slice(after))
      }
      expectEvents(yield* collect(ledger.tail()), recordedAt(1, all))
    }))

  it.scopedLive("law 8: the head of a tail is taken when the stream starts to run", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      const tail = ledger.tail()
      yield* ledger.append(event("before"))
      const appended: Array<string> = []
      const seen = yield* collect(Stream.tap(tail, () => {
        appended.push(`during-${appended.length}`)
        return ledger.append(event(appended[appended.length - 1]!))
      }))
      expectEvents(seen, recordedAt(1, [event("before")]))
      expect(appended.length).toBe(1)
      expect((yield* collect(tail)).length).toBe(2)
    }))

  it.scopedLive("law 8: a run is in offset order, and runs are in first-seen order", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      // neither alphabetical nor by how often
      const runIds = ["zoe", "a\u{1F600}", "mid", "zoe", "B", "mid", "\uFFFD", "zoe", "a", "zo"]
      const all = runIds.map((runId, index) => event(`event-${index}`, { runId }))
      yield* ledger.appendAll(all)
      expect(yield* ledger.runs).toStrictEqual(["zoe", "a\u{1F600}", "mid", "B", "\uFFFD", "a", "zo"])
      for (const runId of runIds) {
        expectEvents(yield* ledger.eventsForRun(runId), recordedAt(1, all).filter((one) => one.runId === runId))
      }
      expect(yield* ledger.eventsForRun("nobody")).toStrictEqual([])
    }))

  it.scopedLive("get finds an event by its id, byte for byte", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      const ids = ["id", "ID", "id ", " id", "e\u0301", "\u00e9", "id'--", "100%", "_"]
      const all = ids.map((id) => event(id))
      yield* ledger.appendAll(all)
      expect(yield* ledger.latestOffset).toBe(ids.length)
      for (const [index, id] of ids.entries()) {
        expectEvents(Option.toArray(yield* ledger.get(id)), recordedAt(index + 1, [all[index]!]))
      }
      expect(yield* ledger.get("Id")).toStrictEqual(Option.none())
    }))

  it.scopedLive("law 9: more than two pages come whole and in order, in both directions", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      const all = Array.from({ length: 2345 }, (_, index) =>
        event(`event-${index}`, { turn: index, runId: index % 3 === 0 ? "run-3" : "run-1" }))
      yield* ledger.appendAll(all)
      const recorded = recordedAt(1, all)
      const inRun = recorded.filter((one) =>
        one.runId === "run-3"
      )
      expectEvents(yield* ledger.events, recorded)
      expectEvents(yield* collect(ledger.tail(999)), recorded.slice(999))
      expectEvents(yield* collect(ledger.tail(1000)), recorded.slice(1000))
      expectEvents(yield* collect(ledger.read({ direction: "backward" })), recorded.toReversed())
      expectEvents(yield* ledger.eventsForRun("run-3"), inRun)
      expectEvents(
        yield* collect(ledger.read({ filter: [{ runId: "run-3" }, { kinds: ["agent.spoke"] }], after: 7 })),
        recorded.slice(7)
      )
      expectEvents(
        yield* collect(ledger.read({ direction: "backward", limit: 1500, through: 2100 })),
        recorded.slice(600, 2100).toReversed()
      )
      expectEvents(yield* collect(ledger.read({ limit: 1001, after: 1 })), recorded.slice(1, 1002))
    }))

  it.scopedLive("law 9: payloads of nearly 1 MiB come whole and in order, in both directions", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      const all = Array.from(
        { length: 12 },
        (_, index) =>
          event(`large-${index}`, { payload: { text: String.fromCodePoint(97 + index).repeat(2 ** 20 - 20) } })
      )
      yield* ledger.appendAll(all.slice(0, 5))
      yield* Effect.forEach(all.slice(5), (one) => ledger.append(one), { discard: true })
      const summary = (list: ReadonlyArray<RecordedEvent>) =>
        list.map(({ id, offset, payload }) => [offset, id, canonical(payload) === canonical(all[offset - 1]!.payload)])
      const expected = all.map((one, index) => [index + 1, one.id, true])
      expect(summary(yield* ledger.events)).toStrictEqual(expected)
      expect(summary(yield* collect(ledger.read({ direction: "backward" })))).toStrictEqual(expected.toReversed())
      expect(summary(yield* ledger.eventsForRun("run-1"))).toStrictEqual(expected)
      const filter = { kinds: ["agent.spoke", "agent.acted"] }
      expect(summary(yield* collect(ledger.read({ filter, limit: 11, direction: "backward" })))).toStrictEqual(
        expected.slice(1).toReversed()
      )
    }))

  if (backend.stored !== undefined) {
    it.scopedLive("law 9: a page that a database gives is bounded in bytes, however it is asked for", () =>
      Effect.gen(function*() {
        const layer = backend.stored!()
        const size = 600_000
        const all = Array.from({ length: 240 }, (_, n) =>
          event(`e${n}`, {
            kind: n % 2 === 0 ? "agent.spoke" : "agent.acted",
            payload: n < 100 || n >= 140 ? {} : { text: "x".repeat(size) }
          }))
        yield* (yield* open(layer)).ledger.appendAll(all)
        const kinds: PageRequest["filters"] = [{ kinds: ["agent.spoke", "agent.acted"] }]
        for (
          const filters of [[], [{ runId: "run-1" }], kinds, [{ createdFrom: 0 }]] as Array<PageRequest["filters"]>
        ) {
          // other reads look back from where they are told to
          const beyond = filters.length === 0 ? 2 ** 40 : all.length
          for (const [backward, end] of [[false, all.length], [true, all.length], [true, beyond]] as const) {
            // a handle that has met no large payload yet
            const { store } = yield* open(layer)
            const found: Array<string> = []
            let range = { after: 0, through: end }
            for (let next: number | null = 0; next !== null;) {
              const page: Page = yield* store.page({ filters, ...range, backward, limit: 1000 })
              const payloads = page.rows.map((row) => String(row[6]).length)
              expect(payloads.slice(0, -1).reduce((sum, length) => sum + length, 0)).toBeLessThan(2 ** 23)
              found.push(...page.rows.map((row) => String(row[1])))
              next = page.next
              range = backward ? { ...range, through: (next ?? 1) - 1 } : { ...range, after: next ?? 0 }
            }
            const expected = all.map(({ id }) => id)
            expect(found).toStrictEqual(backward ? expected.toReversed() : expected)
          }
        }
      }))
  }

  it.scopedLive.each([false, true])(
    "law 9: a reader has no more than the page it is in, and if the store reads ahead (%s) the next; one that stops reads no further",
    (readsAhead) =>
      Effect.gen(function*() {
        const pages: Array<number> = []
        const { ledger } = yield* wrapped(backend, (store) => ({
          readsAhead,
          page: (request) =>
            Effect.suspend(() => {
              const place = pages.push(0) - 1
              return Effect.tap(store.page(request), ({ rows }) => Effect.sync(() => pages[place] = rows.length))
            })
        }))
        yield* ledger.appendAll(events(4500))
        for (const direction of ["forward", "backward"] as const) {
          pages.length = 0
          let seen = 0
          // who reads one page may want no other
          const asked = () => seen <= 1000 ? 1 : Math.min(Math.ceil(seen / 1000) + (readsAhead ? 1 : 0), 5)
          yield* Stream.runForEach(ledger.read({ direction }), () =>
            Effect.sync(() => {
              seen++
              expect(pages.length).toBe(asked())
            }))
          expect(seen).toBe(4500)
          expect(pages).toStrictEqual([1000, 1000, 1000, 1000, 500])
        }
        pages.length = 0
        yield* Stream.runDrain(ledger.read({ filter: { kinds: [events(1)[0]!.kind] }, limit: 2000 }))
        yield* Stream.runDrain(Stream.take(ledger.tail(), 3))
        expect(pages.length).toBe(3)
      })
  )

  it.scopedLive("law 9: a page that was read ahead and failed is read when it is wanted", () =>
    Effect.gen(function*() {
      let calls = 0
      const { ledger } = yield* wrapped(backend, (store) => ({
        readsAhead: true,
        page: (request) =>
          Effect.suspend(() => ++calls === 3 ? new StoreUnavailable({ reason: "lost" }) : store.page(request))
      }))
      yield* ledger.appendAll(events(3500))
      expectEvents(yield* ledger.events, recordedAt(1, events(3500)))
      expect(calls).toBe(5)
    }))

  it.scopedLive("law 9: opening reads no events", () =>
    Effect.gen(function*() {
      const { ledger, store } = yield* open(backend.layer())
      yield* ledger.appendAll(events(10))
      const calls: Array<string> = []
      const told = <A, E>(name: string, effect: Effect.Effect<A, E>) =>
        Effect.zipRight(Effect.sync(() => calls.push(name)), effect)
      const again = yield* open(over(store, (store) => ({
        page: (request) => told("page", store.page(request)),
        get: (id) => told("get", store.get(id)),
        runs: told("runs", store.runs),
        append: (groups) => told("append", store.append(groups))
      })))
      expect(calls).toStrictEqual([])
      expect((yield* again.ledger.events).length).toBe(10)
      expect(calls).toContain("page")
    }))

  it.scopedLive("law 9: a store may give fewer rows than asked for", () =>
    Effect.gen(function*() {
      const { ledger } = yield* wrapped(backend, (store) => ({
        page: (request) => Effect.map(store.page({ ...request, limit: Math.min(request.limit, 3) }), (page) => page)
      }))
      const all = events(10)
      yield* ledger.appendAll(all)
      expectEvents(yield* ledger.events, recordedAt(1, all))
      expectEvents(yield* collect(ledger.read({ direction: "backward" })), recordedAt(1, all).toReversed())
      expectEvents(yield* collect(ledger.read({ after: 2, limit: 7 })), recordedAt(1, all).slice(2, 9))
    }))

  describe("law 10: what comes back is what went in", () => {
    const handle = shared(backend.layer)
    const nested = (depth: number): JsonObject => depth === 0 ? {} : { a: nested(depth - 1) }

    it.live.each<readonly [string, JsonObject]>([
      ["nothing", {}],
      ["nested empties", { a: {}, b: [], c: [[], [{}], {}], "": "" }],
      ["null, true and false", { a: null, b: true, c: false, d: [null] }],
      ["numbers at the edges", {
        a: [0, 1, -1, 1e21, 1e-7, 5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 0.1, 1e300, 1e100],
        b: [2 ** 53, 2 ** 53 - 1, -(2 ** 53), 123456789012345680000, 4.35, 1 / 3, 100, 1e20, 1e-6]
      }],
      ["an escaped NUL", { text: "a\0b", "\0": ["\0"] }],
      ["control characters", { text: "\u0001\u0008\t\n\u000b\f\r\u001f\u007f\u0080\u2028\u2029" }],
      ["quotes and backslashes", { "\"": "\\", "\\u0000": "\\u0000", "\\\\": "{\"a\":\"b\"}", "'": "''" }],
      ["emoji and composed characters", {
        "\u{1F600}": "\u{1F468}\u200D\u{1F469}\u200D\u{1F467}",
        e: "e\u0301 \u00e9"
      }],
      ["keys that sort by UTF-16", {
        "\uFB33": 1,
        "\u{1F600}": 2,
        "\u20AC": 3,
        "1": 4,
        "10": 5,
        "2": 6,
        "\r": 7,
        A: 8,
        a: 9
      }],
      ["keys that objects have", { constructor: 1, toString: "x", hasOwnProperty: null, length: 0, prototype: {} }],
      ["what databases trip over", {
        NULL: "NULL",
        a: "{1,2}",
        b: "$1",
        c: "?",
        d: "%s",
        e: "; DROP TABLE x;--",
        f: "\\x00"
      }],
      ["the last characters of each plane", { a: "\uFFFF\uFFFE\u{10FFFF}\uD7FF\uE000\uFEFF" }],
      ["128 levels", nested(127)]
    ])("law 10: a payload of %s", ([name, payload]) =>
      Effect.gen(function*() {
        const { ledger, store } = yield* handle
        const one = event(`payload: ${name}`, { payload })
        const { offset } = yield* ledger.append(one)
        const [recorded] = yield* collect(ledger.tail(offset - 1))
        expect(recorded!.payload).toStrictEqual(JSON.parse(JSON.stringify(payload)))
        expect(Object.keys(recorded!.payload)).toStrictEqual(Object.keys(JSON.parse(canonical(payload))))
        expect((yield* store.head).digest).toBe(digest(one))
        expect(yield* storedPayloads(store, offset - 1)).toStrictEqual([canonical(payload)])
        expect(yield* ledger.append(one)).toMatchObject({ _tag: "Duplicate", identical: true })
      }))

    it.live("law 10: minus zero is stored as zero", () =>
      Effect.gen(function*() {
        const { ledger, store } = yield* handle
        const { offset } = yield* ledger.append(event("minus zero", { turn: -0, payload: { n: -0, list: [-0] } }))
        const [recorded] = yield* collect(ledger.tail(offset - 1))
        expect(recorded!.payload).toStrictEqual({ n: 0, list: [0] })
        expect(recorded!.turn).toBe(0)
        expect(yield* storedPayloads(store, offset - 1)).toStrictEqual(["{\"list\":[0],\"n\":0}"])
      }))

    const nasty = [
      " ",
      " padded ",
      "\t\n",
      "NULL",
      "null",
      "'",
      "\"",
      "\\",
      "\\N",
      "{}",
      "{1,2}",
      "$1",
      "?",
      "%",
      "\u0001",
      "\u007f",
      "e\u0301",
      "\u00e9",
      "\uFEFFbom",
      "\uFFFF",
      "\u{10FFFF}",
      "a,b",
      "x\r\ny"
    ]

    it.live.each(nasty.map((text) => [JSON.stringify(text), text] as const))(
      "law 10: text fields of %s are stored as they are",
      ([, text]) =>
        Effect.gen(function*() {
          const { ledger, store } = yield* handle
          const one = event(text, { runId: text, actor: text, sessionId: text, modelProfile: text, modelId: text })
          const { offset } = yield* ledger.append(one)
          expectEvents(Option.toArray(yield* ledger.get(text)), recordedAt(offset, [one]))
          expectEvents(yield* ledger.eventsForRun(text), recordedAt(offset, [one]))
          const filter = { actors: [text], sessionIds: [text], modelIds: [text, "other"] }
          expectEvents(yield* collect(ledger.read({ filter })), recordedAt(offset, [one]))
          expect(yield* ledger.runs).toContain(text)
          expect((yield* store.head).digest).toBe(digest(one))
          const refused = ledger.appendIf({ noneMatch: filter, after: 0 }, [event(`after ${text}`)])
          expect(yield* failure(refused)).toMatchObject({ _tag: "AppendConditionFailed", offset })
        })
    )

    it.live("law 10: the digest is frozen", () =>
      Effect.gen(function*() {
        const { ledger, store } = yield* handle
        yield* ledger.append(frozen)
        expect((yield* store.head).digest).toBe(frozenDigest)
      }))

    it.live("law 10: times come back in UTC, to the millisecond, whatever zone they came in", () =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        const zoned = DateTime.unsafeMakeZoned("2026-07-01T12:00:00.123Z", { timeZone: "Europe/Berlin" })
        const one = event("zoned", { createdAt: zoned as unknown as DateTime.Utc })
        yield* ledger.append(one)
        const recorded = Option.getOrThrow(yield* ledger.get("zoned"))
        expect(recorded.createdAt._tag).toBe("Utc")
        expect(DateTime.formatIso(recorded.createdAt)).toBe("2026-07-01T12:00:00.123Z")
      }))

    it.live.each([
      ["2026-01-01T12:00:00", "2026-01-01T12:00:00.000Z"],
      ["2026-01-01T12:00:00+02:00", "2026-01-01T10:00:00.000Z"],
      ["2026-01-01T00:30:00-05:30", "2026-01-01T06:00:00.000Z"],
      ["2026-01-01T12:00:00.987654Z", "2026-01-01T12:00:00.987Z"],
      ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"],
      ["9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"]
    ])("hazard: a trace's time %s is recorded as %s", ([given, expected]) =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        const one = yield* Schema.decode(EventModule.Event)({
          id: `time ${given}`,
          run_id: "run-1",
          turn: 0,
          kind: "agent.spoke",
          actor: "ada",
          payload: {},
          created_at: given!,
          schema_version: 1,
          session_id: null,
          model_profile: null,
          model_id: null
        })
        yield* ledger.append(one)
        const recorded = Option.getOrThrow(yield* ledger.get(one.id))
        const encoded = yield* Schema.encode(EventModule.RecordedEvent)(recorded)
        expect(encoded.created_at).toBe(expected)
      }))

    it.live("law 10: changing the object that was appended changes no history", () =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        const payload = { list: [1, 2], inner: { text: "before" } }
        const one = { ...event("mutated after append"), payload }
        yield* ledger.append(one)
        payload.list.push(3)
        payload.inner.text = "after"
        one.payload = { list: [], inner: { text: "replaced" } }
        const recorded = Option.getOrThrow(yield* ledger.get("mutated after append"))
        expect(recorded.payload).toStrictEqual({ list: [1, 2], inner: { text: "before" } })
      }))

    it.live("law 10: changing an event that was read changes no history", () =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        yield* ledger.append(event("mutated after read", { payload: { list: [1, 2], inner: { text: "before" } } }))
        const reads = [
          Effect.map(ledger.get("mutated after read"), Option.getOrThrow),
          Effect.map(ledger.events, (all) => all.find((one) => one.id === "mutated after read")!),
          Effect.map(ledger.eventsForRun("run-1"), (all) => all.find((one) => one.id === "mutated after read")!)
        ]
        for (const read of reads) {
          const mine = (yield* read) as { payload: JsonObject; actor: string }
          const payload = mine.payload as { list: Array<number>; inner: { text: string } }
          expect(payload).toStrictEqual({ list: [1, 2], inner: { text: "before" } })
          payload.list.push(3)
          payload.inner.text = "after"
          mine.actor = "mallory"
          mine.payload = {}
        }
        for (const read of reads) {
          const one = yield* read
          expect(one.payload).toStrictEqual({ list: [1, 2], inner: { text: "before" } })
          expect(one.actor).toBe("ada")
        }
      }))

    const batch = FastCheck.uniqueArray(anyEvent, { selector: (one) => one.id, minLength: 1, maxLength: 12 })

    it.live.prop(
      "law 10: any valid events come back deeply equal, with the digest of their canonical JSON",
      { batch },
      ({
        batch
      }) =>
        Effect.gen(function*() {
          const opened = yield* handle
          yield* opened.admin.reset
          const half = batch.length >> 1
          yield* opened.ledger.appendAll(batch.slice(0, half))
          if (half > 0) expect((yield* opened.store.head).digest).toBe(digest(batch[half - 1]!))
          yield* opened.ledger.appendAll(batch.slice(half))
          yield* expectHistory(opened, batch)
          expect((yield* opened.store.head).digest).toBe(digest(batch[batch.length - 1]!))
          expect(yield* storedPayloads(opened.store, 0)).toStrictEqual(batch.map((one) => canonical(one.payload)))
          for (const receipt of yield* opened.ledger.appendAll(batch)) {
            expect(receipt).toMatchObject({ _tag: "Duplicate", identical: true })
          }
        }),
      { fastCheck: { numRuns: 50 } }
    )
  })

  describe("law 11: a row that cannot be an event", () => {
    const handle = shared(() => holding(backend, events(3)))
    const long = "x".repeat(65)
    const damages: ReadonlyArray<readonly [column: string, place: number, values: ReadonlyArray<unknown>]> = [
      ["id", 1, [null, "", 7, long, "a\0b", "\ud800"]],
      ["run_id", 2, [null, "", "x".repeat(256)]],
      ["turn", 3, [null, -1, 1.5, "1", 2 ** 31]],
      ["kind", 4, [null, "", "spoke", "Agent.Spoke", "agent.spoke\n"]],
      ["actor", 5, [null, ""]],
      ["payload", 6, [
        null,
        {},
        "",
        "{",
        "null",
        "[]",
        "1",
        "\"x\"",
        "{\"a\":NaN}",
        "{\"a\":1e999}",
        `{"a":1${"0".repeat(400)}}`,
        "{\"a\":\"\\ud800\"}",
        "{\"__proto__\":{}}",
        "{\"\\u005f_proto__\":{}}"
      ]],
      ["created_at", 7, [null, "", "yesterday", true, Number.NaN, 253402300800000, 0.5]],
      ["schema_version", 8, [null, 0, 2 ** 31]],
      ["session_id", 9, ["", 7, "x".repeat(256)]],
      ["model_profile", 10, [""]],
      ["model_id", 11, [""]]
    ]
    const cases = damages.flatMap(([column, place, values]) =>
      values.map((value) => [`${column} ${shown(value)}`, place, value] as const)
    )

    it.scopedLive.each(cases)(
      "law 11: %s is CorruptEvent with its offset",
      ([, place, value]) =>
        Effect.gen(function*() {
          const { store } = yield* handle
          const damage = (row: StoredRow): StoredRow =>
            row[0] === 2 || row[0] === "2" ? row.map((column, index) => index === place ? value : column) : row
          const { ledger } = yield* open(over(store, (store) => ({
            page: (request) =>
              Effect.map(store.page(request), (page): Page => ({ ...page, rows: page.rows.map(damage) })),
            get: (id) => Effect.map(store.get(id), Option.map(damage))
          })))
          yield* expectCorrupt(ledger.events, 2)
          yield* expectCorrupt(ledger.eventsForRun("run-1"), 2)
          yield* expectCorrupt(collect(ledger.read({ direction: "backward" })), 2)
          yield* expectCorrupt(collect(ledger.read({ filter: { kinds: ["agent.spoke"] } })), 2)
          yield* expectCorrupt(ledger.get("event-2"), 2)
          // whatever is not behind it can still be read
          const before: Array<RecordedEvent> = []
          yield* expectCorrupt(Stream.runForEach(ledger.tail(), (one) => Effect.sync(() => before.push(one))), 2)
          expectEvents(before, recordedAt(1, events(1)))
          expectEvents(yield* collect(ledger.tail(2)), recordedAt(3, events(3).slice(2)))
        })
    )

    it.scopedLive.each([1, 2, 3])(
      "law 11: a missing row %s is CorruptEvent, never skipped",
      (missing) =>
        Effect.gen(function*() {
          const { store } = yield* handle
          const { ledger } = yield* open(over(store, (store) => ({
            page: (request) =>
              Effect.map(store.page(request), (page): Page => ({
                ...page,
                rows: page.rows.filter((row) => Number(row[0]) !== missing)
              }))
          })))
          yield* expectCorrupt(ledger.events, missing)
          yield* expectCorrupt(collect(ledger.read({ direction: "backward" })), missing)
          yield* expectCorrupt(collect(ledger.read({ through: missing })), missing)
          yield* expectCorrupt(
            collect(ledger.read({ through: missing, after: missing - 1, direction: "backward" })),
            missing
          )
        })
    )
  })

  if (backend.client !== undefined) {
    const { client } = backend
    it.scopedLive.each<readonly [string, string | number]>([
      ["id", ""],
      ["kind", "Not A Kind"],
      ["actor", ""],
      ["payload", "[1]"],
      ["payload", "{"],
      ["turn", -1],
      ["created_at", 10 ** 15],
      ["schema_version", 0],
      ["session_id", ""]
    ])("law 11: a stored %s of %s is CorruptEvent with its offset", ([column, value]) =>
      Effect.gen(function*() {
        const { context, ledger } = yield* open(client())
        const { damage } = Context.get(context, Client)
        yield* ledger.appendAll(events(3))
        yield* damage(2, column, value)
        yield* expectCorrupt(ledger.events, 2)
        yield* expectCorrupt(collect(ledger.read({ direction: "backward" })), 2)
        expectEvents(yield* collect(ledger.tail(2)), recordedAt(3, events(3).slice(2)))
        if (column !== "id") yield* expectCorrupt(ledger.get("event-2"), 2)
        expect(yield* ledger.append(event("event-4"))).toMatchObject({ _tag: "Appended", offset: 4 })
      }))

    it.scopedLive("law 11: a row that was removed is CorruptEvent at its offset", () =>
      Effect.gen(function*() {
        const { context, ledger } = yield* open(client())
        yield* ledger.appendAll(events(3))
        yield* Context.get(context, Client).remove(2)
        yield* expectCorrupt(ledger.events, 2)
        yield* expectCorrupt(collect(ledger.read({ direction: "backward" })), 2)
      }))
  }
}

const frozen: Event = event("frozen", {
  turn: 3,
  payload: { text: "h\u00e9llo \u{1F600}", n: 1e21, list: [null, true, -0.5], "\u20AC": {} },
  createdAt: DateTime.unsafeMake("2026-02-03T04:05:06.007Z"),
  sessionId: "morning"
})

// sha256sum of the canonical JSON, written by hand
const frozenDigest = "b7a57effa334ff06bb53943489b81c5251b3438ee907e5d035de7e8de10e5af7"

const holding = (backend: Backend, all: ReadonlyArray<Event>) =>
  Layer.unwrapScoped(Effect.map(
    Effect.tap(open(backend.layer()), ({ ledger }) => ledger.appendAll(all)),
    ({ context }) => Layer.succeedContext(context)
  ))

const storedPayloads = (store: Store, after: number) =>
  Effect.map(
    store.page({ filters: [], after, through: Number.MAX_SAFE_INTEGER, backward: false, limit: 1000 }),
    ({ rows }) => rows.map((row) => row[6])
  )

const expectCorrupt = Effect.fnUntraced(function*<A>(read: Effect.Effect<A, ReadError>, offset: number) {
  const error = yield* failure(read)
  expect(error).toBeInstanceOf(CorruptEvent)
  expect(error).toMatchObject({ offset })
})

const shown = (value: unknown): string =>
  (typeof value === "string" ? JSON.stringify(value) : String(value)).slice(0, 30)

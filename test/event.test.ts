import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/TestClock"
import * as Event from "../src/Event.js"
import { digest } from "../src/internal/digest.js"
import { maxInt, maxTime, minTime } from "../src/internal/fields.js"
import { encode, FieldIssue } from "../src/internal/row.js"
import { InvalidEvent } from "../src/LedgerError.js"

const encoded: Event.Encoded = {
  id: "e1",
  run_id: "r1",
  turn: 0,
  kind: "run.started",
  actor: "ada",
  payload: {},
  created_at: "2026-01-01T00:00:00.000Z",
  schema_version: 1,
  session_id: null,
  model_profile: null,
  model_id: null
}

const input: Event.Input = { runId: "r1", turn: 0, kind: "run.started", actor: "ada", payload: {} }

const decode = Schema.decodeUnknownEither(Event.Event)
const decodeSync = Schema.decodeUnknownSync(Event.Event)
const encodeSync = Schema.encodeSync(Event.Event)

describe("the frozen form", () => {
  // computed by a Python program that shares no code with this library (json, hashlib)
  it.each<[string, Event.Encoded]>([
    ["654bd58e40e06b365272149a4fd787d5f7f3ee549f80e270b4a71fae99069ec7", encoded],
    ["55803cbe360e5842ce60d4258cae83939f1f3a6d811d6c1813154252150f9db5", {
      id: "0190b6f0-7c2e-7d4a-8f00-0123456789ab",
      run_id: "run/ü",
      turn: 2147483647,
      kind: "agent.spoke",
      actor: "Ada \"the\" \\ first\n",
      payload: { text: "hi", n: [1, -7, true, null, { z: {}, a: [] }] },
      created_at: "1969-12-31T23:59:59.999Z",
      schema_version: 2147483647,
      session_id: "s",
      model_profile: "fast",
      model_id: "m-1"
    }],
    ["31ed9a9dfa7f19252fc1fe0f5c2f009f57f45001f02e23f49bb0676754b5a59a", {
      ...encoded,
      created_at: "0001-01-01T00:00:00.000Z",
      payload: { "€": 1, "\r": 2, "\ufb33": 3, "1": 4, "😀": 5, "\u0080": 6, "ö": 7 }
    }],
    ["6c6f870d131800f66f0000a61b9e37037912f4f59dc05115c8818e0581ae98a5", {
      ...encoded,
      created_at: "9999-12-31T23:59:59.999Z",
      payload: { s: "\u2028\u007f\u0000\u001f/" }
    }],
    ["62e049c4a8431be114833d138a7b83fe2fa1087fee553cae10a501030711d93a", {
      ...encoded,
      id: "😀".repeat(64),
      actor: "\t",
      payload: { x: "e\u0301", "\u00e9": 0 }
    }],
    ["fa73ff6b582f4df3ece8617e77db771fea7db0463b8a38a61358734730add644", {
      ...encoded,
      payload: { n: [-0, 0.1, 1e21, 1e-7, 333333333.3333333, 5e-324] }
    }]
  ])("has the digest %s", (sha256, event) => {
    const row = encode(decodeSync(event), 2 ** 20)
    if (row instanceof FieldIssue) throw new Error(row.reason)
    expect(row.digest).toBe(sha256)
    expect(digest(row)).toBe(sha256)
  })

  // computed by Python's uuid.uuid5 in the namespace 5d8a3b1e-0f6c-4c1f-9d4b-7e2a6c90f314
  it.each<[string, [string, ...Array<string>]]>([
    ["28694f6a-926f-5132-8464-4517b78ad6d0", ["run-1"]],
    ["ee018492-ae04-5a4e-9b9e-0d4ec96f02ca", ["run-1", "3", "ada"]],
    ["095d7f82-0838-5503-8cb1-456dcbe43813", ["a", "b"]],
    ["b187a786-b761-5504-ab56-eec57faca668", ["ab"]],
    ["af0cf2b0-8194-5ec0-a9cf-27d46e202dc7", ["a,b"]],
    ["28568755-d603-53db-853b-1694ba2f749f", ["a\",\"b"]],
    ["c004ae9e-4aaf-5d39-bdd0-35d6791738c8", ["", ""]],
    ["26d67be8-856c-5933-ae68-5f09439c564b", [""]],
    ["db85cead-c6b3-5e71-a046-e6e7d9cb8d0b", ["é😀", "\n"]],
    ["a5b55820-35ed-5c1f-8880-3fc8896b5dee", ["x".repeat(1000)]]
  ])("has the deterministic id %s", (id, parts) => {
    expect(Event.deterministicId(...parts)).toBe(id)
  })

  it("has the encoded keys of traces, in snake case", () => {
    expect(encodeSync(decodeSync(encoded))).toStrictEqual(encoded)
  })
})

describe("deterministicId", () => {
  const parts = FastCheck.array(FastCheck.string({ unit: "binary", maxLength: 4 }), { minLength: 1, maxLength: 4 })
    .map((list) => list as [string, ...Array<string>])

  it("is a UUID of version 5 that an event takes as its id", () => {
    FastCheck.assert(
      FastCheck.property(parts, (list) => {
        const id = Event.deterministicId(...list)
        expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
        expect(Event.deterministicId(...list)).toBe(id)
      }),
      { numRuns: 300, verbose: 1 }
    )
  })

  it("differs when the parts do, however they are cut", () => {
    FastCheck.assert(
      FastCheck.property(parts, parts, (self, that) => {
        expect(Event.deterministicId(...self) === Event.deterministicId(...that)).toBe(
          JSON.stringify(self) === JSON.stringify(that)
        )
      }),
      { numRuns: 1_000, verbose: 1 }
    )
    const cuts: ReadonlyArray<[string, ...Array<string>]> = [["a", "b"], ["ab"], ["a,b"], ["b", "a"], ["a", "b", ""]]
    expect(new Set(cuts.map((list) => Event.deterministicId(...list))).size).toBe(cuts.length)
  })
})

describe("the schema", () => {
  const name = (max: number) =>
    FastCheck.string({ unit: "binary", minLength: 1, maxLength: max }).filter((text) => !text.includes("\0"))
  const optional = FastCheck.option(name(255))
  const events: FastCheck.Arbitrary<Event.Event> = FastCheck.record({
    id: name(64),
    runId: name(255),
    turn: FastCheck.integer({ min: 0, max: maxInt }),
    kind: FastCheck.stringMatching(/^[a-z][a-z0-9]{0,9}(\.[a-z][a-z0-9]{0,9}){1,9}$/),
    actor: name(255),
    payload: FastCheck.dictionary(
      FastCheck.string({ unit: "binary" }).filter((key) => key !== "__proto__"),
      FastCheck.jsonValue({ stringUnit: "binary" }).filter((value) => !JSON.stringify(value).includes("__proto__"))
    ).map((payload) => payload as Event.JsonObject),
    createdAt: FastCheck.integer({ min: minTime, max: maxTime }).map((millis) => DateTime.unsafeMake(millis)),
    schemaVersion: FastCheck.integer({ min: 1, max: maxInt }),
    sessionId: optional,
    modelProfile: optional,
    modelId: optional
  })

  it("gives back what was encoded, also through JSON text", () => {
    FastCheck.assert(
      FastCheck.property(events, (event) => {
        const json: unknown = JSON.parse(JSON.stringify(encodeSync(event)))
        expect(Event.Equivalence(decodeSync(json), event)).toBe(true)
        expect(encodeSync(decodeSync(json))).toStrictEqual(json)
      }),
      { numRuns: 500, verbose: 1 }
    )
  })

  it("accepts what a ledger accepts", () => {
    FastCheck.assert(
      FastCheck.property(events, (event) => {
        expect(encode(event, 2 ** 28)).not.toBeInstanceOf(FieldIssue)
      }),
      { numRuns: 300, verbose: 1 }
    )
  })

  it("writes snake case and reads nothing else", () => {
    const { run_id: runId, ...rest } = encoded
    expect(Either.isLeft(decode({ ...rest, runId }))).toBe(true)
    expect(Object.keys(encodeSync(decodeSync(encoded)))).toStrictEqual(Object.keys(encoded))
  })

  it.each(Object.keys(encoded))("needs the field %s", (key) => {
    expect(Either.isLeft(decode(Object.fromEntries(Object.entries(encoded).filter(([name]) => name !== key))))).toBe(
      true
    )
  })

  it("refuses unknown fields, whatever the caller's parse options", () => {
    expect(messageOf({ ...encoded, extra: 1 })).toContain("extra")
    expect(messageOf({ ...encoded, offset: 1 })).toContain("offset")
    expect(Either.isLeft(Schema.decodeUnknownEither(Event.Event, { onExcessProperty: "ignore" })({ ...encoded, x: 1 })))
      .toBe(true)
  })

  it("gives a recorded event an offset from 1", () => {
    const decodeRecorded = Schema.decodeUnknownEither(Event.RecordedEvent)
    const recorded = Either.getOrThrow(decodeRecorded({ ...encoded, offset: 7 }))
    expect(recorded.offset).toBe(7)
    expect(Schema.encodeSync(Event.RecordedEvent)(recorded)).toStrictEqual({ ...encoded, offset: 7 })
    for (const offset of [0, -1, 1.5, Number.NaN, "1", null, undefined]) {
      expect(Either.isLeft(decodeRecorded({ ...encoded, offset }))).toBe(true)
    }
    expect(Either.isLeft(decodeRecorded(encoded))).toBe(true)
    expect(Either.isLeft(decodeRecorded({ ...encoded, offset: 1, extra: 1 }))).toBe(true)
  })

  it.each([
    ["2026-01-01T12:00:00", "2026-01-01T12:00:00.000Z"],
    ["2026-01-01 12:00:00", "2026-01-01T12:00:00.000Z"],
    ["2026-01-01T12:00", "2026-01-01T12:00:00.000Z"],
    ["2026-01-01T12:00:00Z", "2026-01-01T12:00:00.000Z"],
    ["2026-01-01T12:00:00+02:00", "2026-01-01T10:00:00.000Z"],
    ["2026-01-01T12:00:00+0200", "2026-01-01T10:00:00.000Z"],
    ["2026-01-01T12:00:00+02", "2026-01-01T10:00:00.000Z"],
    ["2026-01-01T00:30:00+05:45", "2025-12-31T18:45:00.000Z"],
    ["2026-01-01T12:00:00-09:30", "2026-01-01T21:30:00.000Z"],
    ["2026-01-01T12:00:00-00:00", "2026-01-01T12:00:00.000Z"],
    ["2026-01-01T12:00:00.1", "2026-01-01T12:00:00.100Z"],
    ["2026-01-01T12:00:00,123Z", "2026-01-01T12:00:00.123Z"],
    ["2026-01-01T12:00:00.123999Z", "2026-01-01T12:00:00.123Z"],
    ["2026-01-01T12:00:00.000999999Z", "2026-01-01T12:00:00.000Z"],
    ["1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999Z"],
    ["2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000Z"],
    ["2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000Z"],
    ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"],
    ["0001-01-01T00:00:00-01:00", "0001-01-01T01:00:00.000Z"],
    ["0099-03-04T05:06:07Z", "0099-03-04T05:06:07.000Z"],
    ["9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"],
    ["9999-12-31T23:59:59.999+01:00", "9999-12-31T22:59:59.999Z"]
  ])("reads the time %s as %s", (time, expected) => {
    expect(encodeSync(decodeSync({ ...encoded, created_at: time })).created_at).toBe(expected)
  })

  it.each([
    "",
    " ",
    "now",
    "yesterday",
    "2026",
    "2026-01-01",
    "20260101T120000Z",
    "12:00:00",
    "2026-02-29T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "1900-02-29T00:00:00Z",
    "2026-04-31T00:00:00Z",
    "2026-00-01T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-01-00T00:00:00Z",
    "2026-01-32T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T23:60:00Z",
    "2026-01-01T23:59:60Z",
    "2026-01-01T12:00:00+24:00",
    "2026-01-01T12:00:00+02:60",
    "2026-01-01T12:00:00 +02:00",
    "2026-01-01T12:00:00.Z",
    "2026-01-01T12:00:00Z\n",
    " 2026-01-01T12:00:00Z",
    "2026-01-01T12:00:00[Europe/Berlin]",
    "Thu, 01 Jan 2026 12:00:00 GMT",
    "1767268800000",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59.999-00:01",
    "10000-01-01T00:00:00Z",
    "+010000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "٢٠٢٦-01-01T00:00:00Z"
  ])("refuses the time %j", (time) => {
    expect(messageOf({ ...encoded, created_at: time })).toContain("created_at")
  })

  it.each<unknown>([null, undefined, 0, 1767268800000, { epochMillis: 0 }])("refuses %o as a time", (time) => {
    expect(messageOf({ ...encoded, created_at: time })).toContain("created_at")
  })

  it("refuses to encode a time outside the years 0001 to 9999", () => {
    for (const millis of [minTime - 1, maxTime + 1]) {
      const event = { ...decodeSync(encoded), createdAt: DateTime.unsafeMake(millis) }
      expect(() => encodeSync(event)).toThrow(/years 0001 to 9999/)
    }
  })
})

describe("create", () => {
  it.effect("fills in id, time, version and nulls, from the Clock", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_767_261_600_123)
      const event = yield* Event.create(input)
      expect(event).toStrictEqual({
        ...input,
        id: event.id,
        createdAt: DateTime.unsafeMake(1_767_261_600_123),
        schemaVersion: 1,
        sessionId: null,
        modelProfile: null,
        modelId: null
      })
    }))

  it.effect("keeps what it is given, and takes undefined as not given", () =>
    Effect.gen(function*() {
      const full = {
        ...input,
        id: "mine",
        createdAt: DateTime.unsafeMake(0),
        schemaVersion: 3,
        sessionId: "s",
        modelProfile: "p",
        modelId: "m"
      }
      expect(yield* Event.create(full)).toStrictEqual(full)
      const none = { id: undefined, createdAt: undefined, schemaVersion: undefined, sessionId: undefined }
      const event = yield* Event.create({ ...input, ...none, modelProfile: undefined, modelId: undefined })
      expect([event.schemaVersion, event.sessionId, event.modelProfile, event.modelId]).toStrictEqual([
        1,
        null,
        null,
        null
      ])
    }))

  it.effect("makes ids that are UUIDs of version 7, distinct, and in the order of their time", () =>
    Effect.gen(function*() {
      const ids: Array<string> = []
      for (const time of [0, 1, 255, 0x0fff_ffff_ffff, 0x1000_0000_0000, maxTime]) {
        yield* TestClock.setTime(time)
        const event = yield* Event.create(input)
        expect(event.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
        expect(Number.parseInt(event.id.replaceAll("-", "").slice(0, 12), 16)).toBe(time)
        ids.push(event.id)
      }
      expect(ids.toSorted()).toStrictEqual(ids)
      const many = yield* Effect.replicateEffect(Event.create(input), 1_000)
      expect(new Set(many.map((event) => event.id)).size).toBe(1_000)
    }).pipe(Effect.catchTag("InvalidEvent", Effect.die)))

  const long = "x".repeat(256)
  const names = ["", long, "a\0b", "\ud800", 1, undefined, null, ["a"]]
  const cases: ReadonlyArray<[string, ReadonlyArray<unknown>]> = [
    ["id", ["", "x".repeat(65), "😀".repeat(65), "a\0b", "\udc00", 1, null]],
    ["runId", names],
    ["actor", names],
    ["turn", [-1, 0.5, Number.NaN, Infinity, maxInt + 1, "0", null, undefined, 1n]],
    ["kind", ["", "one", "Agent.spoke", "a..b", ".a", "a.", "a.b\n", "a-b.c", "1.a", `a.${long}`, "ä.b", null, 1]],
    ["schemaVersion", [0, -1, 1.5, Number.NaN, maxInt + 1, "1", null]],
    ["createdAt", [0, "2026-01-01T00:00:00Z", new Date(0), null, DateTime.unsafeMake(maxTime + 1)]],
    ["sessionId", ["", long, "a\0b", "\ud800", 1]],
    ["modelProfile", ["", long, "a\0b", "\ud800", 1]],
    ["modelId", ["", long, "a\0b", "\ud800", 1]],
    ["payload", [null, undefined, [], "{}", 1, new Map(), new Date(0), () => ({})]],
    ["extra", [1, null]],
    ["offset", [1]]
  ]

  it.effect.each(cases)(
    "refuses a wrong %s, and names it",
    ([field, values]) =>
      Effect.forEach(values, (value) =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(Event.create({ ...input, [field]: value }))
          expect(error).toBeInstanceOf(InvalidEvent)
          expect({ index: error.index, path: error.path }).toStrictEqual({ index: 0, path: field })
          expect(error.reason).not.toBe("")
        }))
  )

  it.effect.each<[string, unknown]>([
    ["payload.a", { a: undefined }],
    ["payload.tools[1].args", { tools: [{}, { args: new Date(0) }] }],
    ["payload[\"a b\"][0]", { "a b": [Number.NaN] }],
    ["payload.__proto__", JSON.parse("{\"__proto__\":1}")],
    ["payload[\"1\"]", { 1: 1n }]
  ])("names the place in the payload: %s", ([path, payload]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Event.create({ ...input, payload: payload as Event.JsonObject }))
      expect(error.path).toBe(path)
    }))

  it.effect("refuses a cycle, and a graph that would unfold without end", () =>
    Effect.gen(function*() {
      const cyclic: Record<string, unknown> = {}
      cyclic["self"] = cyclic
      const error = yield* Effect.flip(Event.create({ ...input, payload: cyclic as Event.JsonObject }))
      expect(error).toMatchObject({ path: "payload.self", reason: "a cycle is not JSON" })
    }))

  it.effect("accepts the longest names, counted in code points", () =>
    Effect.gen(function*() {
      const name = "😀".repeat(255)
      const event = {
        ...input,
        id: "😀".repeat(64),
        runId: name,
        actor: name,
        sessionId: name,
        kind: `a.${"b".repeat(253)}`
      }
      expect(yield* Event.create(event)).toMatchObject(event)
    }))

  it("never dies of bad input", async () => {
    for (const bad of [null, undefined, 1, "event", []]) {
      const exit = await Effect.runPromiseExit(Event.create(bad as unknown as Event.Input))
      expect(Exit.isFailure(exit) && Cause.isDie(exit.cause)).toBe(false)
      expect(Exit.isFailure(exit)).toBe(true)
    }
  })
})

describe("isKind", () => {
  it("knows its kinds", () => {
    for (const kind of ["a.b", "agent.spoke", "a1.b2.c3", `a.${"b".repeat(253)}`, ...Event.coreKinds]) {
      expect([kind, Event.isKind(kind)]).toStrictEqual([kind, true])
    }
    for (const kind of ["", "a", "a.", ".a", "a..b", "A.b", "a.B", "a.1", "1.a", "a_b.c", " a.b", "a.b ", "a.b\n"]) {
      expect([kind, Event.isKind(kind)]).toStrictEqual([kind, false])
    }
    for (const kind of [`a.${"b".repeat(254)}`, null, undefined, 1, ["a.b"], Object("a.b")]) {
      expect(Event.isKind(kind)).toBe(false)
    }
  })

  it("answers a hostile kind at once", () => {
    expect(Event.isKind(`${"a.a".repeat(100_000)}!`)).toBe(false)
    expect(Event.isKind(`${"a".repeat(254)}!`)).toBe(false)
  })

  it("shares no kind twice", () => {
    expect(new Set(Event.coreKinds).size).toBe(Event.coreKinds.length)
  })
})

describe("helpers", () => {
  it("normalizes a session id", () => {
    expect([null, undefined, "", " ", "\t\n", " a ", "a b"].map(Event.normalizeSessionId)).toStrictEqual([
      null,
      null,
      null,
      null,
      null,
      "a",
      "a b"
    ])
  })

  it("drops the offset of a recorded event, and only that", () => {
    const event = decodeSync(encoded)
    const recorded = { ...event, offset: 3 }
    expect(Event.fromRecorded(recorded)).toStrictEqual(event)
    expect(recorded.offset).toBe(3)
  })

  it("sums an event up in one line", () => {
    const event = decodeSync({ ...encoded, turn: 3, payload: { text: "hi" } })
    expect(Event.summary(event)).toBe("r1/3 run.started ada {\"text\":\"hi\"}")
    expect(Event.summary({ ...event, offset: 12 })).toBe("#12 r1/3 run.started ada {\"text\":\"hi\"}")
    const long = Event.summary({ ...event, payload: { text: "x".repeat(1_000) } })
    expect(long).toHaveLength("r1/3 run.started ada ".length + 120)
    expect(long).toMatch(/x…$/)
    const fits = { t: "x".repeat(120 - "{\"t\":\"\"}".length) }
    expect(Event.summary({ ...event, payload: fits })).toMatch(/x"}$/)
  })

  it("keeps a summary to one well-formed line, whatever the names are", () => {
    const event = decodeSync({ ...encoded, run_id: "a\nb", actor: "c\r\u2028d\u001b[2J" })
    for (let filler = 100; filler < 120; filler++) {
      const summary = Event.summary({ ...event, payload: { t: "x".repeat(filler) + "😀".repeat(20) } })
      expect(summary).not.toMatch(/[\p{Cc}\u2028\u2029]/u)
      expect(summary).not.toMatch(/\p{Surrogate}/u)
    }
  })
})

describe("Equivalence", () => {
  const event = decodeSync({ ...encoded, payload: { a: 1, b: [{ c: null }] } })

  it("holds between equal events, whatever the order of keys", () => {
    expect(Event.Equivalence(event, event)).toBe(true)
    expect(Event.Equivalence(event, { ...event, payload: { b: [{ c: null }], a: 1 } })).toBe(true)
    expect(Event.Equivalence(event, { ...event, createdAt: DateTime.unsafeMake(event.createdAt.epochMillis) })).toBe(
      true
    )
    expect(Event.Equivalence({ ...event, payload: { a: -0 } }, { ...event, payload: { a: 0 } })).toBe(true)
  })

  it.each<[string, Partial<Event.Event>]>([
    ["id", { id: "e2" }],
    ["runId", { runId: "r2" }],
    ["turn", { turn: 1 }],
    ["kind", { kind: "run.finished" }],
    ["actor", { actor: "bob" }],
    ["payload", { payload: { a: 1, b: [{ c: false }] } }],
    ["the order of an array", { payload: { a: 1, b: [{ c: null }, 1] } }],
    ["createdAt", { createdAt: DateTime.unsafeMake(1) }],
    ["schemaVersion", { schemaVersion: 2 }],
    ["sessionId", { sessionId: "s" }],
    ["modelProfile", { modelProfile: "p" }],
    ["modelId", { modelId: "m" }]
  ])("sees another %s", (_, change) => {
    expect(Event.Equivalence(event, { ...event, ...change })).toBe(false)
    expect(Event.Equivalence({ ...event, ...change }, event)).toBe(false)
  })
})

const messageOf = (value: unknown): string =>
  Either.match(decode(value), { onLeft: (error) => error.message, onRight: () => "accepted" })

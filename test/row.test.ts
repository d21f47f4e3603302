import { describe, expect, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as FastCheck from "effect/FastCheck"
import type { Event, Json, JsonObject } from "../src/Event.js"
import { maxInt, maxTime, minTime } from "../src/internal/fields.js"
import { decode, encode, FieldIssue } from "../src/internal/row.js"
import type { Row, StoredRow } from "../src/LedgerStore.js"

const columns = [
  "offset",
  "id",
  "run_id",
  "turn",
  "kind",
  "actor",
  "payload",
  "created_at",
  "schema_version",
  "session_id",
  "model_profile",
  "model_id"
] as const

const good: StoredRow = [
  7,
  "e1",
  "r1",
  3,
  "agent.spoke",
  "ada",
  "{\"a\":[1]}",
  1_767_261_600_123,
  2,
  null,
  "fast",
  "m-1"
]

const withColumn = (column: (typeof columns)[number], value: unknown): StoredRow =>
  good.map((member, index) => columns[index] === column ? value : member)

describe("decode", () => {
  it("reads a row", () => {
    expect(decode(good)).toStrictEqual({
      offset: 7,
      id: "e1",
      runId: "r1",
      turn: 3,
      kind: "agent.spoke",
      actor: "ada",
      payload: { a: [1] },
      createdAt: DateTime.unsafeMake(1_767_261_600_123),
      schemaVersion: 2,
      sessionId: null,
      modelProfile: "fast",
      modelId: "m-1"
    })
  })

  it.each([7n, "7"])("takes 64-bit integers as drivers give them: %o", (offset) => {
    expect(decode(withColumn("offset", offset))).toHaveProperty("offset", 7)
  })

  it.each([-1n, "-1", -1])("takes times before 1970: %o", (time) => {
    const event = decode(withColumn("created_at", time))
    expect(typeof event === "string" ? event : DateTime.formatIso(event.createdAt)).toBe("1969-12-31T23:59:59.999Z")
  })

  it.each<[(typeof columns)[number], ReadonlyArray<unknown>]>([
    ["offset", [0, -1, 1.5, Number.NaN, Infinity, null, undefined, "", "x", "1e3", true, [1]]],
    ["id", ["", "x".repeat(65), "a\0", "a\ud800", null, undefined, 1, new Uint8Array(1)]],
    ["run_id", ["", "x".repeat(256), "a\0", null, 1]],
    ["turn", [-1, 0.5, maxInt + 1, Number.NaN, "3", 3n, null]],
    ["kind", ["", "one", "A.b", "a.b\n", "a..b", "a.", `a.${"b".repeat(254)}`, null, 1]],
    ["actor", ["", "x".repeat(256), "\udc00", null, {}]],
    ["payload", ["", "{", "[]", "null", "1", "\"{}\"", "{\"a\":NaN}", "{} x", null, undefined, {}, new Uint8Array(2)]],
    ["created_at", [
      minTime - 1,
      maxTime + 1,
      0.5,
      null,
      undefined,
      "",
      " ",
      "now",
      "2026-01-01",
      true,
      [],
      new Date(0)
    ]],
    ["schema_version", [0, -1, 1.5, maxInt + 1, "1", null]],
    ["session_id", ["", "x".repeat(256), "a\0", undefined, 1]],
    ["model_profile", ["", "x".repeat(256), "\ud800", undefined, 1]],
    ["model_id", ["", "x".repeat(256), "a\0", undefined, 1]]
  ])("refuses a wrong %s, and says which column it is", (column, values) => {
    for (const value of values) {
      const answer = decode(withColumn(column, value))
      expect([value, typeof answer === "string" ? answer.split(": ")[0] : "accepted"]).toStrictEqual([value, column])
    }
  })

  it.each([
    ["a number that JSON.parse makes infinite", "{\"a\":1e999}"],
    ["one with a capital E and a sign", "{\"a\":-1E+999}"],
    ["one without an exponent", `{"a":1${"0".repeat(309)}}`],
    ["one with many digits and a short exponent", `{"a":1${"0".repeat(250)}e99}`],
    ["__proto__", "{\"a\":{\"__proto__\":1}}"],
    ["__proto__ with an escape", "{\"\\u005f_proto__\":1}"],
    ["__proto__ with an escape within", "{\"__pr\\u006fto__\":{}}"],
    ["an escaped lone surrogate", "{\"a\":\"\\ud800\"}"],
    ["an escaped lone surrogate in a key", "{\"\\uDEAD\":1}"],
    ["two surrogates in the wrong order", "{\"a\":\"\\ude00\\ud83d\"}"],
    ["a lone surrogate as it is", "{\"a\":\"\ud800\"}"]
  ])("refuses a payload with %s", (_, payload) => {
    expect(decode(withColumn("payload", payload))).toSatisfy(
      (answer) => typeof answer === "string" && answer.startsWith("payload: ")
    )
  })

  it.each<[string, JsonObject]>([
    ["{\"a\":1e+300}", { a: 1e300 }],
    ["{\"a\":5e-324}", { a: 5e-324 }],
    ["{\"a\":\"1e999\"}", { a: "1e999" }],
    ["{\"a\":\"\\ud83d\\ude00\"}", { a: "😀" }],
    ["{\"a\":\"😀\"}", { a: "😀" }],
    ["{\"a\":\"__proto__\"}", { a: "__proto__" }],
    ["{\"\\u0041\":\"\\u0000\"}", { A: "\0" }],
    [`{"a":"${"1".repeat(400)}"}`, { a: "1".repeat(400) }]
  ])("accepts what only looks suspicious: %s", (payload, expected) => {
    expect(decode(withColumn("payload", payload))).toHaveProperty("payload", expected)
  })

  it("gives back a fresh payload each time", () => {
    const first = decode(good)
    const second = decode(good)
    if (typeof first === "string" || typeof second === "string") throw new Error("refused")
    ;(first.payload["a"] as Array<Json>).push(2)
    expect(second.payload).toStrictEqual({ a: [1] })
  })
})

describe("encode", () => {
  const event: Event = {
    id: "e1",
    runId: "r1",
    turn: 0,
    kind: "agent.spoke",
    actor: "ada",
    payload: { b: 1, a: [null] },
    createdAt: DateTime.unsafeMake("2026-01-01T10:00:00.123Z"),
    schemaVersion: 1,
    sessionId: null,
    modelProfile: null,
    modelId: null
  }
  const limit = 2 ** 20

  it("is undone by decode, whatever the payload", () => {
    const payloads = FastCheck.dictionary(
      FastCheck.string({ unit: "binary" }).filter((key) => key !== "__proto__"),
      FastCheck.jsonValue({ maxDepth: 4, stringUnit: "binary" })
    ).filter((payload) => !JSON.stringify(payload).includes("\"__proto__\":"))
    FastCheck.assert(
      FastCheck.property(payloads, (payload) => {
        const row = encode({ ...event, payload: payload as JsonObject }, limit)
        if (row instanceof FieldIssue) throw new Error(`${row.path}: ${row.reason}`)
        const again = decode(store(1, row))
        if (typeof again === "string") throw new Error(again)
        const { offset: _, ...read } = again
        expect(encode(read, limit)).toStrictEqual(row)
      }),
      { numRuns: 1_000, verbose: 1 }
    )
  })

  it("takes a zoned time as the moment that it is", () => {
    const createdAt = DateTime.unsafeMakeZoned("2026-01-01T10:00:00.123Z", { timeZone: 2 * 60 * 60 * 1000 })
    expect(encode({ ...event, createdAt: createdAt as unknown as DateTime.Utc }, limit)).toStrictEqual(
      encode(event, limit)
    )
  })

  it.each<[string, unknown, string]>([
    ["null", null, "event"],
    ["a string", "event", "event"],
    ["no createdAt", { ...event, createdAt: undefined }, "createdAt"],
    ["a Date as createdAt", { ...event, createdAt: new Date(0) }, "createdAt"],
    ["an ISO string as createdAt", { ...event, createdAt: "2026-01-01T00:00:00Z" }, "createdAt"],
    ["an offset", { ...event, offset: 1 }, "offset"],
    ["an unknown field", { ...event, extra: undefined }, "extra"],
    ["undefined instead of null", { ...event, sessionId: undefined }, "sessionId"],
    ["an array as payload", { ...event, payload: [] }, "payload"],
    ["a Map as payload", { ...event, payload: new Map() }, "payload"],
    ["something deep in the payload", { ...event, payload: { tools: [0, { "a b": 1n }] } }, "payload.tools[1][\"a b\"]"]
  ])("refuses %s, and names the field", (_, value, path) => {
    expect(encode(value as Event, limit)).toSatisfy((issue) => issue instanceof FieldIssue && issue.path === path)
  })

  it("counts the payload's bytes, not its characters", () => {
    const payload = { a: "ä".repeat(100) }
    const bytes = Buffer.byteLength(JSON.stringify(payload))
    expect(encode({ ...event, payload }, bytes)).toHaveProperty("payload", JSON.stringify(payload))
    expect(encode({ ...event, payload }, bytes - 1)).toMatchObject({
      path: "payload",
      reason: `is larger than ${bytes - 1} bytes of JSON`
    })
  })
})

const store = (offset: number, row: Row): StoredRow => [
  offset,
  row.id,
  row.runId,
  row.turn,
  row.kind,
  row.actor,
  row.payload,
  String(row.createdAt),
  row.schemaVersion,
  row.sessionId,
  row.modelProfile,
  row.modelId
]

/** Events as CloudEvents 1.0 (https://github.com/cloudevents/spec), and back. */
import { afterAll, describe, expect, it } from "@effect/vitest"
import { DateTime, Effect, Either, Stream } from "effect"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Event, Ledger, LedgerError, MemoryLedger, Trace } from "../src/index.js"
import { anyEvent, digest, event, events } from "./contract/fixtures.js"
import { collect, expectEvents, failure, plain, recordedAt } from "./contract/handle.js"

const folder = Fs.mkdtempSync(join(tmpdir(), "effect-ledger-cloudevents-"))
afterAll(() => Fs.rmSync(folder, { recursive: true, force: true }))

const source = "urn:example:agents"
const full = event("one", { turn: 3, schemaVersion: 2, sessionId: "s", modelProfile: "p", modelId: "m" })
const foreign = {
  specversion: "1.0",
  id: "1",
  source: "/shop",
  type: "com.example.sold",
  subject: "order-1",
  time: "2026-01-01T12:00:00+02:00",
  data: { sum: 1 }
}
const controls = /[\p{Cc}\p{Noncharacter_Code_Point}]/u
const asCloudEvent = anyEvent.filter((one) =>
  [one.id, one.runId, one.actor, one.sessionId, one.modelProfile, one.modelId].every((name) =>
    !controls.test(name ?? "")
  )
)

describe("out", () => {
  it("every field has its attribute", () => {
    expect(Either.getOrThrow(Trace.toCloudEvent({ ...full, offset: 2 ** 31 }, source))).toStrictEqual({
      specversion: "1.0",
      id: "one",
      source,
      type: "agent.spoke",
      subject: "run-1",
      time: "2026-01-01T00:00:00.000Z",
      datacontenttype: "application/json",
      turn: 3,
      actor: "ada",
      schemaversion: 2,
      sessionid: "s",
      modelprofile: "p",
      modelid: "m",
      ledgeroffset: "2147483648",
      ledgerdigest: digest(full),
      data: { said: "one" }
    })
    const bare = Either.getOrThrow(Trace.toCloudEvent(event("two"), source))
    expect(Object.keys(bare)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(sessionid|modelprofile|modelid|ledgeroffset)$/)])
    )
  })

  it.prop("attributes are as CloudEvents wants them, and come back deeply equal", { one: asCloudEvent }, ({ one }) => {
    const cloudEvent = Either.getOrThrow(Trace.toCloudEvent({ ...one, offset: 1 }, source))
    for (const [name, value] of Object.entries(cloudEvent)) {
      expect(name).toMatch(/^[a-z0-9]{1,20}$/)
      if (name === "data") continue
      if (typeof value === "number") expect(value).toBe(value | 0)
      else expect(value).toSatisfy((text: unknown) => typeof text === "string" && text !== "" && !controls.test(text))
    }
    for (
      const given of [cloudEvent, JSON.stringify(cloudEvent), { ...cloudEvent, time: cloudEvent.time.toLowerCase() }]
    ) {
      expect(plain(Either.getOrThrow(Trace.fromCloudEvent(given)))).toStrictEqual(
        plain({ ...one, payload: JSON.parse(JSON.stringify(one.payload)) })
      )
    }
  })

  it("what CloudEvents forbids is refused with its attribute", () => {
    const refused = (over: Partial<Event.Event>, from = source) =>
      Either.getOrThrow(Either.flip(Trace.toCloudEvent({ ...full, ...over }, from)))
    const text = "a CloudEvent's text may hold no control character and no noncharacter"
    const fields = [
      ["id", "id"],
      ["runId", "subject"],
      ["actor", "actor"],
      ["sessionId", "sessionid"],
      ["modelProfile", "modelprofile"],
      ["modelId", "modelid"]
    ] as const
    for (const [field, attribute] of fields) {
      for (const bad of ["\n", "\u007f", "\u0085", "\ufdd0", "\ufffe", "\u{1ffff}"]) {
        const error = refused({ [field]: `a${bad}` })
        expect(error).toMatchObject({ id: field === "id" ? `a${bad}` : "one", attribute, reason: text })
      }
    }
    for (const bad of ["", "a b", "a\n", "é"]) expect(refused({}, bad)).toMatchObject({ attribute: "source" })
    expect(refused({ turn: -1 }).attribute).toBe("turn")
    expect(refused({ kind: "spoke" }).attribute).toBe("type")
    expect(refused({ runId: "" }).attribute).toBe("subject")
    expect(refused({ payload: { a: [Number.NaN] } }).attribute).toBe("data.a[0]")
  })
})

describe("in", () => {
  it("one from elsewhere has what it says, and defaults for the rest", () => {
    expect(Either.getOrThrow(Trace.fromCloudEvent(foreign))).toStrictEqual({
      ...event("1", { runId: "order-1", kind: "com.example.sold", actor: "/shop", payload: { sum: 1 } }),
      createdAt: DateTime.unsafeMake("2026-01-01T10:00:00Z")
    })
    const { data: _, ...bare } = foreign
    const nulls = { ...bare, datacontenttype: null, turn: null, actor: null, sessionid: null, ledgerdigest: null }
    for (const given of [bare, nulls, { ...bare, datacontenttype: "application/vnd.shop+json; charset=utf-8" }]) {
      expect(Either.getOrThrow(Trace.fromCloudEvent(given))).toMatchObject({ payload: {}, turn: 0, actor: "/shop" })
    }
  })

  const refusals: ReadonlyArray<readonly [over: object, attribute: string]> = [
    [{ specversion: "0.3" }, "specversion"],
    [{ specversion: undefined }, "specversion"],
    [{ id: undefined }, "id"],
    [{ id: null }, "id"],
    [{ id: "x".repeat(65) }, "id"],
    [{ source: "" }, "source"],
    [{ source: 7 }, "source"],
    [{ source: "x".repeat(256) }, "source"],
    [{ type: undefined }, "type"],
    [{ type: "com.example.order_placed" }, "type"],
    [{ subject: undefined }, "subject"],
    [{ subject: "" }, "subject"],
    [{ time: undefined }, "time"],
    [{ time: "2026-01-01T00:00:00" }, "time"],
    [{ time: "2026-02-30T00:00:00Z" }, "time"],
    [{ data: null }, "data"],
    [{ data: "text" }, "data"],
    [{ data: [] }, "data"],
    [{ data: { a: { b: "\ud800" } } }, "data.a.b"],
    [{ data_base64: "AAAA" }, "data_base64"],
    [{ datacontenttype: "text/plain" }, "datacontenttype"],
    [{ dataschema: "https://example.com/schema" }, "dataschema"],
    [{ traceparent: "00-1-2-01" }, "traceparent"],
    [{ turn: "0" }, "turn"],
    [{ turn: 2 ** 31 }, "turn"],
    [{ schemaversion: 0 }, "schemaversion"],
    [{ sessionid: "" }, "sessionid"],
    [{ modelprofile: 7 }, "modelprofile"],
    [{ modelid: "\0" }, "modelid"],
    [{ actor: "" }, "actor"],
    [{ ledgeroffset: 1 }, "ledgeroffset"],
    [{ ledgeroffset: "01" }, "ledgeroffset"],
    [{ ledgerdigest: "0".repeat(64) }, "ledgerdigest"]
  ]
  for (const [over, attribute] of refusals) {
    it(`refuses ${JSON.stringify(over).slice(0, 60)} and names ${attribute}`, () => {
      const error = Either.getOrThrow(Either.flip(Trace.fromCloudEvent({ ...foreign, ...over })))
      expect(error).toBeInstanceOf(LedgerError.InvalidCloudEvent)
      expect(error.attribute).toBe(attribute)
      expect(error.reason).not.toBe("")
    })
  }

  it("refuses what is no JSON object", () => {
    const throws = Object.defineProperty({}, "id", { enumerable: true, get: () => expect.fail("read") })
    for (const given of [null, undefined, 7, [], "[]", "{", throws, `{"n":12345678901234567890}`]) {
      expect(Either.getOrThrow(Either.flip(Trace.fromCloudEvent(given)))).toMatchObject({
        id: null,
        attribute: "event"
      })
    }
  })
})

describe("as a trace", () => {
  it.effect("goes there and back by a file", () =>
    Effect.gen(function*() {
      const held = [full, ...events(1500)]
      const file = join(folder, "events.jsonl.gz")
      const written = yield* Effect.provide(
        Trace.toFile(file, { format: "cloudevents", source, filter: { runId: "run-1" } }),
        MemoryLedger.layerWith({ events: held })
      )
      expect(written.count).toBe(1501)
      expect(yield* Trace.fromFile(file, { format: "cloudevents" })).toMatchObject({ appended: 1501, invalid: 0 })
      expectEvents(yield* Ledger.events, recordedAt(1, held))
      const lines = yield* collect(Trace.cloudEvents(source))
      expect(JSON.parse(lines[0]!)).toStrictEqual(
        Either.getOrThrow(Trace.toCloudEvent((yield* Ledger.events)[0]!, source))
      )
      expect((yield* failure(Trace.fromFile(file)))._tag).toBe("InvalidTrace")
    }).pipe(Effect.provide(MemoryLedger.layer)))

  it.effect("a line that is none is reported, and an event that can be none fails by its id", () =>
    Effect.gen(function*() {
      const lines = Stream.make(JSON.stringify(foreign), JSON.stringify({ ...foreign, subject: null }), "?")
      const imported = yield* Trace.fromLines(lines, { format: "cloudevents", onInvalid: "skip" })
      expect(imported).toMatchObject({ appended: 1, invalid: 2 })
      expect(imported.invalidLines).toStrictEqual([
        { line: 2, reason: "event \"1\": subject: is missing, and nothing can stand for it" },
        { line: 3, reason: "event: is not JSON" }
      ])
      yield* Ledger.append(event("odd", { actor: "a\nb" }))
      const error = yield* failure(collect(Trace.cloudEvents(source)))
      expect(error).toMatchObject({ _tag: "InvalidCloudEvent", id: "odd", attribute: "actor" })
    }).pipe(Effect.provide(MemoryLedger.layer)))
})

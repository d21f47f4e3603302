/** Law 17: what a ledger accepts, and what it refuses by name. */
import { describe, expect, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Event } from "../../src/Event.js"
import { InvalidEvent } from "../../src/LedgerError.js"
import type { Backend } from "./Backend.js"
import { digest, event, events } from "./fixtures.js"
import { expectEvents, failure, open, recordedAt, shared } from "./handle.js"

export const input = (backend: Backend): void => {
  describe("law 17: bad input is refused by name, and nothing is written", () => {
    const handle = shared(backend.layer)

    it.live.each(refused)("law 17: %s", ([, bad, path]) =>
      Effect.gen(function*() {
        const { ledger, store } = yield* handle
        yield* ledger.append(event("there before"))
        const before = yield* store.head
        const single = yield* failure(ledger.append(bad))
        expect(single).toBeInstanceOf(InvalidEvent)
        expect(single).toMatchObject({ index: 0, path, reason: expect.stringMatching(/./) })
        const batch = yield* failure(ledger.appendAll([...events(2, "beside"), bad, ...events(1, "behind")]))
        expect(batch).toBeInstanceOf(InvalidEvent)
        expect(batch).toMatchObject({ index: 2, path })
        expect(yield* store.head).toStrictEqual(before)
        expect(yield* ledger.get("beside-1")).toStrictEqual(Option.none())
      }))
  })

  describe("law 17: what lies just inside the limits is accepted", () => {
    const handle = shared(backend.layer)

    it.live.each(accepted)("law 17: %s", ([name, fields]) =>
      Effect.gen(function*() {
        const { ledger, store } = yield* handle
        const one = event(name.slice(0, 64), fields)
        const receipt = yield* ledger.append(one)
        expect(receipt._tag).toBe("Appended")
        expectEvents(Option.toArray(yield* ledger.get(one.id)), recordedAt(receipt.offset, [one]))
        expect((yield* store.head).digest).toBe(digest(one))
      }))

    it.live("law 17: a JSON object without a prototype is a JSON object", () =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        const inner = Object.assign(Object.create(null), { a: 1 })
        yield* ledger.append(event("null prototype", { payload: Object.assign(Object.create(null), { inner }) }))
        const recorded = Option.getOrThrow(yield* ledger.get("null prototype"))
        expect(recorded.payload).toStrictEqual({ inner: { a: 1 } })
      }))

    it.live("law 17: an object that stands twice in a payload is no cycle", () =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        const twice = { a: [1] }
        yield* ledger.append(event("shared member", { payload: { x: twice, y: [twice, twice] } }))
        const recorded = Option.getOrThrow(yield* ledger.get("shared member"))
        expect(recorded.payload).toStrictEqual({ x: { a: [1] }, y: [{ a: [1] }, { a: [1] }] })
      }))
  })

  describe("law 17: what is odd and yet plain data is accepted, and comes back as what it says", () => {
    const handle = shared(backend.layer)

    it.live.each(odd)("law 17: %s", ([name, fields, said]) =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        const one = { ...event(name.slice(0, 64)), ...fields } as Event
        const { offset } = yield* ledger.append(one)
        const expected = { ...event(one.id), ...said ?? fields } as Event
        expectEvents(Option.toArray(yield* ledger.get(one.id)), recordedAt(offset, [expected]))
        expect(yield* ledger.append(one)).toMatchObject({ _tag: "Duplicate", identical: true })
      }))

    it.live("law 17: a getter is asked once", () =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        let asked = 0
        const other = {
          get a() {
            return ++asked
          }
        }
        yield* ledger.append(event("asked once", { payload: { other } }))
        expect(Option.getOrThrow(yield* ledger.get("asked once")).payload).toStrictEqual({ other: { a: 1 } })
        expect(asked).toBe(1)
      }))

    it.live("law 17: ids that look alike are two", () =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        const alike = ["\u00e9", "e\u0301", "\u212b", "\u00c5", "a", "A", "\u0430", " a", "a ", "a\u200b"]
        const receipts = yield* ledger.appendAll(alike.map((id) => event(id)))
        expect(receipts.map(({ _tag }) => _tag)).toStrictEqual(alike.map(() => "Appended"))
        for (const id of alike) expect(Option.getOrThrow(yield* ledger.get(id)).payload).toStrictEqual({ said: id })
      }))
  })

  describe("law 17: a batch that cannot be read is refused, and nothing is written", () => {
    const handle = shared(backend.layer)

    it.live.each(unreadable)("law 17: %s", ([, batch, index]) =>
      Effect.gen(function*() {
        const { ledger } = yield* handle
        const condition = { noneMatch: {}, after: 0 }
        for (const append of [ledger.appendAll(batch()), ledger.appendIf(condition, batch())]) {
          const error = yield* failure(append)
          expect(error).toBeInstanceOf(InvalidEvent)
          expect(error).toMatchObject({ index, path: "events" })
        }
        expect(yield* ledger.latestOffset).toBe(0)
      }))
  })

  it.scopedLive("law 17: a refused event leaves the ledger as usable as before", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      yield* Effect.forEach(refused, ([, bad]) => failure(ledger.append(bad)), { concurrency: "unbounded" })
      expect(yield* ledger.latestOffset).toBe(0)
      expect(yield* ledger.append(event("one"))).toMatchObject({ _tag: "Appended", offset: 1 })
    }))
}

const wide = "\u{1F600}"
const mebibyte = 2 ** 20
const maxInt = 2 ** 31 - 1
const utc = (millis: number) => DateTime.unsafeMake(millis)
const nested = (levels: number): object => {
  let value = {}
  for (let level = 1; level < levels; level++) value = { a: value }
  return value
}
const nestedArrays = (levels: number): unknown => {
  let value: ReadonlyArray<unknown> = []
  for (let level = 1; level < levels; level++) value = [value]
  return value
}
const kindOf = (length: number): string => `a.${"b".repeat(length - 2)}`

/** A proxy that throws whatever is done with it. */
const revoked = (): object => {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

const thrower = (name: "getter" | "index"): unknown =>
  Object.defineProperty(name === "getter" ? {} : [1], name === "getter" ? "a" : 0, {
    enumerable: true,
    get: () => {
      throw new Error("no")
    }
  })

const odd: ReadonlyArray<readonly [name: string, fields: object, said?: object]> = [
  ["minus zero as a turn", { turn: -0 }, { turn: 0 }],
  ["minus zero in a payload", { payload: { a: -0, b: [-0] } }, { payload: { a: 0, b: [0] } }],
  ["numbers at the ends", {
    payload: { a: [2 ** 53, 2 ** 53 + 2, -(2 ** 53), 5e-324, Number.MAX_VALUE, 1e21, 1e-7, 0.1 + 0.2] }
  }],
  ["keys that objects inherit", {
    payload: { constructor: 1, prototype: { toString: 2 }, hasOwnProperty: 3, valueOf: 4, toJSON: 5 }
  }],
  ["keys that are numbers, empty, NUL, or no identifiers", {
    payload: { 10: 1, 2: 2, "": 3, "\0": 4, "a b": 5, "\u2028": 6, "\ufeff": 7, "01": 8, "-1": 9, length: 10 }
  }],
  ["text of every sort", {
    payload: {
      t: "\0 \u0001 \\ \" ' \u2028 \u2029 \ufeff \uffff \u202e \u{10ffff} \u{1F468}\u200D\u{1F469} {} $1 %s NULL"
    }
  }],
  ["names of every sort", {
    runId: "'; DROP TABLE ledger_events; --",
    actor: "\u0001\\\"{},NULL\u2028",
    sessionId: "NULL",
    modelProfile: "null",
    modelId: "\ufeff \uffff"
  }],
  ["what is frozen", { payload: Object.freeze({ a: Object.freeze([1]) }) }],
  ["a proxy that answers as its target", { payload: new Proxy({ a: new Proxy([1], {}) }, {}) }, {
    payload: { a: [1] }
  }],
  ["what cannot be enumerated is not there", {
    payload: Object.defineProperty({ a: 1 }, "hidden", { value: () => 1, enumerable: false })
  }, { payload: { a: 1 } }],
  ["what is inherited is not there", {
    payload: Object.assign(Object.create(Object.assign(Object.create(null), { isPrototypeOf: 1, b: () => 2 })), {
      a: 1
    })
  }, { payload: { a: 1 } }]
]

const unreadable: ReadonlyArray<readonly [name: string, batch: () => Iterable<Event>, index: number]> = [
  ["null", () => null as never, 0],
  ["undefined", () => undefined as never, 0],
  ["a number", () => 5 as never, 0],
  ["one event", () => event("alone") as never, 0],
  ["an asynchronous iterable", () => (async function*() {})() as never, 0],
  ["a proxy that was revoked", () => revoked() as never, 0],
  ["an iterator that is none", () => ({ [Symbol.iterator]: () => 5 }) as never, 0],
  ["an iterable that throws at its start", () => ({
    [Symbol.iterator]: () => {
      throw new Error("no")
    }
  }), 0],
  ["an iterable that throws after two", function*() {
    yield* events(2, "before")
    throw new Error("no")
  }, 2]
]

const accepted: ReadonlyArray<readonly [name: string, fields: Partial<Event>]> = [
  ["an id of one character", { id: "x" }],
  ["an id of 64 characters", { id: "x".repeat(64) }],
  ["an id of 64 characters beyond the basic plane", { id: wide.repeat(64) }],
  ["names of 255 characters", {
    runId: "r".repeat(255),
    actor: "a".repeat(255),
    sessionId: "s".repeat(255),
    modelProfile: "p".repeat(255),
    modelId: "m".repeat(255)
  }],
  ["names of 255 characters beyond the basic plane", {
    runId: wide.repeat(255),
    actor: wide.repeat(255),
    sessionId: wide.repeat(255),
    modelProfile: wide.repeat(255),
    modelId: wide.repeat(255)
  }],
  ["the shortest kind", { kind: "a.b" }],
  ["a kind with digits and many segments", { kind: "a1.b22.c3c.d4" }],
  ["a kind of 255 characters", { kind: kindOf(255) }],
  ["turn 0", { turn: 0 }],
  ["the largest turn", { turn: maxInt }],
  ["version 1", { schemaVersion: 1 }],
  ["the largest version", { schemaVersion: maxInt }],
  ["the first instant", { createdAt: utc(-62135596800000) }],
  ["the last instant", { createdAt: utc(253402300799999) }],
  ["a time before 1970", { createdAt: utc(-1) }],
  ["128 levels of objects", { payload: nested(128) as never }],
  ["128 levels with arrays", { payload: { a: nestedArrays(127) } as never }],
  ["a payload of exactly 1 MiB", { payload: { t: "x".repeat(mebibyte - 8) } }],
  ["a payload of exactly 1 MiB in UTF-8", { payload: { t: "\u20AC".repeat(349_519), u: "xxxx" } }],
  ["100,000 members", { payload: { list: Array.from({ length: 100_000 }, (_, n) => n % 7) } }]
]

class Point {
  x = 1
}

const cyclic = (): unknown => {
  const payload: { a: { b?: unknown } } = { a: {} }
  payload.a.b = payload
  return payload
}

const cyclicArray = (): unknown => {
  const list: Array<unknown> = [1]
  list.push(list)
  return { list }
}

/** A time that no constructor makes. */
const impossible = (epochMillis: number): unknown =>
  Object.assign(Object.create(Object.getPrototypeOf(utc(0))), { epochMillis })

const withField = (fields: Readonly<Record<string, unknown>>): Event => ({ ...event("bad"), ...fields } as Event)
const without = (field: keyof Event): Event => {
  const { [field]: _, ...rest } = event("bad")
  return rest as Event
}

const badTexts = (max: number): ReadonlyArray<readonly [string, unknown]> => [
  ["empty", ""],
  [`of ${max + 1} characters`, "x".repeat(max + 1)],
  [`of ${max + 1} characters beyond the basic plane`, wide.repeat(max + 1)],
  ["far too long", "x".repeat(10_000)],
  ["with a NUL", "a\0b"],
  ["with a lone high surrogate", "a\ud800b"],
  ["with a lone low surrogate", "\udc00"],
  ["with surrogates in the wrong order", "\udc00\ud800"],
  ["that is a number", 5],
  ["that is a boxed string", new String("x")],
  ["that is an object", {}]
]

const texts: ReadonlyArray<readonly [field: string, max: number, nullable: boolean]> = [
  ["id", 64, false],
  ["runId", 255, false],
  ["actor", 255, false],
  ["sessionId", 255, true],
  ["modelProfile", 255, true],
  ["modelId", 255, true]
]

const bads: Readonly<Record<string, ReadonlyArray<unknown>>> = {
  kind: [
    "",
    "spoke",
    "agent.",
    ".spoke",
    "agent..spoke",
    "Agent.spoke",
    "agent.Spoke",
    "agent.1st",
    "1.a",
    "agent spoke",
    "agent.spo-ke",
    "agent.spo_ke",
    "a.b\n",
    "\na.b",
    "a.b ",
    "a.\u00e9",
    "a.\u0131",
    "a.b\0",
    kindOf(256),
    null,
    5,
    ["a.b"]
  ],
  turn: [-1, 0.5, Number.NaN, Infinity, -Infinity, maxInt + 1, 2 ** 53, "1", 1n, null, true, Object(1), [1]],
  schemaVersion: [0, -1, 1.5, Number.NaN, maxInt + 1, "1", null],
  createdAt: [
    new Date(0),
    new Date(Number.NaN),
    "2026-01-01T00:00:00.000Z",
    0,
    null,
    {},
    { epochMillis: 0 },
    utc(-62135596800001),
    utc(253402300800000),
    impossible(Number.NaN),
    impossible(0.5),
    impossible(Infinity)
  ]
}

const named = Object.assign([1], { extra: 2 })
const symbolic = Object.assign([1], { [Symbol("s")]: 2 })

const payloads: ReadonlyArray<readonly [name: string, payload: unknown, path: string]> = [
  ["null", null, "payload"],
  ["an array", [], "payload"],
  ["a string", "{}", "payload"],
  ["a number", 1, "payload"],
  ["a Date", new Date(0), "payload"],
  ["a Map", new Map(), "payload"],
  ["a class instance", new Point(), "payload"],
  ["a function", () => 1, "payload"],
  ["with undefined", { a: undefined }, "payload.a"],
  ["with undefined in an array", { a: [1, undefined] }, "payload.a[1]"],
  ["with NaN", { a: Number.NaN }, "payload.a"],
  ["with infinity", { a: [{ b: Infinity }] }, "payload.a[0].b"],
  ["with minus infinity", { a: -Infinity }, "payload.a"],
  ["with a BigInt", { a: 1n }, "payload.a"],
  ["with a function", { a: () => 1 }, "payload.a"],
  ["with toJSON", { a: { toJSON: () => 1 } }, "payload.a.toJSON"],
  ["with a symbol", { a: Symbol("s") }, "payload.a"],
  ["with a symbol key", { a: { [Symbol("s")]: 1 } }, "payload.a"],
  ["with a symbol key at the top", { [Symbol("s")]: 1 }, "payload"],
  ["with a Date", { a: new Date(0) }, "payload.a"],
  ["with a time of Effect", { a: utc(0) }, "payload.a"],
  ["with a Map", { a: new Map([[1, 2]]) }, "payload.a"],
  ["with a Set", { a: new Set([1]) }, "payload.a"],
  ["with a RegExp", { a: /x/ }, "payload.a"],
  ["with a typed array", { a: new Uint8Array(2) }, "payload.a"],
  ["with an Error", { a: new Error("x") }, "payload.a"],
  ["with a boxed number", { a: new Number(1) }, "payload.a"],
  ["with a class instance", { a: [new Point()] }, "payload.a[0]"],
  ["with a promise", { a: Promise.resolve(1) }, "payload.a"],
  ["with a cycle", cyclic(), "payload.a.b"],
  ["with a cycle through an array", cyclicArray(), "payload.list[1]"],
  ["with a __proto__ key", { a: JSON.parse("{\"__proto__\":{\"x\":1}}") }, "payload.a.__proto__"],
  ["with a __proto__ key at the top", JSON.parse("{\"__proto__\":1}"), "payload.__proto__"],
  ["129 levels deep", nested(129), `payload${".a".repeat(128)}`],
  ["129 levels deep in arrays", { a: nestedArrays(128) }, `payload.a${"[0]".repeat(127)}`],
  ["far too deep", nested(10_000), `payload${".a".repeat(128)}`],
  ["far too deep in arrays", { a: nestedArrays(10_000) }, `payload.a${"[0]".repeat(127)}`],
  // oxlint-disable-next-line no-sparse-arrays
  ["with a hole in an array", { a: [1, , 3] }, "payload.a[1]"],
  ["with an array that is all holes", { a: new Array(3) }, "payload.a[0]"],
  ["with an array with a named property", { a: named }, "payload.a"],
  ["with an array with a symbol", { a: symbolic }, "payload.a"],
  ["with a lone surrogate", { a: "x\ud800" }, "payload.a"],
  ["with a lone surrogate in a key", { a: { "\udc00": 1 } }, "payload.a[\"\\udc00\"]"],
  ["with an invalid Date", { a: new Date(Number.NaN) }, "payload.a"],
  ["with a time in a zone", { a: DateTime.unsafeMakeZoned(0, { timeZone: "Asia/Tokyo" }) }, "payload.a"],
  ["with a boxed string", { a: new String("x") }, "payload.a"],
  ["with a boxed boolean", { a: new Boolean(false) }, "payload.a"],
  ["with a boxed BigInt", { a: Object(1n) }, "payload.a"],
  ["with a buffer", { a: Buffer.from("x") }, "payload.a"],
  ["with an ArrayBuffer", { a: new ArrayBuffer(2) }, "payload.a"],
  ["with a WeakMap", { a: new WeakMap() }, "payload.a"],
  ["with a generator", { a: (function*() {})() }, "payload.a"],
  ["with a URL", { a: new URL("http://localhost/") }, "payload.a"],
  ["with an array of a class of its own", { a: new (class List extends Array {})() }, "payload.a"],
  ["with the arguments of a call", {
    a: (function() {
      return arguments
    })()
  }, "payload.a"],
  ["with toJSON among data", { a: { toJSON: () => ({}), b: 1 } }, "payload.a.toJSON"],
  ["with surrogates in the wrong order", { a: "\udc00\ud800" }, "payload.a"],
  ["with a high surrogate before a pair", { a: "\ud83d\ud83d\ude00" }, "payload.a"],
  ["that is a proxy that was revoked", revoked(), "payload"],
  ["with a proxy that was revoked", { a: [revoked()] }, "payload"],
  ["that is a proxy of a Map", new Proxy(new Map(), {}), "payload"],
  ["with an array whose member throws", { a: thrower("index") }, "payload"],
  ["with a getter that throws, far inside", { a: [{ b: thrower("getter") }] }, "payload"],
  ["with a string that escapes to more than a string can hold", { a: "\u0001".repeat(2 ** 28) }, "payload.a"],
  [
    "with a bad value under a key that is no identifier",
    { "two words": [{ "": undefined }] },
    "payload[\"two words\"][0][\"\"]"
  ],
  ["whose getter throws", {
    get a(): never {
      throw new Error("no")
    }
  }, "payload"]
]

const tooLarge: ReadonlyArray<readonly [name: string, payload: object]> = [
  ["1 MiB and one byte", { t: "x".repeat(mebibyte - 7) }],
  ["1 MiB and one byte in UTF-8", { t: "\u20AC".repeat(349_519), u: "xxxxx" }],
  ["more than 1 MiB once it is escaped", { t: "\u0001".repeat(mebibyte / 6) }],
  ["more than 1 MiB of keys", Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`key-${n}`, 1]))],
  ["members that unfold without end", unfolding(40)]
]

/** 2ⁿ leaves in n objects. */
function unfolding(levels: number): object {
  let value: object = {}
  for (let level = 0; level < levels; level++) value = { a: value, b: value }
  return value
}

const show = (value: unknown): string =>
  (typeof value === "string" ? JSON.stringify(value) : typeof value === "bigint" ? `${value}n` : String(value)).slice(
    0,
    40
  )

const refused: ReadonlyArray<readonly [name: string, bad: Event, path: unknown]> = [
  ...texts.flatMap(([field, max]) =>
    badTexts(max).map(([what, value]) => [`${field} ${what}`, withField({ [field]: value }), field] as const)
  ),
  ...texts.filter(([, , nullable]) => !nullable).map(([field]) =>
    [`${field} null`, withField({ [field]: null }), field] as const
  ),
  ...Object.entries(bads).flatMap(([field, values]) =>
    values.map((value) => [`${field} ${show(value)}`, withField({ [field]: value }), field] as const)
  ),
  ...payloads.map(([what, payload, path]) => [`payload ${what}`, withField({ payload }), path] as const),
  ...tooLarge.map(([what, payload]) =>
    [`payload of ${what}`, withField({ payload }), expect.stringMatching(/^payload/)] as const
  ),
  ...(Object.keys(event("bad")) as ReadonlyArray<keyof Event>).map((field) =>
    [`no ${field}`, without(field), field] as const
  ),
  ["an unknown field", withField({ extra: 1 }), "extra"],
  ["an unknown field that is undefined", withField({ extra: undefined }), "extra"],
  ["the offset of a recorded event", withField({ offset: 1 }), "offset"],
  ["snake case", withField({ run_id: "run-1" }), "run_id"],
  ["a __proto__ key", Object.defineProperty(withField({}), "__proto__", { value: {}, enumerable: true }), "__proto__"],
  ["a field that throws", Object.defineProperty(withField({}), "turn", { get: () => revoked().constructor }), "event"],
  ["a proxy that was revoked", revoked() as Event, "event"],
  ["an array", [event("bad")] as unknown as Event, "0"],
  ["a function", (() => event("bad")) as unknown as Event, "event"],
  ["null", null as unknown as Event, "event"],
  ["undefined", undefined as unknown as Event, "event"],
  ["text", "event" as unknown as Event, "event"]
]

/**
 * Generated values where events and queries are expected: every backend says the same of each, what it accepts is what
 * was meant, and what it refuses has left no trace. (The values that are listed by name are in the contract.)
 */
import { expect, it } from "@effect/vitest"
import {
  Chunk,
  Context,
  DateTime,
  Effect,
  Either,
  FastCheck,
  Layer,
  Logger,
  LogLevel,
  Option,
  Redacted,
  Runtime,
  Stream
} from "effect"
import { randomBytes, randomInt } from "node:crypto"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { inject } from "vitest"
import { Event, Ledger, MemoryLedger, type Query } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { anyEvent, event, filters } from "./contract/fixtures.js"

const seed = Number(process.env["TEST_SEED"] ?? randomInt(2 ** 31))
const values = Number(process.env["HOSTILE_VALUES"] ?? 2000)

it.scopedLive(
  `${values} generated values are accepted or refused alike by every backend`,
  () =>
    Effect.gen(function*() {
      console.log(`TEST_SEED=${seed} HOSTILE_VALUES=${values}`)
      const backends = yield* open
      const runtime = yield* Effect.runtime()
      const run = Runtime.runPromise(runtime)
      let accepted = 0
      let place = 0
      let head = 0
      const property = FastCheck.asyncProperty(hostileEvent, async (draw) => {
        // shrinking draws the same id again
        const value = withId(draw, `hostile-${++place}`)
        const answers = await Promise.all(backends.map(({ ledger }) => run(offer(ledger, value))))
        const [first] = answers
        const before = head
        head = first!.head
        for (const [index, answer] of answers.entries()) expect(answer, `${backends[index]!.name}`).toStrictEqual(first)
        expect(first!.error === undefined, `${first!.error}`).toBe(isEvent(value))
        if (first!.error === undefined) {
          accepted++
          expect(first!.recorded).toBe(told({ ...value as Event.Event, offset: head }))
        }
        expect(head).toBe(first!.error === undefined ? before + 1 : before)
        // made with `create` it is refused with the same name, or makes an event that a ledger takes
        const created = Runtime.runSync(runtime, Effect.either(Event.create(value as Event.Input)))
        if (Either.isLeft(created)) expect(created.left._tag).toBe("InvalidEvent")
        else expect(isEvent(created.right)).toBe(true)
      })
      yield* Effect.promise(() => FastCheck.assert(property, { numRuns: values, seed }))
      console.log(`${accepted} accepted`)
      // the test is worth something only if both happen often
      expect(Math.min(accepted, values - accepted)).toBeGreaterThan(values / 10)
    }),
  60_000 + values * 50
)

it.scopedLive(
  `${values} generated queries are answered or refused alike by every backend`,
  () =>
    Effect.gen(function*() {
      console.log(`TEST_SEED=${seed} HOSTILE_VALUES=${values}`)
      const backends = yield* open
      const run = Runtime.runPromise(yield* Effect.runtime())
      const few = FastCheck.sample(anyEvent, { numRuns: 20, seed })
        .map((one, index) => event(`${index}`, { ...one, id: `${index}` }))
      for (const { ledger } of backends) yield* ledger.appendAll(few)
      let answered = 0
      const property = FastCheck.asyncProperty(hostileQuery, async (query) => {
        const answers = await Promise.all(backends.map(({ ledger }) => run(ask(ledger, query))))
        for (const [index, answer] of answers.entries()) {
          expect(answer, `${backends[index]!.name}`).toStrictEqual(answers[0])
          expect(typeof answer !== "string" || /^(InvalidQuery \w|LedgerReplaced)/.test(answer), `${answer}`).toBe(
            true
          )
        }
        if (Array.isArray(answers[0])) answered++
      })
      yield* Effect.promise(() => FastCheck.assert(property, { numRuns: values, seed }))
      console.log(`${answered} answered`)
      expect(Math.min(answered, values - answered)).toBeGreaterThan(values / 20)
      for (const { ledger } of backends) expect(yield* ledger.latestOffset).toBe(few.length)
    }),
  60_000 + values * 50
)

it("an event that cannot be read, or be quoted in a message, is refused by `create` too", () => {
  const deep = (levels: number) => {
    let value: object = {}
    for (let level = 0; level < levels; level++) value = { a: value }
    return value
  }
  const revoked = () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    return proxy
  }
  const thrower = () => ({
    get a(): never {
      throw new Error("no")
    }
  })
  const { createdAt: _, id: __, ...input } = event("")
  const cases: ReadonlyArray<readonly [input: unknown, path: string]> = [
    ...fieldNames.filter((field) => field !== "payload").flatMap((field) =>
      [deep(10_000), thrower(), field === "createdAt" ? {} : revoked()]
        .map((value) => [Object.assign({}, input, { [field]: value }), field] as const)
    ),
    [{ ...input, payload: deep(10_000) }, `payload${".a".repeat(128)}`],
    [{ ...input, payload: thrower() }, "payload"],
    [{ ...input, payload: revoked() }, "payload"],
    [revoked(), "event"],
    [thrower(), "event"],
    [null, "runId"],
    ["event", "0"]
  ]
  for (const [given, path] of cases) {
    const created = Effect.runSync(Effect.either(Event.create(given as Event.Input)))
    expect(Either.isLeft(created) && [created.left._tag, created.left.path]).toStrictEqual(["InvalidEvent", path])
  }
})

const open = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-hostile-"))),
    (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
  )
  // what is durable is not what is tested here
  const durability = "relaxed"
  const url = Redacted.make(inject("databaseUrl"))
  const layers: Readonly<Record<string, Layer.Layer<Ledger.Ledger, unknown>>> = {
    memory: MemoryLedger.layer,
    SQLite: SqliteLedger.layerFile(Path.join(folder, "a.db"), { durability }),
    Postgres: PgLedger.layerUrl(url, { schema: `hostile_${randomBytes(6).toString("hex")}`, durability })
  }
  return yield* Effect.forEach(
    Object.entries(layers),
    ([name, layer]) =>
      Effect.map(Layer.build(layer), (context) => ({ name, ledger: Context.get(context, Ledger.Ledger) }))
  )
})

type Service = Context.Tag.Service<Ledger.Ledger>

/** What becomes of a value that is offered alone, in a batch, and with a condition. */
const offer = (ledger: Service, value: unknown) =>
  Effect.gen(function*() {
    const one = value as Event.Event
    const said = (effect: Effect.Effect<unknown, { readonly _tag: string }>) =>
      Effect.match(effect, {
        onSuccess: () => undefined,
        onFailure: (error) => {
          const { index, path } = error as { readonly index?: number; readonly path?: string }
          return `${error._tag} ${index} ${path}`
        }
      })
    const batch = yield* said(ledger.appendAll([one]))
    const alone = yield* said(ledger.append(one))
    const decided = yield* said(ledger.appendIf({ noneMatch: { runId: "no such run" }, after: 0 }, [one]))
    expect([alone, decided]).toStrictEqual([batch, batch])
    const head = yield* ledger.latestOffset
    if (alone !== undefined) return { error: alone, head }
    const recorded = yield* ledger.get(one.id)
    return { error: undefined, head, recorded: told(Option.getOrThrow(recorded)) }
  }).pipe(
    Logger.withMinimumLogLevel(LogLevel.Error),
    Effect.timeout("20 seconds")
  )

const ask = (ledger: Service, query: unknown): Effect.Effect<ReadonlyArray<number> | string> =>
  Stream.runCollect(ledger.read(query as Query.Query)).pipe(
    Effect.match({
      onSuccess: (events) => Chunk.toReadonlyArray(events).map(({ offset }) => offset),
      onFailure: (error) => `${error._tag} ${"path" in error ? error.path : ""}`
    }),
    Effect.timeout("20 seconds"),
    Effect.orDie
  )

/** Every field of an event as JSON says it: minus zero is zero there, and the order of keys says nothing. */
const told = (event: Event.RecordedEvent): string =>
  JSON.stringify(
    { ...event, createdAt: event.createdAt.epochMillis },
    (_, member: unknown) =>
      typeof member === "object" && member !== null && !Array.isArray(member)
        ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => a < b ? -1 : 1))
        : member
  )

/** The table of what is accepted, once more and from the other side. */
const isEvent = (value: unknown): boolean => {
  if (typeof value !== "object" || value === null) return false
  const fields = value as Record<string, unknown>
  const isText = (max: number) => (text: unknown): boolean =>
    typeof text === "string" && !/\0|\p{Surrogate}/u.test(text) && text !== "" && [...text].length <= max
  const isInteger = (min: number) => (number: unknown): boolean =>
    typeof number === "number" && number % 1 === 0 && number >= min && number < 2 ** 31
  const isName = isText(255)
  const isNameOrNull = (name: unknown): boolean => name === null || isName(name)
  const accepted: Readonly<Record<string, (value: unknown) => boolean>> = {
    id: isText(64),
    runId: isName,
    turn: isInteger(0),
    kind: (kind) => isName(kind) && /^[a-z][a-z0-9]*(\.[a-z][a-z0-9]*)+$/.test(kind as string),
    actor: isName,
    payload: (payload) => isJson(payload) && !Array.isArray(payload) && typeof payload === "object" && payload !== null,
    createdAt: (time) =>
      DateTime.isDateTime(time) && time.epochMillis >= Date.parse("0001-01-01T00:00:00Z") &&
      time.epochMillis < Date.parse("+010000-01-01T00:00:00Z"),
    schemaVersion: isInteger(1),
    sessionId: isNameOrNull,
    modelProfile: isNameOrNull,
    modelId: isNameOrNull
  }
  return Object.keys(fields).every((key) => Object.hasOwn(accepted, key)) &&
    Object.entries(accepted).every(([key, check]) => check(fields[key]))
}

const isJson = (value: unknown, depth = 1): boolean => {
  if (value === null || typeof value === "boolean") return true
  if (typeof value === "number") return Number.isFinite(value)
  if (typeof value === "string") return !/\p{Surrogate}/u.test(value)
  if (typeof value !== "object" || depth > 128 || Object.getOwnPropertySymbols(value).length > 0) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  const keys = Object.keys(value)
  if (Array.isArray(value)) {
    return prototype === Array.prototype && keys.length === value.length &&
      value.every((member) => isJson(member, depth + 1))
  }
  return (prototype === null || prototype === Object.prototype) && !keys.includes("__proto__") &&
    keys.every((key) => isJson(key) && isJson((value as Record<string, unknown>)[key], depth + 1))
}

const character = FastCheck.oneof(
  { weight: 20, arbitrary: FastCheck.string({ unit: "binary", minLength: 1, maxLength: 1 }) },
  {
    weight: 1,
    arbitrary: FastCheck.constantFrom(
      "\0",
      "\ud800",
      "\udc00",
      "\uffff",
      "\u2028",
      "\"",
      "\\",
      "'",
      "{",
      ",",
      "}",
      "\ufeff"
    )
  }
)
const text = FastCheck.oneof(
  FastCheck.string({ unit: character, maxLength: 20 }),
  FastCheck.constantFrom(
    "x".repeat(64),
    "x".repeat(65),
    "y".repeat(255),
    "y".repeat(256),
    "\u{1F600}".repeat(64),
    "NULL"
  ),
  FastCheck.string({ unit: "binary", minLength: 60, maxLength: 260 })
)
const number = FastCheck.oneof(
  FastCheck.integer(),
  FastCheck.double(),
  FastCheck.constantFrom(-0, 2 ** 31 - 1, 2 ** 31, 2 ** 53, 2 ** 53 - 1, -1, 0.5, Number.NaN, Infinity)
)
const anything = FastCheck.oneof(
  FastCheck.anything({
    key: text,
    maxDepth: 3,
    values: [text, number, FastCheck.boolean(), FastCheck.constant(null)],
    withBigInt: true,
    withBoxedValues: true,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    withObjectString: true,
    withSet: true,
    withSparseArray: true,
    withTypedArray: true
  }),
  FastCheck.constantFrom<Array<() => unknown>>(
    () => undefined,
    () => Symbol("s"),
    () => () => 1,
    () => ({ toJSON: () => 1 }),
    () => JSON.parse("{\"__proto__\": 1}"),
    () => ({ constructor: { prototype: { polluted: 1 } } }),
    () => DateTime.unsafeMake(0),
    () => new Date(Number.NaN),
    () => Object.freeze({ a: Object.freeze([]) })
  ).map((make) => make())
)
/** JSON, and at a place in it something that may be none. */
const planted = FastCheck.tuple(
  FastCheck.jsonValue({ maxDepth: 3 }),
  anything,
  FastCheck.array(FastCheck.constantFrom("a", "b c", "", 0), { maxLength: 4 })
).map(([around, inside, path]) =>
  path.reduceRight<unknown>(
    (value, key) => typeof key === "number" ? [around, value] : { [key]: value, z: around },
    inside
  )
)
const jsonObject = FastCheck.dictionary(text, FastCheck.oneof(FastCheck.jsonValue({ stringUnit: "binary" }), number))

const valid = FastCheck.oneof(
  anyEvent,
  jsonObject.map((payload) => event("", { payload: payload as Event.JsonObject }))
)
const changed = (changes: FastCheck.Arbitrary<object>) =>
  FastCheck.tuple(valid, changes).map(([one, change]): object => Object.assign({}, one, change))
const fieldNames = Object.keys(event("")) as ReadonlyArray<keyof Event.Event>

interface Draw {
  readonly value: unknown
  /** The id is part of what was drawn. */
  readonly own: boolean
}

const hostileEvent: FastCheck.Arbitrary<Draw> = FastCheck.oneof(
  { weight: 4, arbitrary: valid.map((value) => ({ value, own: false })) },
  { weight: 3, arbitrary: changed(FastCheck.record({ payload: planted })).map((value) => ({ value, own: false })) },
  {
    weight: 3,
    arbitrary: changed(
      FastCheck.tuple(FastCheck.constantFrom(...fieldNames), FastCheck.oneof(text, number, anything))
        .map(([field, value]) => ({ [field]: value }))
    ).map((value) => ({ value, own: false }))
  },
  {
    weight: 1,
    arbitrary: changed(FastCheck.oneof(anything, text).map((id) => ({ id }))).map((value) => ({ value, own: true }))
  },
  { weight: 1, arbitrary: changed(FastCheck.dictionary(text, anything)).map((value) => ({ value, own: false })) },
  { weight: 1, arbitrary: anything.map((value) => ({ value, own: true })) }
)

/** An id that nobody has used, as duplicates are the business of other tests. */
const withId = ({ own, value }: Draw, id: string): unknown => {
  if (!own) return { ...value as object, id }
  const given = (value as { readonly id?: unknown } | null | undefined)?.id
  return typeof given === "string" && given !== "" ? { ...value as object, id: `${id}${given}` } : value
}

const offset = FastCheck.oneof({ weight: 20, arbitrary: FastCheck.nat(25) }, number, anything)
const aFilter = FastCheck.oneof(
  { weight: 10, arbitrary: filters },
  FastCheck.record({
    runId: FastCheck.oneof(text, anything),
    kinds: FastCheck.oneof(FastCheck.array(FastCheck.constantFrom("a.b", "agent.spoke", "A")), anything),
    actors: FastCheck.oneof(FastCheck.array(text), anything),
    sessionIds: FastCheck.array(text),
    modelIds: FastCheck.array(anything, { maxLength: 2 }),
    createdFrom: FastCheck.oneof(
      FastCheck.date().map((date) => DateTime.make(date).pipe(Option.getOrUndefined)),
      anything
    )
  }, { requiredKeys: [] }),
  anything
)
const hostileQuery = FastCheck.oneof(
  {
    weight: 5,
    arbitrary: FastCheck.record({
      filter: FastCheck.oneof(aFilter, FastCheck.array(aFilter, { maxLength: 3 })),
      after: FastCheck.oneof(offset, FastCheck.record({ after: offset, incarnation: text }, { requiredKeys: [] })),
      through: offset,
      limit: offset,
      direction: FastCheck.constantFrom("forward", "backward", "forward", "backward", "sideways")
    }, { requiredKeys: [] })
  },
  { weight: 1, arbitrary: anything }
)

/** Events to append, generators of them, and what a ledger ought to answer, written without the ledger's code. */
import * as DateTime from "effect/DateTime"
import * as FastCheck from "effect/FastCheck"
import { createHash } from "node:crypto"
import type { Event, Json, JsonObject } from "../../src/Event.js"
import type { Filter, Filters } from "../../src/Query.js"

/** 2026-01-01T00:00:00.000Z */
export const epoch = Date.UTC(2026, 0, 1)

/** A valid event. */
export const event = (id: string, fields: Partial<Event> = {}): Event => ({
  id,
  runId: "run-1",
  turn: 0,
  kind: "agent.spoke",
  actor: "ada",
  payload: { said: id },
  createdAt: DateTime.unsafeMake(epoch),
  schemaVersion: 1,
  sessionId: null,
  modelProfile: null,
  modelId: null,
  ...fields
})

/** Valid events with the ids `<prefix>-1`, `<prefix>-2`, …. */
export const events = (count: number, prefix = "event", fields: Partial<Event> = {}): ReadonlyArray<Event> =>
  Array.from({ length: count }, (_, index) => event(`${prefix}-${index + 1}`, { turn: index, ...fields }))

/** Whether a filter's words apply to an event. */
export const matches = (filters: Filters | undefined, event: Event): boolean =>
  filters === undefined ||
  (Array.isArray(filters) ? filters as ReadonlyArray<Filter> : [filters as Filter]).some((filter) =>
    (filter.runId === undefined || filter.runId === event.runId) &&
    (filter.kinds === undefined || filter.kinds.includes(event.kind)) &&
    (filter.actors === undefined || filter.actors.includes(event.actor)) &&
    (filter.sessionIds === undefined || (event.sessionId !== null && filter.sessionIds.includes(event.sessionId))) &&
    (filter.modelIds === undefined || (event.modelId !== null && filter.modelIds.includes(event.modelId))) &&
    (filter.createdFrom === undefined || event.createdAt.epochMillis >= filter.createdFrom.epochMillis) &&
    (filter.createdUntil === undefined || event.createdAt.epochMillis < filter.createdUntil.epochMillis)
  )

/** RFC 8785: members sorted by UTF-16 code units, numbers and strings as ECMAScript writes them. */
export const canonical = (value: Json): string => {
  if (typeof value !== "object" || value === null) return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`
  const object = value as JsonObject
  return `{${Object.keys(object).sort().map((key) => `${JSON.stringify(key)}:${canonical(object[key]!)}`).join(",")}}`
}

const canonicalOf = (event: Event): string =>
  canonical({
    id: event.id,
    run_id: event.runId,
    turn: event.turn,
    kind: event.kind,
    actor: event.actor,
    payload: event.payload,
    created_at: new Date(event.createdAt.epochMillis).toISOString(),
    schema_version: event.schemaVersion,
    session_id: event.sessionId,
    model_profile: event.modelProfile,
    model_id: event.modelId
  })

/** The SHA-256 of an event's canonical JSON, in its encoded form. */
export const digest = (event: Event): string => createHash("sha256").update(canonicalOf(event)).digest("hex")

/** The SHA-256 of the digests of events, one after the other. */
export const digestOver = (events: ReadonlyArray<Event>): string => {
  const hash = createHash("sha256")
  for (const event of events) hash.update(Buffer.from(digest(event), "hex"))
  return hash.digest("hex")
}

/** How large the canonical JSON of events is. */
export const canonicalBytes = (events: ReadonlyArray<Event>): number =>
  events.reduce((sum, event) => sum + Buffer.byteLength(canonicalOf(event)), 0)

const runIds = ["run-1", "run-2", "run-3"]
const kinds = ["agent.spoke", "agent.acted", "tool.called", "run.finished"]
const actors = ["ada", "bob", "cyd", "dee"]
const sessionIds = ["morning", "evening", "night"]
const modelIds = ["small", "large"]
const minutes = 20

const minute = FastCheck.integer({ min: 0, max: minutes }).map((n) => DateTime.unsafeMake(epoch + n * 60_000))

/** Events of a small world, so that filters often match. Their ids are those given. */
export const worldEvent = (id: FastCheck.Arbitrary<string>): FastCheck.Arbitrary<Event> =>
  FastCheck.record({
    id,
    runId: FastCheck.constantFrom(...runIds),
    turn: FastCheck.nat(2),
    kind: FastCheck.constantFrom(...kinds),
    actor: FastCheck.constantFrom(...actors),
    payload: FastCheck.record({ n: FastCheck.nat(1) }),
    createdAt: minute,
    schemaVersion: FastCheck.integer({ min: 1, max: 2 }),
    sessionId: FastCheck.option(FastCheck.constantFrom(...sessionIds)),
    modelProfile: FastCheck.option(FastCheck.constant("profile")),
    modelId: FastCheck.option(FastCheck.constantFrom(...modelIds))
  })

/** The same few hundred events of the small world every time. */
export const world = (count: number): ReadonlyArray<Event> =>
  FastCheck.sample(worldEvent(FastCheck.constant("")), { numRuns: count, seed: 20260101 }).map((drawn, index) =>
    event(`world-${index + 1}`, { ...drawn, id: `world-${index + 1}` })
  )

const some = (members: ReadonlyArray<string>): FastCheck.Arbitrary<ReadonlyArray<string>> =>
  FastCheck.subarray([...members, "never.seen"], { minLength: 1 })

/** A filter over the small world, with any of its fields. */
export const filter: FastCheck.Arbitrary<Filter> = FastCheck.record({
  runId: FastCheck.constantFrom(...runIds, "run-unknown"),
  kinds: some(kinds),
  actors: some(actors),
  sessionIds: some(sessionIds),
  modelIds: some(modelIds),
  createdFrom: minute,
  createdUntil: minute
}, { requiredKeys: [] })

/** One filter, or up to three that may overlap. */
export const filters: FastCheck.Arbitrary<Filters> = FastCheck.oneof(
  filter,
  FastCheck.array(filter, { minLength: 1, maxLength: 3 })
)

const text = (maxLength: number): FastCheck.Arbitrary<string> =>
  FastCheck.oneof(
    FastCheck.string({ unit: "grapheme-ascii", minLength: 1, maxLength }),
    FastCheck.string({ unit: "binary", minLength: 1, maxLength }).filter((text) => !text.includes("\0"))
  )

const segment = FastCheck.stringMatching(/^[a-z][a-z0-9]{0,9}$/)

const payload: FastCheck.Arbitrary<JsonObject> = FastCheck.dictionary(
  FastCheck.string({ unit: "binary" }),
  FastCheck.jsonValue({ maxDepth: 4, stringUnit: "binary" })
).map((value) => JSON.parse(JSON.stringify(value)) as JsonObject)
  .filter((value) => !JSON.stringify(value).includes("__proto__"))

/** Any event that a ledger accepts. */
export const anyEvent: FastCheck.Arbitrary<Event> = FastCheck.record({
  id: text(64),
  runId: text(255),
  turn: FastCheck.integer({ min: 0, max: 2 ** 31 - 1 }),
  kind: FastCheck.array(segment, { minLength: 2, maxLength: 5 }).map((segments) => segments.join(".")),
  actor: text(255),
  payload,
  createdAt: FastCheck.integer({ min: -62135596800000, max: 253402300799999 }).map((n) => DateTime.unsafeMake(n)),
  schemaVersion: FastCheck.integer({ min: 1, max: 2 ** 31 - 1 }),
  sessionId: FastCheck.option(text(255)),
  modelProfile: FastCheck.option(text(255)),
  modelId: FastCheck.option(text(255))
})

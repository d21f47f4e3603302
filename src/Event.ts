/**
 * The event: an immutable envelope round a JSON payload.
 *
 * @since 0.1.0
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Equivalence_ from "effect/Equivalence"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as Crypto from "node:crypto"
import { canonicalJson, formatPath, isObject } from "./internal/canonicalJson.js"
import * as Fields from "./internal/fields.js"
import { InvalidEvent } from "./LedgerError.js"

/**
 * A JSON value.
 *
 * @since 0.1.0
 * @category models
 */
export type Json = null | boolean | number | string | ReadonlyArray<Json> | JsonObject

/**
 * A JSON object: what a payload is.
 *
 * @since 0.1.0
 * @category models
 */
export interface JsonObject {
  readonly [key: string]: Json
}

/**
 * One thing that happened, as plain readonly data.
 *
 * - `id`: the idempotency key, chosen before the first attempt, 1 to 64 characters
 * - `runId`: the run it belongs to, 1 to 255 characters
 * - `turn`: the run's turn, 0 … 2³¹−1
 * - `kind`: lowercase dotted name with two or more segments, up to 255 characters
 * - `actor`: who did it, 1 to 255 characters
 * - `payload`: a JSON object, up to 1 MiB of canonical JSON and 128 levels deep
 * - `createdAt`: years 0001 to 9999, in milliseconds
 * - `schemaVersion`: the version of the payload's shape, 1 … 2³¹−1
 * - `sessionId`, `modelProfile`, `modelId`: null, or 1 to 255 characters
 *
 * @since 0.1.0
 * @category models
 */
export interface Event {
  readonly id: string
  readonly runId: string
  readonly turn: number
  readonly kind: string
  readonly actor: string
  readonly payload: JsonObject
  readonly createdAt: DateTime.Utc
  readonly schemaVersion: number
  readonly sessionId: string | null
  readonly modelProfile: string | null
  readonly modelId: string | null
}

/**
 * An event with its place in the ledger: what reads give back. `offset` counts 1, 2, 3, … without holes.
 *
 * @since 0.1.0
 * @category models
 */
export interface RecordedEvent extends Event {
  readonly offset: number
}

/**
 * The JSON form in which events are exchanged: snake_case keys, `created_at` in ISO 8601.
 *
 * @since 0.1.0
 * @category models
 */
export interface Encoded {
  readonly id: string
  readonly run_id: string
  readonly turn: number
  readonly kind: string
  readonly actor: string
  readonly payload: JsonObject
  readonly created_at: string
  readonly schema_version: number
  readonly session_id: string | null
  readonly model_profile: string | null
  readonly model_id: string | null
}

/**
 * The JSON form of a recorded event.
 *
 * @since 0.1.0
 * @category models
 */
export interface RecordedEncoded extends Encoded {
  readonly offset: number
}

const field = <A, I>(self: Schema.Schema<A, I>, check: (value: unknown) => Fields.Refusal): Schema.Schema<A, I> =>
  self.pipe(Schema.filter((value) => check(value) ?? true))

const Name = field(Schema.String, Fields.name)
const OptionalName = Schema.NullOr(Name)

const Payload: Schema.Schema<JsonObject> = Schema.declare(
  (value: unknown): value is JsonObject => isObject(value),
  { identifier: "JsonObject", description: "a JSON object" }
).pipe(Schema.filter((value) => {
  const json = canonicalJson(value, maxPayloadLength)
  return typeof json === "string" || { path: json.path, message: json.reason }
}))

// a ledger refuses far smaller ones; this only stops a shared graph from unfolding without end
const maxPayloadLength = 2 ** 28

const CreatedAt: Schema.Schema<DateTime.Utc, string> = Schema.transformOrFail(
  Schema.String,
  Schema.DateTimeUtcFromSelf.pipe(Schema.filter((time) => Fields.epochMillis(time.epochMillis) ?? true)),
  {
    strict: true,
    decode: (value, _, ast) => {
      const millis = Fields.parseTime(value)
      return millis === undefined
        ? ParseResult.fail(
          new ParseResult.Type(ast, value, "expected an ISO 8601 date and time in the years 0001 to 9999")
        )
        : ParseResult.succeed(DateTime.unsafeMake(millis))
    },
    encode: (time) => ParseResult.succeed(Fields.formatTime(time.epochMillis))
  }
)

const fields = {
  id: field(Schema.String, Fields.id),
  runId: Schema.propertySignature(Name).pipe(Schema.fromKey("run_id")),
  turn: field(Schema.Number, Fields.turn),
  kind: field(Schema.String, Fields.kind),
  actor: Name,
  payload: Payload,
  createdAt: Schema.propertySignature(CreatedAt).pipe(Schema.fromKey("created_at")),
  schemaVersion: Schema.propertySignature(field(Schema.Number, Fields.schemaVersion)).pipe(
    Schema.fromKey("schema_version")
  ),
  sessionId: Schema.propertySignature(OptionalName).pipe(Schema.fromKey("session_id")),
  modelProfile: Schema.propertySignature(OptionalName).pipe(Schema.fromKey("model_profile")),
  modelId: Schema.propertySignature(OptionalName).pipe(Schema.fromKey("model_id"))
}

/**
 * The schema of {@link Event}; its encoded side is the JSON in which traces are exchanged. Unknown fields are refused. A
 * time without a zone is read as UTC, any other zone is converted.
 *
 * @example
 * ```ts
 * import { Event } from "effect-ledger"
 * import { Schema } from "effect"
 *
 * const event = Schema.decodeUnknownSync(Event.Event)({
 *   id: "step-1", run_id: "run-1", turn: 0, kind: "agent.spoke", actor: "ada", payload: { text: "hello" },
 *   created_at: "2026-01-01T12:00:00+02:00", schema_version: 1, session_id: null, model_profile: null, model_id: null
 * })
 * console.log(event.createdAt.toJSON()) // 2026-01-01T10:00:00.000Z
 * ```
 *
 * @since 0.1.0
 * @category schemas
 */
export const Event: Schema.Schema<Event, Encoded> = Schema.Struct(fields).annotations({
  identifier: "Event",
  parseOptions: { onExcessProperty: "error" }
})

/**
 * The schema of {@link RecordedEvent}: an {@link Event} with its offset.
 *
 * @since 0.1.0
 * @category schemas
 */
export const RecordedEvent: Schema.Schema<RecordedEvent, RecordedEncoded> = Schema.Struct({
  ...fields,
  offset: Schema.Number.pipe(Schema.int(), Schema.positive())
}).annotations({ identifier: "RecordedEvent", parseOptions: { onExcessProperty: "error" } })

/**
 * What {@link create} needs: the fields that nobody can guess, and those that have a default.
 *
 * @since 0.1.0
 * @category models
 */
export interface Input {
  readonly id?: string | undefined
  readonly runId: string
  readonly turn: number
  readonly kind: string
  readonly actor: string
  readonly payload: JsonObject
  readonly createdAt?: DateTime.DateTime | undefined
  readonly schemaVersion?: number | undefined
  readonly sessionId?: string | null | undefined
  readonly modelProfile?: string | null | undefined
  readonly modelId?: string | null | undefined
}

/**
 * Makes an event: `id` defaults to a new time-ordered UUID (version 7, RFC 9562), `createdAt` to the Clock's time,
 * `schemaVersion` to 1, the rest to null. Fails with `InvalidEvent` naming the field.
 *
 * An event that is to be appended again after a crash needs an id that comes out the same: {@link deterministicId}.
 *
 * @example
 * ```ts
 * import { Event } from "effect-ledger"
 *
 * export const spoke = Event.create({ runId: "run-1", turn: 3, kind: "agent.spoke", actor: "ada", payload: { text: "hi" } })
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const create = (input: Input): Effect.Effect<Event, InvalidEvent> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    try {
      const given = defined(input)
      const event = {
        sessionId: null,
        modelProfile: null,
        modelId: null,
        schemaVersion: 1,
        ...given,
        id: given.id === undefined ? uuid7(now) : given.id,
        createdAt: given.createdAt === undefined
          ? DateTime.unsafeMake(now)
          : DateTime.isDateTime(given.createdAt)
          ? DateTime.toUtc(given.createdAt)
          : given.createdAt
      }
      return Either.mapLeft(validate(event), refusalOf)
    } catch {
      // a getter or a proxy threw, or the schema's message did, which quotes the value
      return unreadable(input)
    }
  })

const refusalOf = (error: ParseResult.ParseIssue): InvalidEvent => {
  const issue = ParseResult.ArrayFormatter.formatIssueSync(error)[0]!
  const [root = "event", ...path] = issue.path
  return new InvalidEvent({
    index: 0,
    path: formatPath(String(root), path.map((key) => typeof key === "number" ? key : String(key))),
    reason: issue.message
  })
}

const unreadable = (input: Input): InvalidEvent => {
  try {
    for (const [path, check] of Object.entries(checks)) {
      const value: unknown = input[path as keyof Input]
      const reason = value === undefined ? undefined : check(value)
      if (reason !== undefined) return new InvalidEvent({ index: 0, path, reason })
    }
  } catch {
    // said below
  }
  return new InvalidEvent({ index: 0, path: "event", reason: "reading it threw an exception" })
}

const checks: Readonly<Record<string, (value: unknown) => Fields.Refusal>> = {
  id: Fields.id,
  runId: Fields.name,
  turn: Fields.turn,
  kind: Fields.kind,
  actor: Fields.name,
  createdAt: (value) => DateTime.isDateTime(value) ? undefined : "expected a DateTime",
  schemaVersion: Fields.schemaVersion,
  sessionId: Fields.optionalName,
  modelProfile: Fields.optionalName,
  modelId: Fields.optionalName
}

// the type side does not keep the parse options of the schema
const validate = ParseResult.validateEither(Schema.typeSchema(Event), { onExcessProperty: "error" })

/**
 * The event without its offset, as another ledger would take it.
 *
 * @since 0.1.0
 * @category conversions
 */
export const fromRecorded = ({ offset: _, ...event }: RecordedEvent): Event => event

/**
 * An id made of what identifies a step, such as run, turn and actor: the same parts give the same id, so the step is
 * recorded once however often it is retried. It is a UUID version 5 (RFC 9562) over the parts as a JSON array; this is
 * frozen and will not change between releases.
 *
 * @example
 * ```ts
 * import { Event } from "effect-ledger"
 *
 * console.log(Event.deterministicId("run-1", "3", "ada") === Event.deterministicId("run-1", "3", "ada")) // true
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const deterministicId = (...parts: NonEmptyReadonlyArray<string>): string => {
  const hash = Crypto.createHash("sha1").update(namespace).update(JSON.stringify(parts)).digest().subarray(0, 16)
  hash[6] = (hash[6]! & 0x0f) | 0x50
  hash[8] = (hash[8]! & 0x3f) | 0x80
  return formatUuid(hash.toString("hex"))
}

/**
 * Whether a value is a well-formed kind: two or more lowercase segments joined by dots, up to 255 characters.
 *
 * @since 0.1.0
 * @category guards
 */
export const isKind = (value: unknown): value is string => Fields.kind(value) === undefined

/**
 * The kinds that agent systems share. The set is open: any well-formed kind is accepted.
 *
 * @since 0.1.0
 * @category models
 */
export const coreKinds = [
  "run.started",
  "run.finished",
  "turn.started",
  "turn.finished",
  "agent.thought",
  "agent.spoke",
  "agent.acted",
  "model.called",
  "model.replied",
  "tool.called",
  "tool.returned",
  "error.raised"
] as const

/**
 * A session id as it comes from a header or a form: surrounding white space is removed, and what is then empty is null.
 *
 * @since 0.1.0
 * @category conversions
 */
export const normalizeSessionId = (value: string | null | undefined): string | null => {
  const trimmed = value?.trim() ?? ""
  return trimmed === "" ? null : trimmed
}

/**
 * One line for people: offset (when recorded), run and turn, kind, actor, and the start of the payload.
 *
 * @since 0.1.0
 * @category conversions
 */
export const summary = (event: Event | RecordedEvent): string => {
  const json = JSON.stringify(event.payload)
  const payload = json.length > summaryLength
    ? `${json.slice(0, summaryLength - 1).replace(/[\ud800-\udbff]$/, "")}…`
    : json
  const offset = "offset" in event ? `#${event.offset} ` : ""
  // names may hold line breaks and terminal escapes
  return `${offset}${event.runId}/${event.turn} ${event.kind} ${event.actor} ${payload}`
    .replace(/[\p{Cc}\u2028\u2029]/gu, " ")
}

/**
 * Two events are equivalent when every field is, payloads by their canonical JSON.
 *
 * @since 0.1.0
 * @category equivalence
 */
export const Equivalence: Equivalence_.Equivalence<Event> = (self, that) =>
  self === that || (
    self.id === that.id &&
    self.runId === that.runId &&
    self.turn === that.turn &&
    self.kind === that.kind &&
    self.actor === that.actor &&
    self.schemaVersion === that.schemaVersion &&
    self.sessionId === that.sessionId &&
    self.modelProfile === that.modelProfile &&
    self.modelId === that.modelId &&
    DateTime.Equivalence(self.createdAt, that.createdAt) &&
    canonicalJson(self.payload, maxPayloadLength) === canonicalJson(that.payload, maxPayloadLength)
  )

const summaryLength = 120

// the namespace of deterministic ids: frozen
const namespace = Buffer.from("5d8a3b1e0f6c4c1f9d4b7e2a6c90f314", "hex")

const formatUuid = (hex: string): string =>
  `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`

const uuid7 = (now: number): string => {
  const time = Math.max(0, now).toString(16).padStart(12, "0").slice(-12)
  return `${time.slice(0, 8)}-${time.slice(8)}-7${Crypto.randomUUID().slice(15)}`
}

const defined = (input: Input): Input =>
  Object.fromEntries(Object.entries(input ?? {}).filter(([, value]) => value !== undefined)) as unknown as Input

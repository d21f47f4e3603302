/** Event ⇄ row: the one codec. Hand-written, as it runs once for each event that is written or read. */
import * as DateTime from "effect/DateTime"
import type { Event, JsonObject, RecordedEvent } from "../Event.js"
import type { Row, StoredRow } from "../LedgerStore.js"
import { canonicalJson, formatPath, isObject, isWellFormed } from "./canonicalJson.js"
import { type Content, digest } from "./digest.js"
import * as Fields from "./fields.js"

/** The field that is wrong, and what was expected. */
export class FieldIssue {
  constructor(readonly path: string, readonly reason: string) {}
}

/** Checks an event and takes its row: from here on the caller's object is not looked at again. */
export const encode = (event: Event, maxPayloadBytes: number): Row | FieldIssue => {
  if (typeof event !== "object" || event === null) return new FieldIssue("event", "expected an event")
  try {
    return encodeFields(event, maxPayloadBytes)
  } catch {
    return new FieldIssue("event", "reading it threw an exception")
  }
}

const encodeFields = (event: Event, maxPayloadBytes: number): Row | FieldIssue => {
  // once, as a getter could answer otherwise the second time; the caller may also have silenced the types
  const { actor, createdAt, id, kind, modelId, modelProfile, payload, runId, schemaVersion, sessionId, turn } = event
  const time = DateTime.isDateTime(createdAt) ? createdAt.epochMillis : Number.NaN
  const issue = unknownField(event) ??
    refuse("id", Fields.id(id)) ??
    refuse("runId", Fields.name(runId)) ??
    refuse("turn", Fields.turn(turn)) ??
    refuse("kind", Fields.kind(kind)) ??
    refuse("actor", Fields.name(actor)) ??
    refuse("createdAt", Fields.epochMillis(time)) ??
    refuse("schemaVersion", Fields.schemaVersion(schemaVersion)) ??
    refuse("sessionId", Fields.optionalName(sessionId)) ??
    refuse("modelProfile", Fields.optionalName(modelProfile)) ??
    refuse("modelId", Fields.optionalName(modelId))
  if (issue !== undefined) return issue
  const json = encodePayload(payload, maxPayloadBytes)
  if (typeof json !== "string") return json
  // minus zero becomes zero, as the databases store it
  return new Encoded(
    id,
    runId,
    turn + 0,
    kind,
    actor,
    json,
    time,
    schemaVersion,
    sessionId,
    modelProfile,
    modelId
  )
}

/** A row that makes its digest when it is asked for it: what is recorded already is compared by its content. */
class Encoded implements Row {
  private known: string | undefined
  constructor(
    readonly id: string,
    readonly runId: string,
    readonly turn: number,
    readonly kind: string,
    readonly actor: string,
    readonly payload: string,
    readonly createdAt: number,
    readonly schemaVersion: number,
    readonly sessionId: string | null,
    readonly modelProfile: string | null,
    readonly modelId: string | null
  ) {}
  get digest(): string {
    return this.known ??= digest(this)
  }
}

/** Adds the columns of a row to a list, in the order of `StoredRow`, without the offset and the digest. */
export const pushColumns = (list: Array<unknown>, row: Row): Array<unknown> => {
  list.push(
    row.id,
    row.runId,
    row.turn,
    row.kind,
    row.actor,
    row.payload,
    row.createdAt,
    row.schemaVersion,
    row.sessionId,
    row.modelProfile,
    row.modelId
  )
  return list
}

/** Whether two rows say the same: every field but `createdAt` (a step that is repeated has a new time). */
export const sameContent = (self: Row, that: Row): boolean =>
  self.id === that.id &&
  self.runId === that.runId &&
  self.turn === that.turn &&
  self.kind === that.kind &&
  self.actor === that.actor &&
  self.payload === that.payload &&
  self.schemaVersion === that.schemaVersion &&
  self.sessionId === that.sessionId &&
  self.modelProfile === that.modelProfile &&
  self.modelId === that.modelId

/** Whether a stored row says the same as a row with its id, see {@link sameContent}. */
export const isRecordOf = (stored: StoredRow, row: Row): boolean =>
  stored[2] === row.runId &&
  stored[3] === row.turn &&
  stored[4] === row.kind &&
  stored[5] === row.actor &&
  stored[6] === row.payload &&
  stored[8] === row.schemaVersion &&
  stored[9] === row.sessionId &&
  stored[10] === row.modelProfile &&
  stored[11] === row.modelId

/** Reads a stored row back; a string says why it cannot be an event. */
export const decode = (row: StoredRow): RecordedEvent | string => {
  const offset = toNumber(row[0])
  const createdAt = toNumber(row[7])
  const reason = stored("offset", offset > 0 ? undefined : "expected an integer from 1") ??
    stored("id", Fields.id(row[1])) ??
    stored("run_id", Fields.name(row[2])) ??
    stored("turn", Fields.turn(row[3])) ??
    stored("kind", Fields.kind(row[4])) ??
    stored("actor", Fields.name(row[5])) ??
    stored("created_at", Fields.epochMillis(createdAt)) ??
    stored("schema_version", Fields.schemaVersion(row[8])) ??
    stored("session_id", Fields.optionalName(row[9])) ??
    stored("model_profile", Fields.optionalName(row[10])) ??
    stored("model_id", Fields.optionalName(row[11]))
  if (reason !== undefined) return reason
  const payload = decodePayload(row[6])
  return typeof payload === "string" ? `payload: ${payload}` : recorded(row, offset, createdAt, payload)
}

/** The event of a row that is known to be one. */
export const eventOf = (row: StoredRow, payload: JsonObject): RecordedEvent =>
  recorded(row, Number(row[0]), Number(row[7]), payload)

const recorded = (row: StoredRow, offset: number, createdAt: number, payload: JsonObject): RecordedEvent => ({
  offset,
  id: row[1] as string,
  runId: row[2] as string,
  turn: row[3] as number,
  kind: row[4] as string,
  actor: row[5] as string,
  payload,
  createdAt: DateTime.unsafeFromDate(new Date(createdAt)),
  schemaVersion: row[8] as number,
  sessionId: row[9] as string | null,
  modelProfile: row[10] as string | null,
  modelId: row[11] as string | null
})

/** The digest of what is stored; of no use where that cannot be an event. */
export const digestOf = (row: StoredRow): string => digest(contentOf(row))

/** What is stored, without its offset; of no use where that cannot be an event. */
export const contentOf = (row: StoredRow): Content => ({
  id: String(row[1]),
  runId: String(row[2]),
  turn: Number(row[3]),
  kind: String(row[4]),
  actor: String(row[5]),
  payload: String(row[6]),
  createdAt: Number(row[7]),
  schemaVersion: Number(row[8]),
  sessionId: row[9] as string | null,
  modelProfile: row[10] as string | null,
  modelId: row[11] as string | null
})

/** The row's offset; 0 when it has none. */
export const offsetOf = (row: StoredRow): number => Number(row[0])

const fieldNames: ReadonlySet<string> = new Set<keyof Event>([
  "id",
  "runId",
  "turn",
  "kind",
  "actor",
  "payload",
  "createdAt",
  "schemaVersion",
  "sessionId",
  "modelProfile",
  "modelId"
])

const unknownField = (event: object): FieldIssue | undefined => {
  for (const key of Object.keys(event)) {
    if (!fieldNames.has(key)) {
      return new FieldIssue(
        key,
        key === "offset"
          ? "a recorded event has its place already: see Event.fromRecorded"
          : "is not a field of an event"
      )
    }
  }
  return undefined
}

const refuse = (path: string, reason: Fields.Refusal): FieldIssue | undefined =>
  reason === undefined ? undefined : new FieldIssue(path, reason)

const stored = (column: string, reason: Fields.Refusal): string | undefined =>
  reason === undefined ? undefined : `${column}: ${reason}`

const encodePayload = (payload: unknown, maxBytes: number): string | FieldIssue => {
  if (!isObject(payload)) return new FieldIssue("payload", "expected a JSON object")
  const json = canonicalJson(payload, maxBytes)
  if (typeof json !== "string") return new FieldIssue(formatPath("payload", json.path), json.reason)
  return json.length * 3 > maxBytes && Buffer.byteLength(json) > maxBytes
    ? new FieldIssue("payload", `is larger than ${maxBytes} bytes of JSON`)
    : json
}

// drivers give 64-bit integers as numbers, as bigints or as digits; Number itself would make 0 of null and of ""
const toNumber = (value: unknown): number =>
  typeof value === "string" ? (isInteger(value) ? Number(value) : Number.NaN) : typeof value === "bigint" ||
      Number.isInteger(value)
    ? Number(value)
    : Number.NaN

// a third of what an expression takes
const isInteger = (text: string): boolean => {
  const start = text.startsWith("-") ? 1 : 0
  for (let index = start; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code < 48 || code > 57) return false
  }
  return text.length > start
}

// what JSON.parse accepts and canonical JSON never holds: lone surrogates, __proto__ (or with letters written as escapes),
// and numbers beyond 1e308; expressions that look for one thing each are far quicker than one that holds them all, and a
// plain search is quicker still
const suspicious = (text: string): boolean =>
  (text.includes("\\u") && /\\u[dD][89a-fA-F]|\\u00[2-7]/.test(text)) || text.includes("__proto__") ||
  /\d[eE]\+?\d{3}/.test(text) || /\d{200}/.test(text)

const decodePayload = (text: unknown): JsonObject | string => {
  if (typeof text !== "string") return "expected JSON text"
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== "object" || value === null || Array.isArray(value)) return "expected a JSON object"
    if (suspicious(text) || !isWellFormed(text)) {
      const json = canonicalJson(value, Number.MAX_SAFE_INTEGER)
      if (typeof json !== "string") return json.reason
    }
    return value as JsonObject
  } catch {
    return "is not JSON"
  }
}

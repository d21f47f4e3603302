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
  const content: Content = {
    id,
    runId,
    // minus zero becomes zero, as the databases store it
    turn: turn + 0,
    kind,
    actor,
    payload: json,
    createdAt: time,
    schemaVersion,
    sessionId,
    modelProfile,
    modelId
  }
  return { ...content, digest: digest(content) }
}

/** The columns of a row in the order of `StoredRow`, without the offset and the digest. */
export const columnsOf = (row: Row): ReadonlyArray<unknown> => [
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
]

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
  const [offset, id, runId, turn, kind, actor, payload, time, schemaVersion, sessionId, modelProfile, modelId] = row
  const createdAt = toNumber(time)
  const reason = stored("offset", toNumber(offset) > 0 ? undefined : "expected an integer from 1") ??
    stored("id", Fields.id(id)) ??
    stored("run_id", Fields.name(runId)) ??
    stored("turn", Fields.turn(turn)) ??
    stored("kind", Fields.kind(kind)) ??
    stored("actor", Fields.name(actor)) ??
    stored("created_at", Fields.epochMillis(createdAt)) ??
    stored("schema_version", Fields.schemaVersion(schemaVersion)) ??
    stored("session_id", Fields.optionalName(sessionId)) ??
    stored("model_profile", Fields.optionalName(modelProfile)) ??
    stored("model_id", Fields.optionalName(modelId))
  if (reason !== undefined) return reason
  const object = decodePayload(payload)
  if (typeof object === "string") return `payload: ${object}`
  return {
    offset: Number(offset),
    id: id as string,
    runId: runId as string,
    turn: turn as number,
    kind: kind as string,
    actor: actor as string,
    payload: object,
    createdAt: DateTime.unsafeMake(createdAt),
    schemaVersion: schemaVersion as number,
    sessionId: sessionId as string | null,
    modelProfile: modelProfile as string | null,
    modelId: modelId as string | null
  }
}

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
  typeof value === "string" ? (/^-?\d+$/.test(value) ? Number(value) : Number.NaN) : typeof value === "bigint" ||
      Number.isInteger(value)
    ? Number(value)
    : Number.NaN

// what JSON.parse accepts and canonical JSON never holds: numbers beyond 1e308, lone surrogates, __proto__ (or with
// letters written as escapes)
const suspicious = /[eE]\+?\d{3}|\d{200}|\\u[dD][89a-fA-F]|\\u00[2-7]|__proto__/

const decodePayload = (text: unknown): JsonObject | string => {
  if (typeof text !== "string") return "expected JSON text"
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== "object" || value === null || Array.isArray(value)) return "expected a JSON object"
    if (suspicious.test(text) || !isWellFormed(text)) {
      const json = canonicalJson(value, Number.MAX_SAFE_INTEGER)
      if (typeof json !== "string") return json.reason
    }
    return value as JsonObject
  } catch {
    return "is not JSON"
  }
}

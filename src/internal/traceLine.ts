/** One event a line, as JSON: how a line is written and read, and how bytes become lines. */
import * as DateTime from "effect/DateTime"
import { isUtf8 } from "node:buffer"
import { type Encoded, type Event, fromRecorded, type RecordedEvent } from "../Event.js"
import type { Row } from "../LedgerStore.js"
import { canonicalEvent } from "./digest.js"
import { parseTime } from "./fields.js"
import { JsonRefusal, parseJson } from "./jsonText.js"
import { encode, FieldIssue } from "./row.js"

/** The event's row, checked; its payload may be of any size, as a ledger has its own limit. */
export const rowOf = (event: Event | RecordedEvent): Row | FieldIssue =>
  encode("offset" in event ? fromRecorded(event) : event, Number.MAX_SAFE_INTEGER)

/** The line of an event, without its end: offset, digest, and then exactly what the digest is of, but for its first brace. */
export const formatLine = (event: RecordedEvent): string | FieldIssue => {
  const row = rowOf(event)
  return row instanceof FieldIssue
    ? row
    : `{"offset":${event.offset},"digest":"${row.digest}",${canonicalEvent(row).slice(1)}`
}

/** The event of a line; a string says why it is none. */
export const readLine = (text: string): Event | string => {
  const value = parseJson(text)
  if (value instanceof JsonRefusal) return value.reason
  if (typeof value !== "object" || value === null || Array.isArray(value)) return "expected a JSON object"
  const unknown = Object.keys(value).find((key) => !keys.has(key))
  if (unknown !== undefined) return `${JSON.stringify(unknown)} is not a field of an event`
  const { digest, offset, ...fields } = value as Record<string, unknown>
  if (offset !== undefined && !(Number.isSafeInteger(offset) && (offset as number) > 0)) {
    return "offset: expected an integer from 1"
  }
  const event = eventOf(fields, digest)
  return event instanceof FieldIssue ? `${event.path}: ${event.reason}` : event
}

/** The event of fields in their encoded form; those that older writers did not know may be missing. */
export const eventOf = (fields: Record<string, unknown>, digest: unknown): Event | FieldIssue => {
  const missing = required.find((key) => fields[key] === undefined)
  if (missing !== undefined) return new FieldIssue(missing, "is missing")
  const time = typeof fields.created_at === "string" ? parseTime(fields.created_at) : undefined
  if (time === undefined) {
    return new FieldIssue("created_at", "expected an ISO 8601 date and time in the years 0001 to 9999")
  }
  const event = {
    id: fields.id,
    runId: fields.run_id,
    turn: fields.turn,
    kind: fields.kind,
    actor: fields.actor,
    payload: fields.payload,
    createdAt: DateTime.unsafeMake(time),
    schemaVersion: fields.schema_version === undefined ? 1 : fields.schema_version,
    sessionId: fields.session_id ?? null,
    modelProfile: fields.model_profile ?? null,
    modelId: fields.model_id ?? null
  } as Event
  const row = rowOf(event)
  if (row instanceof FieldIssue) return new FieldIssue(names[row.path] ?? row.path, row.reason)
  return digest === undefined || digest === row.digest
    ? event
    : new FieldIssue("digest", "is not that of the content")
}

/** A line, or why it cannot be read. */
export type Line =
  | { readonly line: number; readonly text: string }
  | { readonly line: number; readonly reason: string }

/** Cuts bytes into lines. A line that is longer than the limit is not kept, however long it is. */
export class Lines {
  private line = 1
  private parts: Array<Uint8Array> = []
  private size = 0

  constructor(private readonly maxBytes: number) {}

  push(bytes: Uint8Array): ReadonlyArray<Line> {
    const lines: Array<Line> = []
    let start = 0
    for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
      this.keep(bytes.subarray(start, end))
      this.take(lines)
      start = end + 1
    }
    this.keep(bytes.subarray(start))
    return lines
  }

  /** The last line, if it has no end. */
  end(): ReadonlyArray<Line> {
    const lines: Array<Line> = []
    if (this.size > 0) this.take(lines)
    return lines
  }

  private keep(part: Uint8Array): void {
    this.size += part.length
    if (this.size > this.maxBytes) this.parts = []
    else if (part.length > 0) this.parts.push(part)
  }

  private take(lines: Array<Line>): void {
    const { line, parts, size } = this
    this.line++
    this.parts = []
    this.size = 0
    if (size > this.maxBytes) {
      lines.push({ line, reason: tooLong(this.maxBytes) })
      return
    }
    const whole = parts.length === 1 ? asBuffer(parts[0]!) : Buffer.concat(parts)
    // the first line of a file may begin with a byte order mark
    const bytes = line === 1 && whole.subarray(0, 3).equals(byteOrderMark) ? whole.subarray(3) : whole
    if (!isUtf8(bytes)) {
      lines.push({ line, reason: "is not UTF-8" })
      return
    }
    const text = bytes.toString("utf8")
    if (!blank.test(text)) lines.push({ line, text })
  }
}

/** Lines that somebody else has cut. */
export const numbered = (maxBytes: number) => {
  let line = 0
  return (text: string): ReadonlyArray<Line> => {
    line++
    if (text.length > maxBytes || (text.length * 3 > maxBytes && Buffer.byteLength(text) > maxBytes)) {
      return [{ line, reason: tooLong(maxBytes) }]
    }
    const marked = line === 1 && text.startsWith("\ufeff") ? text.slice(1) : text
    return blank.test(marked) ? [] : [{ line, text: marked }]
  }
}

const tooLong = (maxBytes: number): string => `is longer than ${maxBytes} bytes`

const required = ["id", "run_id", "turn", "kind", "actor", "payload", "created_at"] as const

const keys: ReadonlySet<string> = new Set<keyof Encoded | "offset" | "digest">([
  ...required,
  "schema_version",
  "session_id",
  "model_profile",
  "model_id",
  "offset",
  "digest"
])

const names: Readonly<Record<string, keyof Encoded>> = {
  runId: "run_id",
  createdAt: "created_at",
  schemaVersion: "schema_version",
  sessionId: "session_id",
  modelProfile: "model_profile",
  modelId: "model_id"
}

const newline = 10
const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf])
const blank = /^[\t\r\n ]*$/

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** Event ⇄ CloudEvent 1.0, as JSON in structured mode. */
import * as Either from "effect/Either"
import type { Event, JsonObject, RecordedEvent } from "../Event.js"
import { InvalidCloudEvent } from "../LedgerError.js"
import { formatTime } from "./fields.js"
import { JsonRefusal, parseJson } from "./jsonText.js"
import { FieldIssue } from "./row.js"
import { eventOf, rowOf } from "./traceLine.js"

export interface CloudEvent {
  readonly specversion: "1.0"
  readonly id: string
  readonly source: string
  readonly type: string
  readonly subject: string
  readonly time: string
  readonly datacontenttype: "application/json"
  readonly turn: number
  readonly actor: string
  readonly schemaversion: number
  readonly sessionid?: string
  readonly modelprofile?: string
  readonly modelid?: string
  readonly ledgeroffset?: string
  readonly ledgerdigest: string
  readonly data: JsonObject
}

export const toCloudEvent = (
  event: Event | RecordedEvent,
  source: string
): Either.Either<CloudEvent, InvalidCloudEvent> => {
  const row = rowOf(event)
  if (row instanceof FieldIssue) return refuse(undefined, attributeOf(row.path), row.reason)
  const { id } = row
  if (!isSource(source)) return refuse(id, "source", expectedSource)
  const cloudEvent: CloudEvent = {
    specversion: "1.0",
    id,
    source,
    type: row.kind,
    subject: row.runId,
    time: formatTime(row.createdAt),
    datacontenttype: "application/json",
    turn: row.turn,
    actor: row.actor,
    schemaversion: row.schemaVersion,
    ...(row.sessionId === null ? {} : { sessionid: row.sessionId }),
    ...(row.modelProfile === null ? {} : { modelprofile: row.modelProfile }),
    ...(row.modelId === null ? {} : { modelid: row.modelId }),
    // as text: an Integer of CloudEvents ends at 2³¹−1
    ..."offset" in event ? { ledgeroffset: String(event.offset) } : {},
    ledgerdigest: row.digest,
    data: event.payload
  }
  for (const attribute of strings) {
    if (notAllowed.test(cloudEvent[attribute] ?? "")) {
      return refuse(id, attribute, "a CloudEvent's text may hold no control character and no noncharacter")
    }
  }
  return Either.right(cloudEvent)
}

/** Whether events can come from there. */
export const isSource = (source: unknown): boolean => typeof source === "string" && uriReference.test(source)
export const expectedSource = "expected a URI reference, such as urn:example:agents"

/** The event of a CloudEvent, which is given as a JSON value or as its text. */
export const fromCloudEvent = (json: unknown): Either.Either<Event, InvalidCloudEvent> => {
  const value = typeof json === "string" ? parseJson(json) : json
  if (value instanceof JsonRefusal) return refuse(undefined, "event", value.reason)
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return refuse(undefined, "event", "expected a JSON object")
  }
  try {
    return read(value as Record<string, unknown>)
  } catch {
    return refuse(undefined, "event", "reading it threw an exception")
  }
}

const read = (value: Record<string, unknown>): Either.Either<Event, InvalidCloudEvent> => {
  // an attribute that is null is one that is not set
  const given: Record<string, unknown> = Object.fromEntries(
    Object.entries(value).filter(([key, member]) => member !== undefined && (key === "data" || member !== null))
  )
  const wrong = (attribute: string, reason: string) => refuse(given.id, attribute, reason)
  if (given.specversion !== "1.0") return wrong("specversion", "expected \"1.0\"")
  if (typeof given.source !== "string" || given.source === "") return wrong("source", "expected a URI reference")
  const missing = ["id", "type", "subject", "time"].find((attribute) => given[attribute] === undefined)
  if (missing !== undefined) return wrong(missing, "is missing, and nothing can stand for it")
  if (given.data_base64 !== undefined) return wrong("data_base64", "binary data is no JSON object")
  const unknown = Object.keys(given).find((attribute) => !attributes.has(attribute))
  if (unknown !== undefined) return wrong(unknown, "an event has no place for this attribute")
  const type = given.datacontenttype
  if (type !== undefined && !(typeof type === "string" && jsonType.test(type))) {
    return wrong("datacontenttype", "expected a JSON media type")
  }
  if (typeof given.time !== "string" || !zoned.test(given.time)) {
    return wrong("time", "expected an RFC 3339 time with its zone")
  }
  if (given.ledgeroffset !== undefined && !(typeof given.ledgeroffset === "string" && count.test(given.ledgeroffset))) {
    return wrong("ledgeroffset", "expected the digits of an integer from 1")
  }
  const event = eventOf({
    id: given.id,
    run_id: given.subject,
    turn: given.turn === undefined ? 0 : given.turn,
    kind: given.type,
    actor: given.actor === undefined ? given.source : given.actor,
    payload: given.data === undefined ? {} : given.data,
    created_at: given.time.toUpperCase(),
    schema_version: given.schemaversion,
    session_id: given.sessionid,
    model_profile: given.modelprofile,
    model_id: given.modelid
  }, given.ledgerdigest)
  if (!(event instanceof FieldIssue)) return Either.right(event)
  // the default stands in the actor's place, so that is where it is wrong
  const attribute = event.path === "actor" && given.actor === undefined ? "source" : attributeOf(event.path)
  return wrong(attribute, event.reason)
}

const refuse = (id: unknown, attribute: string, reason: string): Either.Either<never, InvalidCloudEvent> =>
  Either.left(new InvalidCloudEvent({ id: typeof id === "string" ? id : null, attribute, reason }))

/** The attribute in which a field travels, whichever way the field is written. */
const attributeOf = (path: string): string =>
  attributeNames[path.replaceAll("_", "").toLowerCase()] ?? path.replace(/^payload/, "data")

const attributeNames: Readonly<Record<string, string>> = {
  runid: "subject",
  kind: "type",
  createdat: "time",
  schemaversion: "schemaversion",
  sessionid: "sessionid",
  modelprofile: "modelprofile",
  modelid: "modelid",
  digest: "ledgerdigest"
}

const attributes: ReadonlySet<string> = new Set<keyof CloudEvent>([
  "specversion",
  "id",
  "source",
  "type",
  "subject",
  "time",
  "datacontenttype",
  "turn",
  "actor",
  "schemaversion",
  "sessionid",
  "modelprofile",
  "modelid",
  "ledgeroffset",
  "ledgerdigest",
  "data"
])

const strings = ["id", "subject", "actor", "sessionid", "modelprofile", "modelid"] as const
const notAllowed = /[\p{Cc}\p{Noncharacter_Code_Point}]/u
const uriReference = /^[\w\-.~:/?#[\]@!$&'()*+,;=%]+$/
const jsonType = /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i
const zoned = /(?:z|[+-]\d\d:\d\d)$/i
const count = /^[1-9]\d{0,15}$/

/**
 * What each field of an event may hold (the table "Input" of docs/guarantees.md), once: the schema, the write path, the
 * read path and queries all ask here. A check answers why the value is refused, or `undefined`.
 */
import { isWellFormed } from "./canonicalJson.js"

/** Why a value is refused; `undefined` when it is accepted. */
export type Refusal = string | undefined

export const maxInt = 2 ** 31 - 1
/** 0001-01-01T00:00:00.000Z */
export const minTime = -62135596800000
/** 9999-12-31T23:59:59.999Z */
export const maxTime = 253402300799999

export const id = (value: unknown): Refusal => text(value, 64)
export const name = (value: unknown): Refusal => text(value, 255)
export const optionalName = (value: unknown): Refusal => value === null ? undefined : text(value, 255)

export const kind = (value: unknown): Refusal =>
  typeof value !== "string"
    ? text(value, 255)
    : value.length <= 255 && kindPattern.test(value)
    ? undefined
    : "expected two or more lowercase segments joined by dots, such as agent.spoke, up to 255 characters"

export const turn = (value: unknown): Refusal => integer(value, 0)
export const schemaVersion = (value: unknown): Refusal => integer(value, 1)

export const epochMillis = (value: unknown): Refusal =>
  Number.isInteger(value) && (value as number) >= minTime && (value as number) <= maxTime
    ? undefined
    : "expected a time in the years 0001 to 9999, in whole milliseconds"

/** `YYYY-MM-DDTHH:mm:ss.sssZ`. Times that are written come close together, and a date costs ten times the rest. */
export const formatTime = (millis: number): string => {
  const second = Math.floor(millis / 1000)
  if (second !== lastSecond) {
    lastTime = new Date(second * 1000).toISOString().slice(0, 20)
    lastSecond = second
  }
  return `${lastTime}${String(millis - second * 1000).padStart(3, "0")}Z`
}

let lastSecond = Number.NaN
let lastTime = ""

/**
 * Reads an ISO 8601 date and time: any zone offset, a naive one is UTC, digits below the millisecond are cut off.
 * `undefined` when it is no such time: days that a month does not have are refused, never rolled over.
 */
export const parseTime = (value: string): number | undefined => {
  const match = isoTime.exec(value)
  if (match === null) return undefined
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map((digits) => Number(digits ?? 0)) as [
    number,
    number,
    number,
    number,
    number,
    number
  ]
  if (month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59) return undefined
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  if (date.getUTCDate() !== day) return undefined
  date.setUTCHours(hour, minute, second, Number((match[7] ?? "").slice(0, 3).padEnd(3, "0")))
  const zoneHours = Number(match[9] ?? 0)
  const zoneMinutes = Number(match[10] ?? 0)
  if (zoneHours > 23 || zoneMinutes > 59) return undefined
  const offset = (zoneHours * 60 + zoneMinutes) * (match[8]?.startsWith("-") === true ? -60_000 : 60_000)
  const millis = date.getTime() - offset
  return epochMillis(millis) === undefined ? millis : undefined
}

const kindPattern = /^[a-z][a-z0-9]*(?:\.[a-z][a-z0-9]*)+$/
const isoTime = /^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?:Z|([+-](\d\d):?(\d\d)?))?$/

const text = (value: unknown, max: number): Refusal => {
  if (typeof value !== "string") return `expected a string, not ${nameOf(value)}`
  if (value === "") return `expected 1 to ${max} characters, not an empty string`
  if (value.length > max && (value.length > 2 * max || Array.from(value).length > max)) {
    return `expected at most ${max} characters`
  }
  if (value.includes("\0")) return "a NUL character cannot be stored"
  return isWellFormed(value) ? undefined : "a lone surrogate is not a character"
}

const integer = (value: unknown, min: number): Refusal =>
  Number.isInteger(value) && (value as number) >= min && (value as number) <= maxInt
    ? undefined
    : `expected an integer from ${min} to ${maxInt}`

const nameOf = (value: unknown): string => value === null ? "null" : typeof value

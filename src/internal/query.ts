/** Queries, filters and cursors, checked once for every backend. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as DateTime from "effect/DateTime"
import * as Either from "effect/Either"
import type { SubscribeOptions } from "../Ledger.js"
import { InvalidQuery } from "../LedgerError.js"
import type { StoreCondition, StoreFilter } from "../LedgerStore.js"
import type { After, AppendCondition, Filters, Query } from "../Query.js"
import * as Fields from "./fields.js"

/** A checked cursor. */
export interface Cursor {
  readonly after: number
  readonly incarnation: string | undefined
}

/** A checked query. */
export interface CheckedQuery {
  readonly filters: ReadonlyArray<StoreFilter>
  readonly cursor: Cursor
  readonly through: number
  readonly backward: boolean
  readonly limit: number
}

export const checkQuery = (query: Query): Either.Either<CheckedQuery, InvalidQuery> =>
  attempt("query", () => {
    object("query", query, ["filter", "after", "through", "direction", "limit"])
    const { after, direction, filter, limit, through } = query
    if (direction !== undefined && direction !== "forward" && direction !== "backward") {
      refuse("direction", "expected \"forward\" or \"backward\"")
    }
    return {
      filters: filter === undefined ? [] : withoutAll(filters("filter", filter)),
      cursor: cursor(after === undefined ? 0 : after),
      through: through === undefined ? Number.MAX_SAFE_INTEGER : count("through", through),
      backward: direction === "backward",
      limit: limit === undefined ? Number.MAX_SAFE_INTEGER : count("limit", limit)
    }
  })

export const checkSubscription = (
  options: SubscribeOptions
): Either.Either<{ readonly filters: ReadonlyArray<StoreFilter>; readonly cursor: Cursor }, InvalidQuery> =>
  attempt("options", () => {
    object("options", options, ["after", "filter"])
    const { after, filter } = options
    return {
      filters: filter === undefined ? [] : withoutAll(filters("filter", filter)),
      cursor: cursor(after === undefined ? 0 : after)
    }
  })

export const checkCondition = (condition: AppendCondition): Either.Either<StoreCondition, InvalidQuery> =>
  attempt("condition", () => {
    object("condition", condition, ["noneMatch", "after"])
    return { noneMatch: filters("noneMatch", condition.noneMatch), after: count("after", condition.after) }
  })

export const checkId = (id: string): Either.Either<string, InvalidQuery> =>
  attempt("id", () => {
    check("id", Fields.id(id))
    return id
  })

export const checkRunId = (runId: string): Either.Either<string, InvalidQuery> =>
  attempt("runId", () => {
    check("runId", Fields.name(runId))
    return runId
  })

const attempt = <A>(path: string, body: () => A): Either.Either<A, InvalidQuery> =>
  Either.try({
    try: body,
    // whatever else is thrown comes from a getter or a proxy in what the caller gave
    catch: (error) =>
      error instanceof InvalidQuery ? error : new InvalidQuery({ path, reason: "reading it threw an exception" })
  })

const refuse = (path: string, reason: string): never => {
  throw new InvalidQuery({ path, reason })
}

const check = (path: string, refusal: Fields.Refusal): void => {
  if (refusal !== undefined) refuse(path, refusal)
}

const object = (path: string, value: unknown, fields: ReadonlyArray<string>): void => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) refuse(path, "expected an object")
  const unknown = Object.keys(value as object).find((key) => !fields.includes(key))
  if (unknown !== undefined) refuse(`${path}.${unknown}`, `is not a field here; there are ${fields.join(", ")}`)
}

const count = (path: string, value: unknown): number =>
  Number.isSafeInteger(value) && (value as number) >= 0
    ? value as number
    : refuse(path, "expected a whole number from 0")

const cursor = (after: After): Cursor => {
  if (typeof after === "number") return { after: count("after", after), incarnation: undefined }
  object("after", after, ["after", "incarnation"])
  const { after: offset, incarnation } = after
  if (incarnation !== undefined) check("after.incarnation", Fields.name(incarnation))
  return { after: count("after.after", offset), incarnation }
}

const filters = (path: string, value: Filters): NonEmptyReadonlyArray<StoreFilter> => {
  if (!Array.isArray(value)) return [filter(path, value)]
  if (value.length === 0) refuse(path, "an empty list is ambiguous: leave it out for all events, or name one filter")
  if (value.length > maxFilters) refuse(path, `expected at most ${maxFilters} filters`)
  return copy(value).map((member, index) => filter(`${path}[${index}]`, member)) as unknown as NonEmptyReadonlyArray<
    StoreFilter
  >
}

// what is checked is what is used, holes included: of the caller's object each member is read once
const copy = (list: ReadonlyArray<unknown>): ReadonlyArray<unknown> => Array.from(list)

// every filter has parameters of its own, and a statement takes only so many
const maxFilters = 1000

// an empty filter matches everything, so the others add nothing
const withoutAll = (list: ReadonlyArray<StoreFilter>): ReadonlyArray<StoreFilter> =>
  list.some((member) => Object.keys(member).length === 0) ? [] : list

const lists = { kinds: Fields.kind, actors: Fields.name, sessionIds: Fields.name, modelIds: Fields.name }
const times = ["createdFrom", "createdUntil"] as const

const filter = (path: string, value: unknown): StoreFilter => {
  object(path, value, ["runId", ...Object.keys(lists), ...times])
  const given = value as Record<string, unknown>
  const checked: Record<string, unknown> = {}
  const { runId } = given
  if (runId !== undefined) {
    check(`${path}.runId`, Fields.name(runId))
    checked.runId = runId
  }
  for (const [key, checkMember] of Object.entries(lists)) {
    const members = given[key]
    if (members === undefined) continue
    if (!Array.isArray(members)) refuse(`${path}.${key}`, "expected an array")
    const list = copy(members as ReadonlyArray<unknown>)
    if (list.length === 0) {
      refuse(`${path}.${key}`, "an empty array is ambiguous: leave it out for all, or name one member")
    }
    list.forEach((member, index) => check(`${path}.${key}[${index}]`, checkMember(member)))
    checked[key] = Array.from(new Set(list))
  }
  for (const key of times) {
    const time = given[key]
    if (time === undefined) continue
    const millis = DateTime.isDateTime(time) ? time.epochMillis : undefined
    check(`${path}.${key}`, Fields.epochMillis(millis))
    checked[key] = millis
  }
  return checked as StoreFilter
}

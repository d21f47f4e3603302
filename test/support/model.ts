/**
 * What a ledger is, in a few lines: an array of events and a map of ids. It knows neither storage nor paging nor
 * concurrency, so what it answers is plain to see; random operations are put to it and to every backend.
 */
import { DateTime, FastCheck } from "effect"
import { type Event, Ledger, type Query } from "../../src/index.js"
import { digest, event, filters, matches, worldEvent } from "../contract/fixtures.js"

/** Of a cursor: the history that the ledger has now, the one before it, or one that never was. */
export type Incarnation = "none" | "current" | "former" | "unknown"

export interface Cursor {
  readonly after: number
  readonly incarnation: Incarnation
}

/** One call of one member, as data. What `invalid` holds is refused, by the field that stands beside it. */
export type Operation =
  | Step
  | { readonly _tag: "follow"; readonly cursor: Cursor; readonly filter: Query.Filters | undefined } & Meanwhile
  | { readonly _tag: "subscribe"; readonly cursor: Cursor; readonly filter: Query.Filters | undefined } & Meanwhile
  | { readonly _tag: "transaction"; readonly steps: ReadonlyArray<Step>; readonly commits: boolean }

/** Who follows takes what is there and, live, what is appended then; the last event that is appended is its {@link end}. */
interface Meanwhile {
  readonly meanwhile: ReadonlyArray<Event.Event>
}

/** What may also be done in a transaction. `strict` appends fail on divergence. */
export type Step =
  | { readonly _tag: "append"; readonly event: Event.Event; readonly strict: boolean }
  | { readonly _tag: "appendAll"; readonly events: ReadonlyArray<Event.Event>; readonly strict: boolean }
  | {
    readonly _tag: "appendIf"
    readonly condition: Query.AppendCondition
    readonly events: ReadonlyArray<Event.Event>
    readonly strict: boolean
  }
  | { readonly _tag: "get"; readonly id: string }
  | { readonly _tag: "eventsForRun"; readonly runId: string }
  | { readonly _tag: "events" | "runs" | "latestOffset" | "incarnation" | "lineage" | "incarnate" | "reset" }
  | { readonly _tag: "tail"; readonly cursor: Cursor }
  | { readonly _tag: "read"; readonly cursor: Cursor; readonly query: Omit<Query.Query, "after"> }
  | { readonly _tag: "invalidEvent"; readonly events: ReadonlyArray<Event.Event>; readonly invalid: InvalidEvent }
  | { readonly _tag: "invalidQuery"; readonly invalid: InvalidQuery }

/** The event that ends what the call with this number follows. */
export const end = (call: number): Event.Event => event(`end-${call}`, { runId: "end" })

/** The filter, which that event passes. */
export const orEnd = (filter: Query.Filters | undefined): Query.Filters | undefined =>
  filter === undefined ? undefined : [filter, { runId: "end" }].flat()

export interface InvalidEvent {
  readonly path: string
  readonly fields: Readonly<Record<string, unknown>>
}

export type InvalidQuery =
  | { readonly member: "get" | "eventsForRun"; readonly path: string; readonly argument: unknown }
  | { readonly member: "tail" | "read" | "subscribe"; readonly path: string; readonly argument: unknown }
  | { readonly member: "appendIf"; readonly path: string; readonly argument: unknown }

/** What an operation answers, in a form that can be compared: incarnations are numbered in the order in which they began. */
export type Answer =
  | { readonly ok: unknown }
  | { readonly error: Readonly<Record<string, unknown>> }

type Replaced = { readonly error: Readonly<Record<string, unknown>> } | undefined

export class Model {
  private events: ReadonlyArray<Event.RecordedEvent> = []
  private ids = new Map<string, Event.RecordedEvent>()
  private incarnation = 0
  private parents: ReadonlyArray<
    { readonly incarnation: number; readonly offset: number; readonly digest: string | null }
  > = []

  answer(operation: Operation, call = 0): Answer {
    switch (operation._tag) {
      case "append": {
        const receipts = this.append([operation.event])
        return operation.strict ? divergent(receipts) ?? { ok: receipts[0] } : { ok: receipts[0] }
      }
      case "appendAll":
        return this.answerAll(operation)
      case "appendIf": {
        const conflict = this.conflict(operation.condition, operation.events)
        return conflict === undefined
          ? this.answerAll(operation)
          : { error: { _tag: "AppendConditionFailed", offset: conflict } }
      }
      case "get":
        return { ok: this.ids.get(operation.id) ?? null }
      case "eventsForRun":
        return { ok: this.events.filter(({ runId }) => runId === operation.runId) }
      case "events":
        return { ok: this.events }
      case "runs":
        return { ok: Array.from(new Set(this.events.map(({ runId }) => runId))) }
      case "latestOffset":
        return { ok: this.events.length }
      case "incarnation":
        return { ok: this.incarnation }
      case "incarnate": {
        const last = this.events.at(-1)
        const head = { offset: this.events.length, digest: last === undefined ? null : digest(last) }
        this.parents = [{ incarnation: this.incarnation++, ...head }, ...this.parents]
        return this.answer({ _tag: "lineage" })
      }
      case "lineage":
        return { ok: { incarnation: this.incarnation, parents: this.parents } }
      case "reset":
        this.events = []
        this.ids = new Map()
        this.incarnation++
        this.parents = []
        return { ok: null }
      case "tail":
        return this.replaced(operation.cursor) ?? { ok: this.read(operation.cursor, {}) }
      case "read":
        return this.replaced(operation.cursor) ?? { ok: this.read(operation.cursor, operation.query) }
      case "follow": {
        const replaced = this.replaced(operation.cursor)
        if (replaced !== undefined) return replaced
        const told: Array<unknown> = []
        let { after } = operation.cursor
        for (const events of [[], operation.meanwhile, [end(call)]]) {
          this.append(events)
          const head = this.events.length
          // a batch that records nothing is no news
          if (told.length > 0 && head === after) continue
          const recorded = this.read({ ...operation.cursor, after }, operation)
          told.push(...recorded.map((event) => ({ _tag: "Recorded", event })), { _tag: "CaughtUp", head })
          after = head
        }
        return { ok: told }
      }
      case "subscribe": {
        const replaced = this.replaced(operation.cursor)
        if (replaced !== undefined) return replaced
        this.append([...operation.meanwhile, end(call)])
        return { ok: this.read(operation.cursor, { filter: orEnd(operation.filter) }) }
      }
      case "transaction": {
        const { events, ids, incarnation, parents } = this
        this.ids = new Map(ids)
        const ok = operation.steps.map((step) => this.answer(step))
        if (!operation.commits) Object.assign(this, { events, ids, incarnation, parents })
        return { ok }
      }
      case "invalidEvent":
        return { error: { _tag: "InvalidEvent", index: operation.events.length, path: operation.invalid.path } }
      case "invalidQuery":
        return { error: { _tag: "InvalidQuery", path: operation.invalid.path } }
    }
  }

  private answerAll(
    { events, strict }: { readonly events: ReadonlyArray<Event.Event>; readonly strict: boolean }
  ): Answer {
    const receipts = this.append(events)
    return strict ? divergent(receipts) ?? { ok: receipts } : { ok: receipts }
  }

  private append(events: ReadonlyArray<Event.Event>): ReadonlyArray<Ledger.Receipt> {
    return events.map((event) => {
      const known = this.ids.get(event.id)
      if (known !== undefined) {
        return Ledger.Receipt.Duplicate({ id: event.id, offset: known.offset, identical: sameStep(known, event) })
      }
      const recorded = { ...event, offset: this.events.length + 1 }
      this.events = [...this.events, recorded]
      this.ids.set(event.id, recorded)
      return Ledger.Receipt.Appended({ id: event.id, offset: recorded.offset })
    })
  }

  /** A repeated decision is no decision, and what it recorded the first time does not speak against it. */
  private conflict(condition: Query.AppendCondition, batch: ReadonlyArray<Event.Event>): number | undefined {
    const first = Array.from(new Map(batch.toReversed().map((event) => [event.id, event])).values())
    if (first.every(({ id }) => this.ids.has(id))) return undefined
    if (condition.after > this.events.length) return this.events.length
    return this.events.find((event) =>
      event.offset > condition.after && matches(condition.noneMatch, event) &&
      !first.some((one) => one.id === event.id && sameStep(event, one))
    )?.offset
  }

  private replaced({ after, incarnation }: Cursor): Replaced {
    const expected = { none: null, current: this.incarnation, former: this.incarnation - 1, unknown: -1 }[incarnation]
    return after <= this.events.length && (expected === null || expected === this.incarnation) ? undefined : {
      error: { _tag: "LedgerReplaced", expected, found: this.incarnation, head: this.events.length }
    }
  }

  private read({ after }: Cursor, query: Omit<Query.Query, "after">): ReadonlyArray<Event.RecordedEvent> {
    const found = this.events.filter((event) =>
      event.offset > after && event.offset <= (query.through ?? Infinity) && matches(query.filter, event)
    )
    return (query.direction === "backward" ? found.toReversed() : found).slice(0, query.limit)
  }
}

const divergent = (receipts: ReadonlyArray<Ledger.Receipt>): Answer | undefined => {
  const first = receipts.find((receipt) => receipt._tag === "Duplicate" && !receipt.identical)
  return first === undefined
    ? undefined
    : { error: { _tag: "DivergentDuplicate", id: first.id, offset: first.offset } }
}

/** Every field but the time: a step that is repeated has a new one. */
const sameStep = (self: Event.Event, that: Event.Event): boolean =>
  (["runId", "turn", "kind", "actor", "schemaVersion", "sessionId", "modelProfile", "modelId"] as const)
    .every((field) => self[field] === that[field]) && JSON.stringify(self.payload) === JSON.stringify(that.payload)

const id = FastCheck.integer({ min: 1, max: 8 }).map((n) => `id-${n}`)
const anEvent = FastCheck.oneof(worldEvent(id), id.map((id) => event(id)))
const someEvents = FastCheck.array(anEvent, { maxLength: 6 })
const offset = FastCheck.nat(8)
const cursor: FastCheck.Arbitrary<Cursor> = FastCheck.record({
  after: FastCheck.oneof({ weight: 2, arbitrary: FastCheck.constant(0) }, { weight: 3, arbitrary: offset }),
  incarnation: FastCheck.oneof(
    { weight: 3, arbitrary: FastCheck.constant("none" as const) },
    { weight: 3, arbitrary: FastCheck.constant("current" as const) },
    { weight: 1, arbitrary: FastCheck.constantFrom("former" as const, "unknown" as const) }
  )
})
const optionalFilters = FastCheck.option(filters, { nil: undefined })

const invalidEvent: FastCheck.Arbitrary<InvalidEvent> = FastCheck.constantFrom<Array<InvalidEvent>>(
  { path: "id", fields: { id: "" } },
  { path: "id", fields: { id: "x".repeat(65) } },
  { path: "runId", fields: { runId: "a\0b" } },
  { path: "turn", fields: { turn: -1 } },
  { path: "kind", fields: { kind: "spoke" } },
  { path: "actor", fields: { actor: "\ud800" } },
  { path: "createdAt", fields: { createdAt: new Date(0) } },
  { path: "schemaVersion", fields: { schemaVersion: 0 } },
  { path: "sessionId", fields: { sessionId: "" } },
  { path: "payload", fields: { payload: [] } },
  { path: "payload.a[1]", fields: { payload: { a: [1, undefined] } } },
  { path: "payload.a.b", fields: { payload: { a: { b: Number.NaN } } } },
  { path: "extra", fields: { extra: 1 } },
  { path: "offset", fields: { offset: 1 } }
)

const noneMatch = {}
const invalidQuery: FastCheck.Arbitrary<InvalidQuery> = FastCheck.constantFrom<Array<InvalidQuery>>(
  { member: "get", path: "id", argument: "" },
  { member: "get", path: "id", argument: 5 },
  { member: "eventsForRun", path: "runId", argument: "" },
  { member: "eventsForRun", path: "runId", argument: undefined },
  { member: "tail", path: "after", argument: -1 },
  { member: "tail", path: "after", argument: 0.5 },
  { member: "tail", path: "after.after", argument: { after: Number.NaN } },
  { member: "tail", path: "after.incarnation", argument: { after: 0, incarnation: "" } },
  { member: "read", path: "limit", argument: { limit: -1 } },
  { member: "read", path: "through", argument: { through: 2 ** 53 } },
  { member: "read", path: "direction", argument: { direction: "sideways" } },
  { member: "read", path: "query.order", argument: { order: 1 } },
  { member: "read", path: "filter.kinds", argument: { filter: { kinds: [] } } },
  { member: "read", path: "filter.kinds[1]", argument: { filter: { kinds: ["a.b", "A"] } } },
  { member: "read", path: "filter[1].runId", argument: { filter: [{}, { runId: "" }] } },
  { member: "read", path: "filter", argument: { filter: [] } },
  { member: "read", path: "filter.createdFrom", argument: { filter: { createdFrom: new Date(0) } } },
  { member: "subscribe", path: "options.from", argument: { from: 1 } },
  { member: "subscribe", path: "filter.actors", argument: { filter: { actors: "ada" } } },
  { member: "appendIf", path: "after", argument: { noneMatch, after: -1 } },
  { member: "appendIf", path: "noneMatch", argument: { noneMatch: null, after: 0 } },
  { member: "appendIf", path: "condition.unless", argument: { noneMatch, after: 0, unless: 1 } }
)

const tagged = <Tag extends Operation["_tag"], Fields>(
  _tag: Tag,
  fields: { [K in keyof Fields]: FastCheck.Arbitrary<Fields[K]> }
) => FastCheck.record({ _tag: FastCheck.constant(_tag), ...fields })

const strict = FastCheck.boolean()
const steps = [
  { weight: 6, arbitrary: tagged("append", { event: anEvent, strict }) },
  { weight: 6, arbitrary: tagged("appendAll", { events: someEvents, strict }) },
  {
    weight: 6,
    arbitrary: tagged("appendIf", {
      // the second matches what is often repeated
      condition: FastCheck.record({
        noneMatch: FastCheck.oneof(filters, FastCheck.constant({ actors: ["ada"] })),
        after: FastCheck.nat(4)
      }),
      events: someEvents,
      strict
    })
  },
  { weight: 2, arbitrary: tagged("get", { id }) },
  { weight: 1, arbitrary: tagged("eventsForRun", { runId: FastCheck.constantFrom("run-1", "run-2", "run-9") }) },
  {
    weight: 4,
    arbitrary: FastCheck.constantFrom(
      "events" as const,
      "runs" as const,
      "latestOffset" as const,
      "incarnation" as const,
      "lineage" as const
    )
      .map((_tag) => ({ _tag }))
  },
  { weight: 1, arbitrary: tagged("reset", {}) },
  { weight: 2, arbitrary: tagged("incarnate", {}) },
  { weight: 2, arbitrary: tagged("tail", { cursor }) },
  {
    weight: 5,
    arbitrary: tagged("read", {
      cursor,
      query: FastCheck.record({
        filter: filters,
        through: FastCheck.nat(12),
        direction: FastCheck.constantFrom("forward" as const, "backward" as const),
        limit: FastCheck.nat(5)
      }, { requiredKeys: [] })
    })
  },
  { weight: 2, arbitrary: tagged("invalidEvent", { events: someEvents, invalid: invalidEvent }) },
  { weight: 2, arbitrary: tagged("invalidQuery", { invalid: invalidQuery }) }
]

const following = { cursor, filter: optionalFilters, meanwhile: someEvents }
const operation = FastCheck.oneof(
  ...steps,
  { weight: 2, arbitrary: tagged("follow", following) },
  { weight: 2, arbitrary: tagged("subscribe", following) },
  {
    weight: 3,
    arbitrary: tagged("transaction", {
      steps: FastCheck.array(FastCheck.oneof(...steps), { minLength: 1, maxLength: 5 }),
      commits: FastCheck.boolean()
    })
  }
) as FastCheck.Arbitrary<Operation>

/** Short sequences over a small world, so that ids collide, filters match, and a failure shrinks to a few calls. */
export const operations: FastCheck.Arbitrary<ReadonlyArray<Operation>> = FastCheck.array(operation, {
  minLength: 1,
  maxLength: 12,
  size: "max"
})

/** The answer as what it says, so that no cache inside a time takes part in a comparison. */
export const plain = (value: unknown): unknown =>
  DateTime.isDateTime(value)
    ? DateTime.formatIso(value)
    : Array.isArray(value)
    ? value.map(plain)
    : typeof value === "object" && value !== null
    ? Object.fromEntries(Object.entries(value).map(([key, member]) => [key, plain(member)]))
    : value

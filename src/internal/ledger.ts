/** The ledger over any store. Every law that is not storage lives here, once. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Event, RecordedEvent } from "../Event.js"
import { type Followed, type Ledger, type LedgerAdmin, Receipt, type SubscribeOptions } from "../Ledger.js"
import {
  AppendConditionFailed,
  CorruptEvent,
  InvalidEvent,
  LedgerReplaced,
  type ReadError,
  type StoreError,
  type SubscribeError
} from "../LedgerError.js"
import * as LedgerMetrics from "../LedgerMetrics.js"
import type { GroupResult, LedgerStore, Outcome, Page, Row, StoreCondition, StoredRow } from "../LedgerStore.js"
import * as GroupCommit from "./groupCommit.js"
import * as Live from "./live.js"
import { checkCondition, type CheckedQuery, checkId, checkQuery, checkRunId, checkSubscription } from "./query.js"
import { decode, encode, FieldIssue, isRecordOf, offsetOf, sameContent } from "./row.js"
import * as Suffix from "./suffix.js"

export interface Options {
  readonly maxPayloadBytes?: number | undefined
  readonly commitTimeout?: Duration.DurationInput | undefined
  readonly pollInterval?: Duration.DurationInput | undefined
  readonly cacheBytes?: number | undefined
}

type Store = Context.Tag.Service<LedgerStore>
type Service = Context.Tag.Service<Ledger>
type Admin = Context.Tag.Service<LedgerAdmin>

export const make = Effect.fnUntraced(function*(
  store: Store,
  options: Options = {}
): Effect.fn.Return<{ readonly ledger: Service; readonly admin: Admin }, never, Scope.Scope> {
  const maxPayloadBytes = options.maxPayloadBytes ?? 2 ** 20
  const queue = yield* GroupCommit.make({
    write: store.append,
    maxEvents: 4096,
    maxLength: 2 ** 23,
    capacity: 65536,
    timeout: options.commitTimeout ?? "1 minute"
  })

  const write = <E = never>(
    events: ReadonlyArray<Event>,
    condition?: StoreCondition,
    refused: (offset: number) => Effect.Effect<never, E> = neverRefused
  ): Effect.Effect<ReadonlyArray<Receipt>, InvalidEvent | StoreError | E> =>
    Effect.flatMap(store.inTransaction, (inTransaction) => {
      const begin = (): Effect.Effect<ReadonlyArray<Receipt>, InvalidEvent | StoreError | E> => {
        const rows = encodeAll(events, maxPayloadBytes)
        if (rows instanceof InvalidEvent) return rows
        if (rows.length === 0) return Effect.succeed([])
        const batch = distinct(rows)
        const group = { rows: batch.rows, condition }
        const result: Effect.Effect<GroupResult, StoreError> = inTransaction
          // only the fiber that is in the transaction can write in it
          ? Effect.map(store.append([group]), (results) => results[0]!)
          : queue.submit(group)
        return Effect.flatMap(result, (answer): Effect.Effect<ReadonlyArray<Receipt>, StoreError | E> => {
          live.hint()
          return answer._tag === "Refused"
            ? refused(answer.offset)
            : batch.rows.length === rows.length
            ? report(rows, answer.outcomes)
            : Effect.flatMap(spread(store, rows, batch, answer.outcomes), (outcomes) => report(rows, outcomes))
        })
      }
      return inTransaction || queue.hasRoom() ? begin() : Effect.flatMap(queue.room, begin)
    })

  const suffix = Suffix.make(options.cacheBytes ?? 2 ** 23)

  /** A stream takes `most` of what is at hand in one chunk: Effect folds a chunk with a stack frame for each element. */
  const readPage = (checked: CheckedQuery, state: ReadState, most = keptRows): Effect.Effect<PageRead, ReadError> =>
    state.failure ??
      Effect.flatMap(
        store.inTransaction,
        (inTransaction) =>
          mayKeep(checked, inTransaction) && suffix.covers(state.after)
            ? readKept(checked, state, most)
            : readStored(checked, state, inTransaction)
      )

  /** From the suffix, if the store says that it is still right. */
  const readKept = (checked: CheckedQuery, state: ReadState, most: number): Effect.Effect<PageRead, ReadError> => {
    const end = suffix.end()
    const page = store.page({
      filters: [],
      after: end,
      through: Number.MAX_SAFE_INTEGER,
      backward: false,
      limit: pageRows
    })
    return Effect.flatMap(page, (page) => {
      const { head, incarnation, rows } = page
      // another read may have gone on, or found it wrong, meanwhile
      if (suffix.end() === end) {
        if (suffix.continues(page)) {
          suffix.keep(incarnation, head, rows, decodeAll(rows, unlimited, end + 1, 1).events.length)
        } else suffix.drop()
      }
      const expected = state.incarnation ?? checked.cursor.incarnation ?? incarnation
      if (!suffix.covers(state.after) || expected !== incarnation) return readStored(checked, state, false)
      const through = Math.min(state.through, head)
      const events = suffix.slice(
        state.after,
        Math.min(through, suffix.end(), state.after + Math.min(state.left, most))
      )
      const after = state.after + events.length
      const left = state.left - events.length
      return Effect.succeed(
        [
          Chunk.unsafeFromArray(events),
          after < through && left > 0
            ? Option.some({ incarnation, failure: undefined, left, after, through })
            : Option.none()
        ] as const
      )
    })
  }

  const ask = (
    { backward, filters }: CheckedQuery,
    { after, left, through }: Unread
  ): Effect.Effect<Page, StoreError> =>
    store.page({ filters, after, through, backward, limit: Math.max(1, Math.min(pageRows, left)) })

  const readStored = (
    checked: CheckedQuery,
    state: ReadState,
    inTransaction: boolean
  ): Effect.Effect<PageRead, ReadError> =>
    Effect.flatMap(state.ahead ?? ask(checked, state), ({ head, incarnation, next, rows }) => {
      const expected = state.incarnation ?? checked.cursor.incarnation
      if (checked.cursor.after > head || (expected !== undefined && expected !== incarnation)) {
        return new LedgerReplaced({ expected: expected ?? null, found: incarnation, head })
      }
      const through = Math.min(state.through, head)
      const keep = mayKeep(checked, inTransaction)
      const unread: Unread = {
        left: state.left - rows.length,
        after: checked.backward ? state.after : next ?? through,
        through: checked.backward ? (next ?? 1) - 1 : through
      }
      // who asks for a second page asks for a third
      const ahead = store.readsAhead && !inTransaction && state.incarnation !== undefined && next !== null &&
          unread.left > 0 && !(keep && suffix.covers(unread.after))
        ? begin(ask(checked, unread))
        : undefined
      const dense = checked.filters.length === 0 ? (checked.backward ? through : state.after + 1) : undefined
      const decoded = decodeAll(rows, state.left, dense, checked.backward ? -1 : 1)
      const { events } = decoded
      if (keep) suffix.keep(incarnation, head, rows, events.length)
      const left = state.left - events.length
      const whole = checked.backward ? through - (next ?? state.after + 1) + 1 : (next ?? through) - state.after
      const failure = dense !== undefined && decoded.failure === undefined && left > 0 && events.length < whole
        ? new CorruptEvent({
          offset: dense + (checked.backward ? -1 : 1) * events.length,
          reason: "the row is missing"
        })
        : decoded.failure
      const rest: ReadState | undefined = failure === undefined && (next === null || left === 0)
        ? undefined
        : { ...unread, left, incarnation, failure, ahead }
      return Effect.succeed([Chunk.unsafeFromArray(events), Option.fromNullable(rest)] as const)
    })

  const read = (checked: CheckedQuery): Stream.Stream<RecordedEvent, ReadError> => {
    const start = (through: number): ReadState => ({
      incarnation: undefined,
      failure: undefined,
      left: checked.limit,
      after: checked.cursor.after,
      through
    })
    const from = (state: ReadState) => Stream.paginateChunkEffect(state, (state) => readPage(checked, state))
    return checked.backward
      // where to begin must be known; forwards the first page says where to end
      ? Stream.unwrap(Effect.map(store.head, (head) => from(start(Math.min(checked.through, head.offset)))))
      : from(start(checked.through))
  }

  const readQuery = (query: Parameters<Service["read"]>[0]): Stream.Stream<RecordedEvent, ReadError> =>
    Stream.unwrap(Effect.map(Effect.suspend(() => checkQuery(query)), read))

  /** All of it as an array, page by page and without a stream, which would cost as much as a small page. */
  const collect = (filters: CheckedQuery["filters"]): Effect.Effect<ReadonlyArray<RecordedEvent>, ReadError> =>
    Effect.suspend(() => {
      const checked: CheckedQuery = {
        filters,
        cursor: { after: 0, incarnation: undefined },
        through: unlimited,
        backward: false,
        limit: unlimited
      }
      const all: Array<RecordedEvent> = []
      const from = (state: ReadState): Effect.Effect<ReadonlyArray<RecordedEvent>, ReadError> =>
        Effect.flatMap(readPage(checked, state, unlimited), ([events, rest]) => {
          for (const event of events) all.push(event)
          return Option.isNone(rest) ? Effect.succeed(all) : from(rest.value)
        })
      return from({ incarnation: undefined, failure: undefined, left: unlimited, after: 0, through: unlimited })
    })

  const piece = (checked: CheckedQuery, state: ReadState): Effect.Effect<Live.Piece, ReadError> =>
    Effect.map(readPage(checked, state), ([events, next]) => {
      const rest = Option.getOrUndefined(next)
      return {
        events,
        after: rest?.after ?? state.through,
        failure: rest?.failure,
        next: rest && piece(checked, rest)
      }
    })

  const live = yield* Live.make({
    store,
    pollInterval: options.pollInterval ?? "1 second",
    readPage: (filters, { after, incarnation }, through) =>
      piece(
        { filters, cursor: { after, incarnation }, through, backward: false, limit: unlimited },
        { incarnation, failure: undefined, after, through, left: unlimited }
      )
  })

  const follow = (subscription: SubscribeOptions = {}): Stream.Stream<Followed, SubscribeError> =>
    Stream.unwrap(Effect.map(
      Effect.suspend(() => checkSubscription(subscription)),
      ({ cursor, filters }) => live.follow(filters, cursor)
    ))

  const lineage = Effect.zipWith(
    store.head,
    store.lineage,
    ({ incarnation }, parents) => ({ incarnation, parents })
  )

  return {
    ledger: {
      append: (event) => Effect.map(write([event]), (receipts) => receipts[0]!),
      appendAll: (events) => Effect.flatMap(listOf(events), (list) => write(list)),
      appendIf: (condition, events) =>
        Effect.flatMap(
          Effect.suspend(() => checkCondition(condition)),
          (checked) =>
            Effect.flatMap(
              listOf(events),
              (list) => write(list, checked, (offset) => new AppendConditionFailed({ offset }))
            )
        ),
      get: (id) =>
        Effect.flatMap(Effect.suspend(() => checkId(id)), (checked) =>
          Effect.flatMap(
            store.get(checked),
            Option.match({
              onNone: () => Effect.succeedNone,
              onSome: (row) => {
                const event = decode(row)
                return typeof event === "string"
                  ? new CorruptEvent({ offset: offsetOf(row), reason: event })
                  : Effect.succeedSome(event)
              }
            })
          )),
      events: collect([]),
      // checked here, as in a filter a field that is undefined means every run
      eventsForRun: (runId) =>
        Effect.flatMap(
          Effect.suspend(() => checkRunId(runId)),
          (runId) => collect([{ runId }])
        ),
      runs: store.runs,
      latestOffset: Effect.map(store.head, (head) => head.offset),
      incarnation: Effect.map(store.head, (head) => head.incarnation),
      tail: (after) => readQuery({ after }),
      read: readQuery,
      subscribe: (options) =>
        Stream.filterMap(follow(options), (told) => told._tag === "Recorded" ? Option.some(told.event) : Option.none()),
      follow
    },
    admin: {
      reset: Effect.tap(store.reset, () => Effect.sync(live.hint)),
      incarnate: Effect.zipRight(Effect.tap(store.incarnate(), () => Effect.sync(live.hint)), lineage),
      lineage
    }
  }
})

type PageRead = readonly [Chunk.Chunk<RecordedEvent>, Option.Option<ReadState>]

/** What is still to be read: so many events of these offsets. */
interface Unread {
  readonly after: number
  readonly through: number
  readonly left: number
}

/** Where a read stands, between two pages. */
interface ReadState extends Unread {
  /** Of the log that the first page came from; no page may come from another. */
  readonly incarnation: string | undefined
  /** The next page, where it is read already. */
  readonly ahead?: Effect.Effect<Page, StoreError> | undefined
  /** What to fail with, now that the events before it are delivered. */
  readonly failure: CorruptEvent | undefined
}

/**
 * Reads it now; who asks for it waits, and where it failed, or asks again, reads it then. It is handed over, and nothing else
 * holds it: what a fiber or a scope holds that has ended lives until the next full collection where one hangs on another.
 */
const begin = (page: Effect.Effect<Page, StoreError>): Effect.Effect<Page, StoreError> => {
  let isTaken = false
  let answer: Effect.Effect<Page, StoreError> | undefined
  let hand = (found: Effect.Effect<Page, StoreError>): void => void (answer = found)
  Effect.runFork(Effect.map(Effect.exit(page), (exit) => hand(Exit.isSuccess(exit) ? exit : page)))
  return Effect.suspend(() => {
    if (isTaken) return page
    isTaken = true
    return Effect.async((resume) => {
      if (answer === undefined) hand = resume
      else resume(answer)
      answer = undefined
    })
  })
}

/** Whether the suffix may keep its pages: what a transaction reads may never be committed. */
const mayKeep = ({ backward, filters }: CheckedQuery, inTransaction: boolean): boolean =>
  !inTransaction && !backward && filters.length === 0

/** Up to `limit` events; with `dense` that offset must come first, and each next one without a hole. */
const decodeAll = (rows: ReadonlyArray<StoredRow>, limit: number, dense: number | undefined, step: number) => {
  const events: Array<RecordedEvent> = []
  for (const row of rows) {
    if (events.length === limit) break
    const expected = dense === undefined ? offsetOf(row) : dense + step * events.length
    const event = expected === offsetOf(row) ? decode(row) : "the row is missing"
    if (typeof event === "string") return { events, failure: new CorruptEvent({ offset: expected, reason: event }) }
    events.push(event)
  }
  return { events, failure: undefined }
}

const pageRows = 1000
const keptRows = 2000
const unlimited = Number.MAX_SAFE_INTEGER

const neverRefused = (): Effect.Effect<never> => Effect.dieMessage("the store refused a condition that nobody set")

/** What the caller gave may be no iterable, or one that throws. */
const listOf = (events: Iterable<Event>): Effect.Effect<ReadonlyArray<Event>, InvalidEvent> =>
  Effect.suspend(() => {
    const list: Array<Event> = []
    try {
      for (const event of events) list.push(event)
      return Effect.succeed(list)
    } catch {
      const reason = "expected an iterable of events; reading it threw an exception"
      return new InvalidEvent({ index: list.length, path: "events", reason })
    }
  })

const encodeAll = (events: ReadonlyArray<Event>, maxPayloadBytes: number): ReadonlyArray<Row> | InvalidEvent => {
  const rows: Array<Row> = []
  for (let index = 0; index < events.length; index++) {
    const row = encode(events[index]!, maxPayloadBytes)
    if (row instanceof FieldIssue) return new InvalidEvent({ index, path: row.path, reason: row.reason })
    rows.push(row)
  }
  return rows
}

interface Batch {
  readonly rows: NonEmptyReadonlyArray<Row>
  readonly places: ReadonlyMap<string, number>
}

// an id that stands twice in a batch is a duplicate of its first occurrence; stores see distinct ids
const distinct = (rows: ReadonlyArray<Row>): Batch => {
  if (rows.length === 1) return { rows: rows as unknown as NonEmptyReadonlyArray<Row>, places: none }
  const places = new Map<string, number>()
  const kept: Array<Row> = []
  for (const row of rows) {
    if (!places.has(row.id)) places.set(row.id, kept.push(row) - 1)
  }
  return { rows: kept as unknown as NonEmptyReadonlyArray<Row>, places }
}

const none: ReadonlyMap<string, number> = new Map()

/** The outcomes of all rows, from those of the distinct ones. */
const spread = (
  store: Store,
  all: ReadonlyArray<Row>,
  { places, rows }: Batch,
  outcomes: ReadonlyArray<Outcome>
): Effect.Effect<ReadonlyArray<Outcome>, StoreError> =>
  Effect.forEach(all, (row) => {
    const place = places.get(row.id) as number
    const first = rows[place] as Row
    const { offset, status } = outcomes[place] as Outcome
    if (first === row) return Effect.succeed({ offset, status })
    const same = status === "divergent"
      // what is recorded is not what came first in the batch, and may be what came later
      ? Effect.map(store.get(row.id), Option.exists((stored) => isRecordOf(stored, row)))
      : Effect.succeed(sameContent(first, row))
    return Effect.map(same, (same) => ({ offset, status: same ? "identical" as const : "divergent" as const }))
  })

const report = (
  rows: ReadonlyArray<Row>,
  outcomes: ReadonlyArray<Outcome>
): Effect.Effect<ReadonlyArray<Receipt>> => {
  let appended = 0
  const divergent: Array<Receipt> = []
  const receipts = outcomes.map(({ offset, status }, index) => {
    const { id } = rows[index]!
    if (status === "appended") {
      appended++
      return Receipt.Appended({ id, offset })
    }
    const receipt = Receipt.Duplicate({ id, offset, identical: status === "identical" })
    if (!receipt.identical) divergent.push(receipt)
    return receipt
  })
  if (appended > 0) LedgerMetrics.appended.unsafeUpdate(appended, [])
  if (appended < rows.length) LedgerMetrics.duplicates.unsafeUpdate(rows.length - appended, [])
  if (divergent.length === 0) return Effect.succeed(receipts)
  const { id, offset } = divergent[0]!
  return Effect.as(
    Effect.zipRight(
      Metric.incrementBy(LedgerMetrics.divergent, divergent.length),
      Effect.logWarning(
        `${divergent.length} appended event(s) have the id of a recorded event and other content; the first write stands`
      ).pipe(Effect.annotateLogs({ package: "effect-ledger", module: "Ledger", id, offset }))
    ),
    receipts
  )
}

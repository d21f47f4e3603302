/**
 * Following the log. One tailer for each ledger notices new events and reads each of them once; it starts with the first
 * subscriber and ends with the last. A subscriber takes rows from what the tailer has at hand, and reads pages for
 * itself where that does not reach back far enough. It goes at its own pace: nothing is buffered for it.
 *
 * A hint only says when to look. What is delivered follows from the log and the subscriber's own offset.
 */
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as RcRef from "effect/RcRef"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { RecordedEvent } from "../Event.js"
import { Followed } from "../Ledger.js"
import {
  CorruptEvent,
  LedgerReplaced,
  type StoreError,
  type StoreUnavailable,
  type SubscribeError
} from "../LedgerError.js"
import type { LedgerStore, StoredRow, StoreFilter } from "../LedgerStore.js"
import { matches } from "./filter.js"
import { patiently } from "./patiently.js"
import type { Cursor } from "./query.js"
import { decode, digestOf, offsetOf } from "./row.js"

export interface Options {
  readonly store: Context.Tag.Service<LedgerStore>
  /** Some of the events after an offset, up to another, and where that leaves the reader. */
  readonly readPage: (
    filters: ReadonlyArray<StoreFilter>,
    from: Position,
    through: number
  ) => Effect.Effect<Piece, SubscribeError | StoreUnavailable>
  /** How long it takes at most to notice what no hint told of. */
  readonly pollInterval: Duration.DurationInput
}

/** Where a reader stands. */
export interface Position {
  readonly after: number
  readonly incarnation: string
}

export interface Piece {
  readonly events: Chunk.Chunk<RecordedEvent>
  readonly after: number
  /** What to fail with once the events are delivered. */
  readonly failure: CorruptEvent | undefined
  /** What comes after them, as far as it was to be read. */
  readonly next: Effect.Effect<Piece, SubscribeError | StoreUnavailable> | undefined
}

export interface Live {
  /** Something may have been appended. */
  readonly hint: () => void
  readonly follow: (filters: ReadonlyArray<StoreFilter>, cursor: Cursor) => Stream.Stream<Followed, SubscribeError>
}

/** What the tailer knows. */
interface Tail {
  /** Every event up to here is in the log; -1 before the first look. */
  head: number
  incarnation: string
  /** Of the event at `head`, where it is known: a log that was restored, and has grown again, has another one there. */
  digest: string | null | undefined
  /** Grows when the log turns out to be another one. */
  generation: number
  /** The last of them, in order and without a hole. */
  rows: Array<StoredRow>
  failure: SubscribeError | undefined
  readonly waiting: Set<() => void>
}

export const make = Effect.fnUntraced(function*(
  { pollInterval, readPage, store }: Options
): Effect.fn.Return<Live, never, Scope.Scope> {
  let hinted = false
  let wake: (() => void) | undefined
  const hint = (): void => {
    hinted = true
    wake?.()
  }
  const hintOrPoll = Effect.raceFirst(
    Effect.async<void>((resume) => {
      if (hinted) return resume(Effect.void)
      wake = () => resume(Effect.void)
    }),
    Effect.sleep(pollInterval)
  )

  const look = (tail: Tail): Effect.Effect<void, StoreError> =>
    Effect.flatMap(
      // from where it stands when it is tried, which may be further than where the first try began
      Effect.suspend(() =>
        store.page({
          filters: [],
          after: tail.head,
          through: Number.MAX_SAFE_INTEGER,
          backward: false,
          limit: pageRows
        })
      ),
      ({ digest, head, incarnation, next, rows }) => {
        const replaced = incarnation !== tail.incarnation || head < tail.head ||
          (tail.digest !== undefined && digest !== tail.digest)
        if (replaced) tail.generation++
        const reached = replaced ? head : next ?? head
        // with a hole in them they are of no use: whoever reads the page itself is told of it
        const whole = !replaced && rows.length === reached - tail.head
        tail.rows = whole ? lastOf(tail.rows.concat(rows)) : []
        tail.incarnation = incarnation
        const news = replaced || reached > tail.head
        if (!news) tail.digest = digest
        else {
          const last = rows[rows.length - 1]
          tail.digest = whole && last !== undefined && typeof decode(last) !== "string" ? digestOf(last) : undefined
        }
        tail.head = reached
        if (news) wakeAll(tail)
        return next === null || replaced ? Effect.void : look(tail)
      }
    )

  const watch = (tail: Tail): Effect.Effect<void, SubscribeError> =>
    Effect.flatMap(patiently(store.head), ({ digest, incarnation, offset }) => {
      tail.incarnation = incarnation
      tail.digest = digest
      tail.head = offset
      wakeAll(tail)
      return Effect.forever(Effect.zipRight(
        Effect.suspend(() => {
          hinted = false
          return patiently(look(tail))
        }),
        hintOrPoll
      ))
    })

  const tailer = yield* RcRef.make({
    acquire: Effect.gen(function*() {
      const tail: Tail = {
        head: -1,
        incarnation: "",
        digest: undefined,
        generation: 0,
        rows: [],
        failure: undefined,
        waiting: new Set()
      }
      yield* watch(tail).pipe(
        Effect.catchAll((error) =>
          Effect.sync(() => {
            tail.failure = error
            wakeAll(tail)
          })
        ),
        Effect.raceFirst(Stream.runForEach(store.changes, () => Effect.sync(hint)).pipe(Effect.zipRight(Effect.never))),
        Effect.annotateLogs({ package: "effect-ledger", module: "Ledger", fiber: "tailer" }),
        ownContext,
        Effect.forkScoped
      )
      return tail
    })
  })

  const follow: Live["follow"] = (filters, cursor) => {
    const step = (tail: Tail, state: State): Effect.Effect<readonly [Chunk.Chunk<Followed>, State], SubscribeError> =>
      Effect.suspend((): Effect.Effect<readonly [Chunk.Chunk<Followed>, State], SubscribeError> => {
        if (state.failure !== undefined) return Effect.fail(state.failure)
        if (tail.failure !== undefined) return Effect.fail(tail.failure)
        const again = Effect.flatMap(news(tail, state), () => step(tail, state))
        if (tail.head < 0) return again
        const incarnation = state.incarnation ?? tail.incarnation
        const { generation } = tail
        if (incarnation !== tail.incarnation || (state.generation ?? generation) !== generation) {
          return Effect.fail(new LedgerReplaced({ expected: incarnation, found: tail.incarnation, head: tail.head }))
        }
        if (state.after > tail.head) {
          // the tailer may not have looked since that offset was given out
          return Effect.flatMap(
            patiently(store.head),
            (head) => {
              if (state.after > head.offset) {
                return Effect.fail(
                  new LedgerReplaced({
                    expected: state.incarnation ?? null,
                    found: head.incarnation,
                    head: head.offset
                  })
                )
              }
              hint()
              return again
            }
          )
        }
        if (state.after === tail.head) {
          if (state.told) return again
          return Effect.succeed([Chunk.of(Followed.CaughtUp({ head: tail.head })), {
            ...state,
            incarnation,
            generation,
            told: true
          }])
        }
        const first = tail.rows[0]
        if (first !== undefined && offsetOf(first) <= state.after + 1) {
          return Effect.succeed(fromRows(tail, filters, { ...state, incarnation, generation, next: undefined }))
        }
        const lag = tail.head - state.after
        const head = tail.head
        return Effect.map(
          patiently(state.next ?? readPage(filters, { after: state.after, incarnation }, head)),
          ({ after, events, failure, next }) => {
            const elements = Chunk.map(events, (event): Followed => Followed.Recorded({ event }))
            const caughtUp = failure === undefined && after === head && after === tail.head
            return [
              Chunk.appendAll(
                lag > pageRows ? Chunk.prepend(elements, Followed.Behind({ lag })) : elements,
                caughtUp ? Chunk.of(Followed.CaughtUp({ head })) : Chunk.empty()
              ),
              { after, incarnation, generation, failure, next, told: caughtUp }
            ] as const
          }
        )
      })

    const start: State = {
      after: cursor.after,
      incarnation: cursor.incarnation,
      generation: undefined,
      failure: undefined,
      next: undefined,
      told: false
    }
    return Stream.unwrapScoped(
      Effect.map(
        RcRef.get(tailer),
        (tail) => Stream.unfoldChunkEffect(start, (state) => Effect.asSome(ownContext(step(tail, state))))
      )
    )
  }

  return { hint, follow }
})

/** Where a subscriber stands. */
interface State {
  readonly after: number
  readonly incarnation: string | undefined
  readonly generation: number | undefined
  readonly failure: CorruptEvent | undefined
  readonly next: Piece["next"]
  /** Whether it was told that this is the head. */
  readonly told: boolean
}

const pageRows = 1000
/** How many of the last rows the tailer keeps at hand, and of those how many a subscriber takes at once. */
const keptRows = 2000
/** Their payloads, in UTF-16 units. */
const keptLength = 2 ** 23
const takenRows = 250

const lastOf = (rows: ReadonlyArray<StoredRow>): Array<StoredRow> => {
  let from = rows.length
  for (let length = 0; from > 0 && from > rows.length - keptRows; from--) {
    length += String((rows[from - 1] as StoredRow)[6]).length
    if (length > keptLength) break
  }
  return rows.slice(from)
}

/** Nothing of the transaction or the span that the caller is in: what others commit is looked for, for as long as it takes. */
const ownContext = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.mapInputContext(effect, (_: Context.Context<never>) => Context.empty())

const wakeAll = (tail: Tail): void => {
  for (const resume of Array.from(tail.waiting)) resume()
}

const news = (tail: Tail, state: State): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    const replaced = state.incarnation !== undefined &&
      (state.incarnation !== tail.incarnation || (state.generation ?? tail.generation) !== tail.generation)
    if (tail.failure !== undefined || (tail.head >= 0 && (replaced || tail.head !== state.after))) {
      return resume(Effect.void)
    }
    const listener = () => {
      tail.waiting.delete(listener)
      resume(Effect.void)
    }
    tail.waiting.add(listener)
    return Effect.sync(() => tail.waiting.delete(listener))
  })

const fromRows = (
  tail: Tail,
  filters: ReadonlyArray<StoreFilter>,
  state: State
): readonly [Chunk.Chunk<Followed>, State] => {
  const from = state.after + 1 - offsetOf(tail.rows[0] as StoredRow)
  const elements: Array<Followed> = []
  let after = state.after
  for (const row of tail.rows.slice(from, from + takenRows)) {
    const event = decode(row)
    if (typeof event === "string") {
      const failure = new CorruptEvent({ offset: after + 1, reason: event })
      return [Chunk.unsafeFromArray(elements), { ...state, after, failure }]
    }
    after++
    if (filters.length === 0 || filters.some((filter) => matches(filter, event))) {
      elements.push(Followed.Recorded({ event }))
    }
  }
  const told = after === tail.head
  if (told) elements.push(Followed.CaughtUp({ head: after }))
  return [Chunk.unsafeFromArray(elements), { ...state, after, told }]
}

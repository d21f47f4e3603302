/**
 * Many callers, one write: appends that wait while a write is under way are written together by the next one. There is
 * no artificial delay, so a lone caller waits for nobody.
 *
 * A caller that is interrupted while it waits in the queue is never written; one whose write is under way is settled
 * first. A write that fails for a reason of its content is repeated for each caller alone.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { type StoreError, StoreFailure, StoreUnavailable } from "../LedgerError.js"
import * as LedgerMetrics from "../LedgerMetrics.js"
import type { AppendGroup, GroupResult } from "../LedgerStore.js"

export interface Options {
  readonly write: (groups: NonEmptyReadonlyArray<AppendGroup>) => Effect.Effect<ReadonlyArray<GroupResult>, StoreError>
  /** A write takes callers until it has this many events, or this many UTF-16 units of payload. */
  readonly maxEvents: number
  readonly maxLength: number
  /** How many events may wait before new callers are held back. */
  readonly capacity: number
  readonly timeout: Duration.DurationInput
}

export interface GroupCommit {
  /** Waits until the queue has room; the caller encodes its events afterwards, so that waiting ones cost little. */
  readonly room: Effect.Effect<void>
  readonly submit: (group: AppendGroup) => Effect.Effect<GroupResult, StoreError>
}

interface Entry {
  readonly group: AppendGroup
  readonly link: Tracer.AnySpan | undefined
  settle: ((exit: Exit.Exit<GroupResult, StoreError>) => void) | undefined
  state: "queued" | "writing" | "settled"
}

export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<GroupCommit, never, Scope.Scope> {
  let queue: Array<Entry> = []
  let queuedEvents = 0
  let held: Array<() => void> = []
  let wake: (() => void) | undefined
  let closed = false

  const take = (): NonEmptyReadonlyArray<Entry> | undefined => {
    let events = 0
    let length = 0
    let index = 0
    const batch: Array<Entry> = []
    for (; index < queue.length; index++) {
      const entry = queue[index]!
      if (entry.state !== "queued") continue
      const weight = payloadLength(entry.group)
      if (
        batch.length > 0 &&
        (events + entry.group.rows.length > options.maxEvents || length + weight > options.maxLength)
      ) {
        break
      }
      events += entry.group.rows.length
      length += weight
      entry.state = "writing"
      batch.push(entry)
    }
    queue = queue.slice(index)
    queuedEvents -= events
    if (queuedEvents < options.capacity) {
      const waiting = held
      held = []
      for (const resume of waiting) resume()
    }
    return batch.length === 0 ? undefined : batch as unknown as NonEmptyReadonlyArray<Entry>
  }

  const write = (entries: NonEmptyReadonlyArray<Entry>): Effect.Effect<ReadonlyArray<GroupResult>, StoreError> =>
    options.write(entries.map((entry) => entry.group) as unknown as NonEmptyReadonlyArray<AppendGroup>).pipe(
      Effect.catchAllDefect((cause) => new StoreFailure({ method: "append", cause })),
      Effect.uninterruptible,
      // the timeout leaves the write behind: it must not wait for what it gave up on
      Effect.disconnect,
      Effect.timeoutFail({ duration: options.timeout, onTimeout: unknownOutcome }),
      Effect.tap(() => Metric.increment(LedgerMetrics.commits)),
      Effect.withSpan("Ledger.commit", {
        root: true,
        captureStackTrace: false,
        attributes: { "ledger.callers": entries.length },
        links: entries.flatMap((entry) =>
          entry.link === undefined ? [] : [{ _tag: "SpanLink", span: entry.link, attributes: {} } as const]
        )
      })
    )

  const commit = (entries: NonEmptyReadonlyArray<Entry>): Effect.Effect<void> =>
    Effect.flatMap(Effect.exit(write(entries)), (exit) => {
      if (Exit.isFailure(exit) && entries.length > 1 && isOwnFault(exit.cause)) {
        return Effect.forEach(entries, (entry) => commit([entry]), { discard: true })
      }
      entries.forEach((entry, index) => settle(entry, Exit.map(exit, (results) => results[index]!)))
      return Effect.void
    })

  const idle = Effect.async<void>((resume) => {
    if (queue.length > 0 || closed) return resume(Effect.void)
    wake = () => resume(Effect.void)
  })

  const loop: Effect.Effect<void> = Effect.suspend(() => {
    const entries = take()
    if (entries !== undefined) return Effect.flatMap(commit(entries), () => loop)
    return closed ? Effect.void : Effect.flatMap(idle, () => loop)
  })

  // the worker belongs to no caller: whatever transaction or span its starter is in stays outside
  const worker = yield* loop.pipe(
    Effect.annotateLogs({ package: "effect-ledger", module: "Ledger", fiber: "commit" }),
    Effect.mapInputContext((_: Context.Context<never>) => Context.empty()),
    Effect.interruptible,
    Effect.forkDaemon
  )

  const signal = () => {
    const resume = wake
    wake = undefined
    resume?.()
  }

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      signal()
    }).pipe(
      Effect.zipRight(Fiber.join(worker)),
      Effect.interruptible,
      Effect.timeoutOption(options.timeout),
      Effect.zipRight(Fiber.interruptFork(worker)),
      Effect.zipRight(Effect.sync(() => {
        for (const entry of queue) settle(entry, Exit.fail(closedError()))
        for (const resume of held) resume()
      }))
    )
  )

  return {
    room: Effect.suspend(() =>
      queuedEvents < options.capacity || closed
        ? Effect.void
        : Effect.async<void>((resume) => {
          held.push(() => resume(Effect.void))
        })
    ),
    submit: (group) =>
      Effect.withFiberRuntime((fiber) => {
        if (closed) return closedError()
        const span = fiber.currentContext.unsafeMap.get(Tracer.ParentSpan.key) as Tracer.AnySpan | undefined
        const entry: Entry = { group, link: span, settle: undefined, state: "queued" }
        return Effect.async<GroupResult, StoreError>((resume) => {
          entry.settle = resume
          queue.push(entry)
          queuedEvents += group.rows.length
          signal()
          return Effect.suspend(() => {
            if (entry.state === "queued") {
              entry.state = "settled"
              queuedEvents -= group.rows.length
              return Effect.void
            }
            return entry.state === "settled" ? Effect.void : Effect.async<void>((done) => {
              entry.settle = () => done(Effect.void)
            })
          })
        })
      })
  }
})

const settle = (entry: Entry, exit: Exit.Exit<GroupResult, StoreError>): void => {
  if (entry.state === "settled") return
  entry.state = "settled"
  entry.settle?.(exit)
}

const payloadLength = (group: AppendGroup): number => {
  let length = 0
  for (const row of group.rows) length += row.payload.length
  return length
}

// busy or unreachable is true for everybody; what the content caused must not reach the others
const isOwnFault = (cause: Cause.Cause<StoreError>): boolean => {
  const failure = Cause.failureOption(cause)
  return failure._tag === "Some" && failure.value._tag !== "StoreUnavailable"
}

const unknownOutcome = () =>
  new StoreUnavailable({ reason: "the store did not answer in time, so it is unknown whether the events were written" })

const closedError = () => new StoreUnavailable({ reason: "the ledger is closed" })

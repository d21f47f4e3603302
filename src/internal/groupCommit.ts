/**
 * Many callers, one write: appends that come while a write is under way are written together by the next one. There is
 * no artificial delay, so a lone caller waits for nobody: where the last write was its own alone, the next one begins in
 * its own step.
 *
 * A caller that is interrupted while it waits in the queue is never written; one whose write is under way is settled
 * first. A write that fails for a reason of its content is repeated for each caller alone. A store that works on a thread
 * of its own is told who waits before the write begins, and one that answers over a network is given half of many callers
 * at a time, so that it works beside them.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Runtime from "effect/Runtime"
import { defaultScheduler } from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { type StoreError, StoreFailure, StoreUnavailable } from "../LedgerError.js"
import * as LedgerMetrics from "../LedgerMetrics.js"
import type { Append, AppendGroup, GroupResult } from "../LedgerStore.js"

export interface Options {
  readonly write: Append
  /** A write takes callers until it has this many events, or this many UTF-16 units of payload. */
  readonly maxEvents: number
  readonly maxLength: number
  /** How many events may wait before new callers are held back. */
  readonly capacity: number
  readonly timeout: Duration.DurationInput
}

export interface GroupCommit {
  readonly hasRoom: () => boolean
  /** Waits until the queue has room; the caller encodes its events afterwards, so that waiting ones cost little. */
  readonly room: Effect.Effect<void>
  readonly submit: (group: AppendGroup) => Effect.Effect<GroupResult, StoreError>
}

interface Entry {
  readonly group: AppendGroup
  readonly caller: FiberId.Runtime
  readonly link: Tracer.AnySpan | undefined
  settle: ((exit: Exit.Exit<GroupResult, StoreError>) => void) | undefined
  state: "queued" | "writing" | "settled"
}

type Entries = NonEmptyReadonlyArray<Entry>
type Written = Exit.Exit<ReadonlyArray<GroupResult>, StoreError>

export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<GroupCommit, never, Scope.Scope> {
  // writes belong to no caller: whatever transaction or span their starter is in stays outside
  const run = Runtime.runFork(Runtime.updateContext(yield* Effect.runtime(), () => Context.empty()))
  const clock = yield* Effect.clock
  const patience = Duration.toMillis(options.timeout)
  let queue: Array<Entry> = []
  let queuedEvents = 0
  let held: Array<() => void> = []
  let scheduled = false
  let writing = false
  let closed = false
  /** Who was written alone by the last write, and how many writes it has begun in its own step since the last turn. */
  let lone: FiberId.Runtime | undefined
  let steps = 0
  /**
   * Of a store that answers later, in milliseconds: its shortest write, and what each of many callers took until all that
   * were ready had come. Where all of that takes longer than a write does at least, half of the callers are written at a
   * time, so that the others go on meanwhile.
   */
  let shortest = Number.POSITIVE_INFINITY
  let perCaller = 0
  let scheduledAt = 0
  /** How many of the queue's first the store was told of. */
  let told = 0
  let whenIdle: (() => void) | undefined
  let underWay: { readonly since: bigint; readonly abandon: () => void } | undefined
  let watchdog: Fiber.RuntimeFiber<void> | undefined

  const take = (most = queue.length): ReadonlyArray<Entry> => {
    const batch: Array<Entry> = []
    let events = 0
    let length = 0
    let index = 0
    for (const entry of queue) {
      if (entry.state === "queued") {
        events += entry.group.rows.length
        length += payloadLength(entry.group)
        if (batch.length === most || (batch.length > 0 && (events > options.maxEvents || length > options.maxLength))) {
          break
        }
        entry.state = "writing"
        queuedEvents -= entry.group.rows.length
        batch.push(entry)
      }
      index++
    }
    queue = queue.slice(index)
    told = 0
    if (queuedEvents < options.capacity && held.length > 0) {
      const waiting = held
      held = []
      for (const resume of waiting) resume()
    }
    return batch
  }

  const begin = (entries: Entries, done: (exit: Written) => void): void => {
    const groups = mapNonEmpty(entries, (entry) => entry.group)
    const links = entries.flatMap((entry) =>
      entry.link === undefined ? [] : [{ _tag: "SpanLink", span: entry.link, attributes: {} } as const]
    )
    const first = (exit: Written): void => {
      if (underWay !== own) return
      underWay = undefined
      done(exit)
    }
    const own = { since: 0n, abandon: () => first(Exit.fail(unknownOutcome())) }
    underWay = own
    const fork = (): void => {
      // suspended: a store that throws instead of answering must not stop the queue
      const write = Effect.suspend(() => options.write(groups))
      const fiber = run(Effect.uninterruptible(
        // a span costs as much as an append does in memory: where no caller is traced there is none
        links.length === 0 ? write : Effect.withSpan(write, "Ledger.commit", {
          root: true,
          captureStackTrace: false,
          attributes: { "ledger.callers": entries.length },
          links
        })
      ))
      const finished = fiber.unsafePoll()
      if (finished === null) fiber.addObserver(first)
      else first(finished)
    }
    if (options.write.direct === undefined || links.length > 0) fork()
    else {
      try {
        options.write.direct(groups, (exit) => {
          if (exit !== undefined) first(exit)
          else if (underWay === own) fork()
        })
      } catch (error) {
        first(Exit.die(error))
      }
    }
    if (underWay !== own) return
    own.since = clock.unsafeCurrentTimeNanos()
    if (watchdog === undefined) watch(Math.min(patience, lookMillis))
  }

  /**
   * A write that takes too long is left behind, as nobody can know whether it will still happen. One timer looks after
   * all writes, as one for each would cost a tenth of an append; it stays while there are writes, and not for long
   * afterwards, as it keeps a program from ending.
   */
  const watch = (millis: number): void => {
    watchdog = run(Effect.sleep(millis))
    watchdog.addObserver((exit) => {
      watchdog = undefined
      if (underWay === undefined || !Exit.isSuccess(exit)) return
      const left = patience - Number(clock.unsafeCurrentTimeNanos() - underWay.since) / 1e6
      if (left > 0) watch(Math.min(left, lookMillis))
      else underWay.abandon()
    })
  }

  /** Calls `done` with what answers the callers that are not answered yet. */
  const commit = (entries: Entries, done: (answer: () => void) => void): void =>
    begin(entries, (exit) => {
      LedgerMetrics.commits.unsafeUpdate(1, [])
      const typed = Exit.mapErrorCause(exit, defectAsFailure)
      if (entries.length > 1 && Exit.isFailure(typed) && isOwnFault(typed.cause)) return commitAlone(entries, 0, done)
      done(() =>
        entries.forEach((entry, index) => settle(entry, Exit.map(typed, (results) => results[index] as GroupResult)))
      )
    })

  const commitAlone = (entries: Entries, index: number, done: (answer: () => void) => void): void => {
    const entry = entries[index]
    if (entry === undefined) return done(() => {})
    commit([entry], (answer) => {
      answer()
      // a task for each, or thousands of writes that fail at once would fill the stack
      defaultScheduler.scheduleTask(() => commitAlone(entries, index + 1, done), 0)
    })
  }

  const start = (entries: Entries): void => {
    writing = true
    let begun: number | undefined
    commit(entries, (answer) => {
      writing = false
      if (begun !== undefined) shortest = Math.min(shortest, performance.now() - begun)
      if (queue.length > 0 && isWorthHalving(entries.length + queue.length)) {
        // first, so that this write is under way while those who are answered go on
        next(take())
        answer()
      } else {
        // those who are answered are written together with those who wait
        answer()
        idle()
      }
    })
    if (underWay !== undefined) begun = performance.now()
  }

  // a store that begins ahead works beside the callers already
  const isWorthHalving = (callers: number): boolean =>
    callers >= 2 * leastHalf && callers * perCaller > shortest && options.write.ahead === undefined

  const next = (entries: ReadonlyArray<Entry>): void => {
    if (!isNonEmpty(entries)) return idle()
    lone = entries.length === 1 ? entries[0].caller : undefined
    start(entries)
  }

  const work = (): void => {
    scheduled = false
    steps = 0
    const callers = queue.length
    if (callers >= 2 * leastHalf) perCaller = (performance.now() - scheduledAt) / callers
    next(take(isWorthHalving(callers) ? Math.ceil(callers / 2) : callers))
  }

  // one turn of the scheduler later, so that every fiber that is ready now is written together
  const schedule = (): void => {
    if (scheduled || writing) return
    scheduled = true
    scheduledAt = performance.now()
    defaultScheduler.scheduleTask(work, 0)
  }

  const idle = (): void => {
    if (queue.length > 0) {
      schedule()
      tell()
    } else whenIdle?.()
  }

  const tell = (): void => {
    if (options.write.ahead === undefined || writing || queue.length - told < leastAhead) return
    // what does not fit into one write would be begun for nothing
    if (queuedEvents > options.maxEvents) return
    const entries = queue.slice(told)
    told = queue.length
    // a traced caller's write is another one
    if (entries.every(({ link }) => link === undefined)) options.write.ahead(entries.map(({ group }) => group))
  }

  yield* Effect.addFinalizer(() =>
    Effect.async<void>((resume) => {
      closed = true
      for (const proceed of held) proceed()
      whenIdle = () => resume(Effect.void)
      if (!writing && !scheduled) idle()
    }).pipe(
      Effect.interruptible,
      Effect.timeoutOption(options.timeout),
      Effect.zipRight(Effect.sync(() => {
        for (const entry of queue) settle(entry, Exit.fail(closedError()))
        if (underWay === undefined) watchdog?.unsafeInterruptAsFork(FiberId.none)
      }))
    )
  )

  const hasRoom = (): boolean => queuedEvents < options.capacity || closed

  // asked again when woken: those who were woken before may have taken the place
  const room: Effect.Effect<void> = Effect.suspend(() =>
    hasRoom()
      ? Effect.void
      : Effect.zipRight(Effect.async<void>((resume) => void held.push(() => resume(Effect.void))), room)
  )

  const enqueue = (entry: Entry): Effect.Effect<GroupResult, StoreError> =>
    Effect.async((resume) => {
      entry.settle = resume
      queue.push(entry)
      queuedEvents += entry.group.rows.length
      schedule()
      tell()
    })

  /** Who is interrupted leaves the queue; what is under way is settled first. */
  const leave = (entry: Entry): Effect.Effect<void> => {
    if (entry.state === "writing") {
      return Effect.async((proceed) => {
        entry.settle = () => proceed(Effect.void)
      })
    }
    if (entry.state === "queued") queuedEvents -= entry.group.rows.length
    entry.state = "settled"
    return Effect.void
  }

  return {
    hasRoom,
    room,
    submit: (group) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.withFiberRuntime((fiber) => {
          if (closed) return closedError()
          const caller = fiber.id()
          const link = fiber.currentContext.unsafeMap.get(Tracer.ParentSpan.key) as Tracer.AnySpan | undefined
          const entry: Entry = { group, caller, link, settle: undefined, state: "queued" }
          if (caller !== lone || writing || scheduled || steps >= maxSteps) {
            return Effect.catchAllCause(
              restore(enqueue(entry)),
              (cause) => Effect.zipRight(leave(entry), Effect.failCause(cause))
            )
          }
          steps++
          entry.state = "writing"
          let answer: Exit.Exit<GroupResult, StoreError> | undefined
          entry.settle = (exit) => void (answer = exit)
          start([entry])
          // what is under way is settled first, whoever interrupts
          return answer ?? Effect.async((resume) => void (entry.settle = resume))
        })
      )
  }
})

const lookMillis = 1000

/** Fewer callers are not worth a write of their own. */
const leastHalf = 8

/** So many are worth telling the store of them. */
const leastAhead = 16

/** After so many writes in its own step a lone caller takes a turn of the scheduler: others may be ready by then. */
const maxSteps = 16

const settle = (entry: Entry, exit: Exit.Exit<GroupResult, StoreError>): void => {
  if (entry.state === "settled") return
  entry.state = "settled"
  entry.settle?.(exit)
}

const isNonEmpty = (entries: ReadonlyArray<Entry>): entries is Entries => entries.length > 0

const mapNonEmpty = <A, B>([head, ...rest]: NonEmptyReadonlyArray<A>, f: (a: A) => B): NonEmptyReadonlyArray<B> => [
  f(head),
  ...rest.map(f)
]

const payloadLength = (group: AppendGroup): number => {
  let length = 0
  for (const row of group.rows) length += row.payload.length
  return length
}

const defectAsFailure = (cause: Cause.Cause<StoreError>): Cause.Cause<StoreError> =>
  Cause.isFailure(cause) ? cause : Cause.fail(new StoreFailure({ method: "append", cause: Cause.squash(cause) }))

// busy or unreachable is true for everybody; what the content caused must not reach the others
const isOwnFault = (cause: Cause.Cause<StoreError>): boolean =>
  Cause.failures(cause).pipe((failures) => Array.from(failures).some((failure) => failure._tag !== "StoreUnavailable"))

const unknownOutcome = () =>
  new StoreUnavailable({ reason: "the store did not answer in time, so it is unknown whether the events were written" })

const closedError = () => new StoreUnavailable({ reason: "the ledger is closed" })

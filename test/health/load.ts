/**
 * A process that does everything a program does with a ledger, a little of it all the time, until it is told to `close`; to
 * be run with `--expose-gc`. Prints JSON, a line each: what it is at the start, `ready`, a `Sample` each time it is told to
 * `sample`, and the `End`, when the ledger is closed.
 */
import { Deferred, Effect, Redacted, Schedule, Schema, Stream } from "effect"
import { randomUUID } from "node:crypto"
import * as Fs from "node:fs"
import { Consumer, Event, Ledger, LedgerConfig, Projection } from "../../src/index.js"
import { configured } from "../chaos/process.js"
import { logToStderr } from "../support/following.js"
import * as Times from "./times.js"

export interface Config {
  readonly url: string
}

/** The state of the process, and how long each kind of call took since the last sample, in milliseconds. */
export interface Sample extends State {
  readonly events: number
  readonly took: Readonly<Record<string, Times.Took>>
}

export interface State {
  /** Bytes on the heap that are in use after a collection. */
  readonly heap: number
  readonly rss: number
  /** Open file descriptors. */
  readonly handles: number
}

export interface End extends State {
  readonly failures: ReadonlyArray<string>
}

const closing = Effect.runSync(Deferred.make<void>())
const times = Times.make()
const failures: Array<string> = []
let events = 0

const print = (line: unknown): void => void process.stdout.write(`${JSON.stringify(line)}\n`)

const state = (): State => {
  globalThis.gc?.()
  globalThis.gc?.()
  const { heapUsed, rss } = process.memoryUsage()
  return { heap: heapUsed, rss, handles: Fs.readdirSync("/dev/fd").length }
}

const config = await configured<Config>((command) => {
  if (command === "close") return Deferred.unsafeDone(closing, Effect.void)
  const sample: Sample = {
    ...state(),
    events,
    took: times.take()
  }
  print(sample)
})

const failed = (what: string, error: { readonly _tag: string; readonly message: string }): void => {
  // what fails all the time is not kept all the time
  if (failures.push(`${what}: ${error._tag}: ${error.message}`) > 20) failures.pop()
}

/** Again and again, with a pause between. */
const keepOn = <A, E extends { readonly _tag: string; readonly message: string }, R>(
  what: string,
  pause: number,
  call: Effect.Effect<A, E, R>
): Effect.Effect<never, never, R> =>
  Effect.suspend(() => {
    const begun = performance.now()
    return Effect.tap(call, () => Effect.sync(() => times.note(what, performance.now() - begun)))
  }).pipe(
    Effect.timeoutFail({
      duration: "10 seconds",
      onTimeout: () => ({ _tag: "Timeout", message: "no answer within 10 seconds" })
    }),
    Effect.catchAll((error) => Effect.sync(() => failed(what, error))),
    Effect.zipRight(Effect.sleep(pause)),
    Effect.forever
  )

/** Fails when it is not so. */
const must = (isSo: boolean, message: string) => isSo ? Effect.void : Effect.fail({ _tag: "Wrong", message })

/** How late those who follow are. */
const followed = (what: string, event: Event.RecordedEvent): void => {
  reached.set(what, event.offset)
  times.note(what, performance.now() - Number(event.payload["at"]))
}

const reached = new Map<string, number>()

const make = Effect.suspend(() =>
  Event.create({
    // a hundred to a run
    runId: `run-${Math.floor(events++ / 100)}`,
    id: randomUUID(),
    turn: events % 100,
    kind: events % 3 === 0 ? "agent.spoke" : "tool.called",
    actor: `actor-${events % 7}`,
    payload: { at: performance.now(), text: "so it goes ".repeat(1 + events % 40) }
  })
)

const some = (below: number): number => Math.floor(Math.random() * below)

const counts = Projection.make({
  name: "counts",
  version: 1,
  initial: 0,
  apply: (count: number) => count + 1,
  schema: Schema.Number
})

const program = Effect.gen(function*() {
  const projection = yield* Projection.openPersisted(counts)
  const sample = yield* make
  yield* Ledger.append(sample)
  print("ready")

  const follow = <E extends { readonly _tag: string; readonly message: string }, R>(
    what: string,
    following: Effect.Effect<unknown, E, R>
  ) => Effect.forkScoped(Effect.catchAll(following, (error) => Effect.sync(() => failed(what, error))))
  for (const what of ["subscriber 1", "subscriber 2"]) {
    yield* follow(what, Stream.runForEach(Ledger.subscribe(), (event) => Effect.sync(() => followed(what, event))))
  }
  for (const delivery of ["exactlyOnce", "atLeastOnce"] as const) {
    const handler = (event: Event.RecordedEvent) => Effect.sync(() => followed(delivery, event))
    yield* follow(delivery, Consumer.run({ name: delivery, delivery, handler }))
  }

  yield* Effect.all([
    keepOn("append", 20, Effect.flatMap(make, Ledger.append)),
    keepOn("append", 20, Effect.flatMap(make, Ledger.append)),
    keepOn("batch", 500, Effect.flatMap(Effect.replicateEffect(make, 50), Ledger.appendAll)),
    keepOn(
      "duplicate",
      100,
      Effect.flatMap(
        Ledger.append(sample),
        (receipt) => must(receipt._tag === "Duplicate" && receipt.identical, `it is ${receipt._tag}`)
      )
    ),
    keepOn(
      "condition",
      100,
      Effect.gen(function*() {
        const after = yield* Ledger.latestOffset
        const event = { ...yield* make, runId: "decisions" }
        yield* Ledger.appendIf({ noneMatch: { runId: "decisions" }, after }, [event])
      })
    ),
    keepOn(
      "run",
      100,
      Effect.suspend(() => Ledger.eventsForRun(`run-${some(Math.floor(events / 100))}`)).pipe(
        Effect.flatMap((run) => must(run.length <= 100, `a run of ${run.length}`))
      )
    ),
    keepOn(
      "page",
      100,
      Effect.gen(function*() {
        const after = some(yield* Ledger.latestOffset)
        const page = yield* Stream.runCollect(Ledger.read({ after, limit: 100, filter: { kinds: ["agent.spoke"] } }))
        yield* must(page.length <= 100, `a page of ${page.length}`)
      })
    ),
    keepOn(
      "tail",
      500,
      Effect.gen(function*() {
        const after = Math.max(0, (yield* Ledger.latestOffset) - 500)
        const count = yield* Stream.runCount(Ledger.tail(after))
        yield* must(count > 0, "an empty tail")
      })
    ),
    // how long input and output wait for the program's timers
    keepOn(
      "turn",
      100,
      Effect.async<void>((resume) => {
        setImmediate(() => resume(Effect.void))
      })
    ),
    // one that comes and goes
    keepOn(
      "visitor",
      200,
      Effect.flatMap(
        Ledger.latestOffset,
        (head) => Stream.runDrain(Stream.take(Ledger.subscribe({ after: Math.max(0, head - 10) }), 11))
      )
    ),
    keepOn(
      "projection",
      200,
      Effect.gen(function*() {
        const { offset } = yield* Effect.flatMap(make, Ledger.append)
        const { state } = yield* projection.awaitOffset(offset)
        yield* must(state >= offset, `${state} counted at ${offset}`)
      })
    )
  ], { concurrency: "unbounded", discard: true }).pipe(Effect.raceFirst(Deferred.await(closing)))

  const head = yield* Ledger.latestOffset
  reached.set("projection", (yield* projection.awaitOffset(head)).offset)
  yield* Effect.sync(() => Array.from(reached).filter(([, offset]) => offset < head)).pipe(
    Effect.repeat({ until: (behind) => behind.length === 0, schedule: Schedule.spaced("20 millis") }),
    Effect.timeoutFail({
      duration: "20 seconds",
      onTimeout: () => ({ _tag: "Behind", message: `of ${head}: ${JSON.stringify(Array.from(reached))}` })
    })
  )
}).pipe(
  Effect.scoped,
  Effect.catchAll((error) => Effect.sync(() => failed("the end", error)))
)

const open = state()
print(open)
// what keeps its last events at hand is as large as it will be after a few seconds
const ledger = LedgerConfig.layerUrl(Redacted.make(config.url), { cacheBytes: 2 ** 20 })
await Effect.runPromise(program.pipe(Effect.provide([ledger, logToStderr])))
// a socket is closed when the other end has heard of it
await Effect.runPromise(
  Effect.sync(state).pipe(
    Effect.repeat({ until: ({ handles }) => handles <= open.handles, schedule: Schedule.spaced("50 millis") }),
    Effect.timeoutOption("5 seconds")
  )
)
const end: End = { ...state(), failures }
print(end)

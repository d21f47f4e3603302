/**
 * Three agents at an observatory decide in turns what to look at, and every step is recorded in a ledger. Stop the
 * program wherever you like, with SIGKILL if you like, and start it again: the log is its only memory, and it goes on
 * with the step that comes next.
 *
 * It runs on `runs/agents.db`, or on whatever `DATABASE_URL` selects. `AGENTS_PACE` is the pause after
 * a line, in milliseconds.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Option, Schedule, Stream } from "effect"
// in a project of your own: from "effect-ledger"
import { Event, Ledger, LedgerConfig, type Query } from "../src/index.js"
import { nextStep, type Step } from "./cast.js"
import { describeLedger, withSetting } from "./setting.js"
import * as Transcript from "./transcript.js"

interface Run {
  readonly id: string
  readonly history: ReadonlyArray<Event.RecordedEvent>
  /** Appends that were answered with `Duplicate`. */
  readonly duplicates: number
}

/**
 * A step has the same id however often it is tried. That is all it takes: whoever tries it again, after a crash, a lost
 * answer or in a second process, is told where it was recorded.
 */
const toEvent = (runId: string, { actor, kind, payload, step, turn }: Step) =>
  Event.create({
    id: Event.deterministicId("agents", runId, String(turn), String(step)),
    runId,
    turn,
    kind,
    actor,
    payload,
    sessionId: `observatory-${runId}`,
    ...(kind === "agent.spoke" || kind === "agent.thought" ? { modelProfile: "scripted", modelId: "cast-1" } : {})
  })

/**
 * Records a step, if its run is not finished: a run ends once, whoever ends it. The event is made once, with its id, so
 * the append can be repeated while the store is out of reach. A duplicate of other content means that the cast has
 * changed since the run began, and the run must not go on.
 */
const record = Effect.fn("record")(function*(runId: string, step: Step) {
  const event = yield* toEvent(runId, step)
  const [receipt] = yield* Ledger.appendIf({ noneMatch: { runId, kinds: ["run.finished"] }, after: 0 }, [event]).pipe(
    Effect.retry({
      while: (error) => error._tag === "StoreUnavailable",
      schedule: Schedule.intersect(Schedule.exponential("100 millis"), Schedule.recurs(5))
    }),
    Ledger.failOnDivergence
  )
  return { receipt: receipt!, recorded: { ...event, offset: receipt!.offset } }
})

const runStarts: Query.Filter = { kinds: ["run.started"], actors: ["conductor"] }

/** The unfinished run, which is resumed, or a new one. */
const resumeOrBegin = Effect.gen(function*() {
  const transcript = yield* Transcript.Transcript
  const last = yield* Stream.runHead(
    Ledger.read({ filter: runStarts, direction: "backward", limit: 1 })
  )
  if (Option.isSome(last)) {
    const { runId } = last.value
    const history = yield* Ledger.eventsForRun(runId)
    const next = nextStep(runId, history)
    if (next !== undefined) {
      yield* transcript.note(`resuming run ${runId} at turn ${next.turn}; ${history.length} events found`)
      return yield* retryLast({ id: runId, history, duplicates: 0 })
    }
  }
  const runId = `run-${1 + Option.match(last, { onNone: () => 0, onSome: numberOf })}`
  const started = yield* toEvent(runId, nextStep(runId, [])!)
  // only if nobody else has begun a run since we looked
  const [receipt] = yield* Ledger.appendIf(
    { noneMatch: runStarts, after: Option.match(last, { onNone: () => 0, onSome: (started) => started.offset }) },
    [started]
  )
  const joined = receipt!._tag === "Duplicate"
  yield* transcript.note(joined ? `joining run ${runId}, which another process has begun` : `beginning run ${runId}`)
  const recorded = { ...started, offset: receipt!.offset }
  yield* transcript.line(recorded)
  return { id: runId, history: [recorded], duplicates: joined ? 1 : 0 }
}).pipe(
  Effect.retry({ while: (error) => error._tag === "AppendConditionFailed" })
)

const numberOf = (started: Event.Event): number => Number(started.runId.slice("run-".length))

/** After a crash nobody knows whether the last step was acknowledged. So it is tried again, which changes nothing. */
const retryLast = Effect.fn("retryLast")(function*(run: Run) {
  const transcript = yield* Transcript.Transcript
  const { receipt } = yield* record(run.id, nextStep(run.id, run.history.slice(0, -1))!)
  yield* transcript.note(`retried the last step: ${receipt._tag} of #${receipt.offset}, nothing was written`)
  return { ...run, duplicates: run.duplicates + (receipt._tag === "Duplicate" ? 1 : 0) }
})

/** Plays the run to its end: what comes next follows from what is recorded, and is recorded before it is shown. */
const conduct = Effect.fn("conduct")(function*(run: Run) {
  const transcript = yield* Transcript.Transcript
  const history = [...run.history]
  let duplicates = run.duplicates
  for (let step = nextStep(run.id, history); step !== undefined; step = nextStep(run.id, history)) {
    const { receipt, recorded } = yield* record(run.id, step)
    if (receipt._tag === "Duplicate") duplicates++
    history.push(recorded)
    yield* transcript.line(recorded)
  }
  return { ...run, history, duplicates }
})

const summarize = Effect.fn("summarize")(function*({ duplicates, history, id }: Run) {
  yield* Console.log([
    "",
    `run ${id} is finished`,
    `  events in this run: ${history.length}`,
    `  duplicates met: ${duplicates}`,
    `  runs in the ledger: ${(yield* Ledger.runs).length}`,
    `  head: ${yield* Ledger.latestOffset}`
  ].join("\n"))
})

const program = Effect.gen(function*() {
  yield* Console.log(`Three at an observatory, on ${yield* describeLedger}`)
  yield* resumeOrBegin.pipe(
    Effect.flatMap(conduct),
    Effect.flatMap(summarize),
    Effect.provide([LedgerConfig.layer, Transcript.layer])
  )
}).pipe(
  Effect.onInterrupt(() => Console.log("\nstopped: start again, and the run goes on")),
  withSetting()
)

NodeRuntime.runMain(program, { disableErrorReporting: true })

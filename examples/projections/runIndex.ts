/**
 * The index of runs. Of payloads it reads `scenario` and `cast` of `run.started`, `reason` and `winner` of `run.finished`.
 */
import { DateTime, HashMap, Option, Schema } from "effect"
import { type Event, Projection } from "../../src/index.js"
import * as Payload from "./payload.js"

/** `started` and `finished` are null until it is, `turns` is the last one that is finished; `seen` is its first offset. */
const Run = Schema.Struct({
  seen: Schema.Number,
  scenario: Schema.NullOr(Schema.String),
  cast: Schema.Array(Schema.String),
  started: Schema.NullOr(Schema.String),
  finished: Schema.NullOr(Schema.String),
  reason: Schema.NullOr(Schema.String),
  winner: Schema.NullOr(Schema.String),
  turns: Schema.Number
})
export type Run = typeof Run.Type

/** By the name of the run. */
export type RunIndex = HashMap.HashMap<string, Run>

/** A run begins and ends once: the first `run.started` counts, and the first `run.finished`. */
const after = (run: Run, { createdAt, kind, payload, turn }: Event.RecordedEvent): Run => {
  switch (kind) {
    case "run.started":
      return run.started !== null ? run : {
        ...run,
        started: DateTime.formatIso(createdAt),
        scenario: Payload.text(payload, "scenario"),
        cast: Payload.texts(payload, "cast")
      }
    case "run.finished":
      return run.finished !== null ? run : {
        ...run,
        finished: DateTime.formatIso(createdAt),
        reason: Payload.text(payload, "reason"),
        winner: Payload.text(payload, "winner")
      }
    case "turn.finished":
      return { ...run, turns: Math.max(run.turns, turn) }
    default:
      return run
  }
}

export const runIndex = Projection.make({
  name: "runIndex",
  version: 1,
  filter: { kinds: ["run.started", "run.finished", "turn.started", "turn.finished"] },
  initial: HashMap.empty() as RunIndex,
  apply: (runs: RunIndex, event: Event.RecordedEvent) =>
    HashMap.set(
      runs,
      event.runId,
      after(Option.getOrElse(HashMap.get(runs, event.runId), () => ({ ...unseen, seen: event.offset })), event)
    ),
  schema: Schema.HashMap({ key: Schema.String, value: Run })
})

/** The runs in the order in which they were first seen. */
export const runsOf = (runs: RunIndex): ReadonlyArray<Run & { readonly run: string }> =>
  HashMap.toEntries(runs).map(([run, one]) => Object.assign({ run }, one)).sort((self, that) => self.seen - that.seen)

const unseen: Run = {
  seen: 0,
  scenario: null,
  cast: [],
  started: null,
  finished: null,
  reason: null,
  winner: null,
  turns: 0
}

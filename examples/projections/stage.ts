/**
 * The stage of each run: the turn, who is there, and the last thing that each of them said. Of payloads it reads `cast` of
 * `run.started` and `text` of `agent.spoke`.
 */
import { HashMap, Option, Schema } from "effect"
import { type Event, Projection } from "../../src/index.js"
import * as Payload from "./payload.js"

/** Who is in the cast has not said anything yet (null); who speaks is there too. `seen` is the run's first offset. */
const Stage = Schema.Struct({
  seen: Schema.Number,
  turn: Schema.Number,
  actors: Schema.Array(Schema.Struct({ actor: Schema.String, said: Schema.NullOr(Schema.String) }))
})
export type Stage = typeof Stage.Type

/** By the name of the run. */
export type Stages = HashMap.HashMap<string, Stage>

const after = (stage: Stage, { actor, kind, payload, turn }: Event.RecordedEvent): Stage => {
  switch (kind) {
    case "run.started":
      return Payload.texts(payload, "cast").reduce((stage, actor) => enter(stage, actor), stage)
    case "agent.spoke": {
      const said = Payload.text(payload, "text")
      const { actors } = enter(stage, actor)
      return { ...stage, turn, actors: actors.map((one) => one.actor === actor ? { actor, said } : one) }
    }
    default:
      return { ...stage, turn }
  }
}

export const stage = Projection.make({
  name: "stage",
  version: 1,
  filter: { kinds: ["run.started", "turn.started", "agent.spoke"] },
  initial: HashMap.empty() as Stages,
  apply: (stages: Stages, event: Event.RecordedEvent) =>
    HashMap.set(
      stages,
      event.runId,
      after(
        Option.getOrElse(HashMap.get(stages, event.runId), () => ({ seen: event.offset, turn: 0, actors: [] })),
        event
      )
    ),
  schema: Schema.HashMap({ key: Schema.String, value: Stage })
})

/** The stages in the order in which their runs were first seen. */
export const stagesOf = (stages: Stages): ReadonlyArray<Stage & { readonly run: string }> =>
  HashMap.toEntries(stages).map(([run, one]) => Object.assign({ run }, one)).sort((self, that) => self.seen - that.seen)

const enter = (stage: Stage, actor: string): Stage =>
  stage.actors.some((one) => one.actor === actor)
    ? stage
    : { ...stage, actors: [...stage.actors, { actor, said: null }] }

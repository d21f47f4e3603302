/**
 * Who won how many runs, and took part in how many runs and turns. Taking part in a turn is to speak in it (`agent.spoke`),
 * or to lead at its end (`leader` of `turn.finished`); whoever wins a run (`winner` of `run.finished`) took part in it.
 */
import { HashMap, Option, Schema } from "effect"
import { type Event, Projection } from "../../src/index.js"
import * as Payload from "./payload.js"

const Score = Schema.Struct({ wins: Schema.Number, runs: Schema.Number, turns: Schema.Number })
export type Score = typeof Score.Type

/** `runs`: who took part, with the last turn in which they did; null when the run is finished, and counts no more. */
const Leaderboard = Schema.Struct({
  scores: Schema.HashMap({ key: Schema.String, value: Score }),
  runs: Schema.HashMap({
    key: Schema.String,
    value: Schema.NullOr(Schema.HashMap({ key: Schema.String, value: Schema.Number }))
  })
})
export type Leaderboard = typeof Leaderboard.Type

const tookPart = (board: Leaderboard, runId: string, name: string, turn: number): Leaderboard => {
  const run = Option.getOrElse(HashMap.get(board.runs, runId), () => HashMap.empty<string, number>())
  if (run === null) return board
  const last = HashMap.get(run, name)
  if (Option.isSome(last) && last.value >= turn) return board
  return {
    runs: HashMap.set(board.runs, runId, HashMap.set(run, name, turn)),
    scores: score(board.scores, name, ({ runs, turns, wins }) => ({
      wins,
      runs: runs + (Option.isNone(last) ? 1 : 0),
      turns: turns + (turn === noTurn ? 0 : 1)
    }))
  }
}

const apply = (board: Leaderboard, { actor, kind, payload, runId, turn }: Event.RecordedEvent): Leaderboard => {
  switch (kind) {
    case "agent.spoke":
      return tookPart(board, runId, actor, turn)
    case "turn.finished": {
      const leader = Payload.text(payload, "leader")
      return leader === null ? board : tookPart(board, runId, leader, turn)
    }
    case "run.finished": {
      if (Option.getOrUndefined(HashMap.get(board.runs, runId)) === null) return board
      const winner = Payload.text(payload, "winner")
      const { runs, scores } = winner === null ? board : tookPart(board, runId, winner, noTurn)
      return {
        runs: HashMap.set(runs, runId, null),
        scores: winner === null ? scores : score(scores, winner, (one) => ({ ...one, wins: one.wins + 1 }))
      }
    }
    default:
      return board
  }
}

export const leaderboard = Projection.make({
  name: "leaderboard",
  version: 1,
  filter: { kinds: ["agent.spoke", "turn.finished", "run.finished"] },
  initial: { scores: HashMap.empty(), runs: HashMap.empty() } as Leaderboard,
  apply,
  schema: Leaderboard
})

/** The best first; equals by name. */
export const scoresOf = ({ scores }: Leaderboard): ReadonlyArray<Score & { readonly name: string }> =>
  HashMap.toEntries(scores).map(([name, one]) => Object.assign({ name }, one)).sort((self, that) =>
    that.wins - self.wins || that.turns - self.turns || that.runs - self.runs || (self.name < that.name ? -1 : 1)
  )

/** Before the first turn. */
const noTurn = -1

const score = (
  scores: Leaderboard["scores"],
  name: string,
  change: (score: Score) => Score
): Leaderboard["scores"] =>
  HashMap.set(
    scores,
    name,
    change(Option.getOrElse(HashMap.get(scores, name), () => ({ wins: 0, runs: 0, turns: 0 })))
  )

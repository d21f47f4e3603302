/**
 * What the runs of `npm start` amount to: an index of them, the stage of the last one, and a leaderboard. Each is a
 * projection that is kept in the database beside the ledger, so that the next start folds only what is new.
 *
 * `npm run projections` prints them, `-- --json` for programs, `-- --follow` again whenever they change. It looks where
 * `DATABASE_URL` says, or at `runs/agents.db`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Data, Effect, Stream } from "effect"
import { parseArgs } from "node:util"
// in a project of your own: from "effect-ledger"
import { Ledger, LedgerConfig, type LedgerError, Projection } from "../src/index.js"
import { leaderboard, scoresOf } from "./projections/leaderboard.js"
import { runIndex, runsOf } from "./projections/runIndex.js"
import { stage, stagesOf } from "./projections/stage.js"
import { describeLedger, withSetting } from "./setting.js"

class Usage extends Data.TaggedError("Usage")<{ readonly message: string }> {}

const options = Effect.try({
  try: () => {
    const { follow, json } = parseArgs({ options: { follow: { type: "boolean" }, json: { type: "boolean" } } }).values
    return { follow: follow === true, json: json === true }
  },
  catch: (error) => new Usage({ message: `${String(error)}\nusage: npm run projections -- [--follow] [--json]` })
})

const show = Effect.fn("show")(function*({ follow, json }: Effect.Effect.Success<typeof options>) {
  const runs = yield* Projection.openPersisted(runIndex)
  const stages = yield* Projection.openPersisted(stage)
  const scores = yield* Projection.openPersisted(leaderboard)
  const report = Effect.all({
    runs: Effect.map(runs.current, ({ state }) => runsOf(state)),
    stages: Effect.map(stages.current, ({ state }) => stagesOf(state)),
    scores: Effect.map(scores.current, ({ state }) => scoresOf(state))
  })
  let printed = ""
  const print = Effect.flatMap(report, (told) => {
    const text = json ? JSON.stringify(told) : tables(told)
    if (text === printed) return Effect.void
    printed = text
    return Console.log(text)
  })

  const head = yield* Ledger.latestOffset
  yield* Effect.all([runs.awaitOffset(head), stages.awaitOffset(head), scores.awaitOffset(head)])
  yield* print
  if (!follow) return
  const changes: ReadonlyArray<Stream.Stream<unknown, LedgerError.ProjectionError>> = [
    runs.changes,
    stages.changes,
    scores.changes
  ]
  // one event may change all of them, and a busy ledger is not to be printed five hundred times a second
  yield* Stream.mergeAll(changes, { concurrency: "unbounded", bufferSize: 1 }).pipe(
    Stream.runForEach(() => Effect.zipRight(Effect.sleep("100 millis"), print))
  )
})

type Report = {
  readonly runs: ReturnType<typeof runsOf>
  readonly stages: ReturnType<typeof stagesOf>
  readonly scores: ReturnType<typeof scoresOf>
}

const tables = ({ runs, scores, stages }: Report): string => {
  const last = stages.at(-1)
  return [
    "\nRuns",
    table(runs.map(({ seen: _, ...run }) => ({ ...run, cast: run.cast.join(", ") }))),
    ...(last === undefined ? [] : [`\nOn stage in ${last.run}, turn ${last.turn}`, table(last.actors)]),
    "\nLeaderboard",
    table(scores)
  ].join("\n")
}

const table = (rows: ReadonlyArray<Readonly<Record<string, string | number | null>>>): string => {
  const [first] = rows
  if (first === undefined) return "  none"
  const names = Object.keys(first)
  const cells = [names, ...rows.map((row) => names.map((name) => String(row[name] ?? "-")))]
  const widths = names.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)))
  return cells.map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd()}`).join(
    "\n"
  )
}

const program = Effect.gen(function*() {
  const told = yield* options
  if (!told.json) yield* Console.log(`Projections of ${yield* describeLedger}`)
  yield* Effect.provide(Effect.scoped(show(told)), LedgerConfig.layer)
}).pipe(withSetting())

NodeRuntime.runMain(program, { disableErrorReporting: true })

/**
 * Follows the ledger of `npm start` while it is written: first what is there, then each event as it comes. Any number of
 * these may run, in other terminals, before, during and after a run.
 *
 * `npm run watch -- --from 20` begins after offset 20. It looks where `DATABASE_URL` says, or at `runs/agents.db`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Data, Effect, Match, Stream } from "effect"
import { parseArgs } from "node:util"
// in a project of your own: from "effect-ledger"
import { Ledger, LedgerConfig } from "../src/index.js"
import { describeLedger, withSetting } from "./setting.js"
import * as Transcript from "./transcript.js"

class Usage extends Data.TaggedError("Usage")<{ readonly message: string }> {}

const from = Effect.try({
  try: () => Number(parseArgs({ options: { from: { type: "string", default: "0" } } }).values.from),
  catch: (error) => new Usage({ message: `${String(error)}\nusage: npm run watch -- --from OFFSET` })
})

/** A reader is told that it has caught up after each piece of news. That is worth saying after more than a few lines. */
const aFew = 20

const watch = Effect.fn("watch")(function*(after: number) {
  const transcript = yield* Transcript.Transcript
  let last = after
  let given = Infinity
  const tell = Match.typeTags<Ledger.Followed>()({
    Recorded: ({ event }) => {
      last = event.offset
      given++
      return transcript.line(event)
    },
    Behind: ({ lag }) => transcript.note(`${lag} events behind`),
    CaughtUp: ({ head }) => {
      const far = given > aFew
      given = 0
      return far ? transcript.note(`live at #${head}`) : Effect.void
    }
  })
  yield* Ledger.follow({ after }).pipe(
    Stream.runForEach(tell),
    Effect.onInterrupt(() => Console.log(`\nstopped at #${last}`))
  )
})

const program = Effect.gen(function*() {
  const after = yield* from
  yield* Console.log(`Watching ${yield* describeLedger}`)
  yield* Effect.provide(watch(after), [LedgerConfig.layer, Transcript.layer])
}).pipe(
  // whoever follows goes at the pace of the writer, and through the past as fast as it can be read
  withSetting({ AGENTS_PACE: "0" })
)

NodeRuntime.runMain(program, { disableErrorReporting: true })

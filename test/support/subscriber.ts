/**
 * A process that follows the log from its beginning, `subscriber.ts TOTAL`, until it is told that the head, at or beyond
 * TOTAL, is reached. Prints `offset id` of each event as it comes, and in the end `digest` and a digest of them all.
 */
import { Effect, Layer, Stream } from "effect"
import { Ledger, LedgerConfig } from "../../src/index.js"
import { digester, endPrinted, endWithParent, logToStderr, untilAvailable } from "./following.js"

const [total = "0"] = process.argv.slice(2)

const program = Effect.gen(function*() {
  const digest = digester()
  yield* Ledger.follow().pipe(
    Stream.takeUntil((told) => told._tag === "CaughtUp" && told.head >= Number(total)),
    Stream.runForEach((told) =>
      Effect.sync(() => {
        if (told._tag !== "Recorded") return
        digest.add(told.event)
        process.stdout.write(`${told.event.offset} ${told.event.id}\n`)
      })
    )
  )
  process.stdout.write(`digest ${digest.text()}\n`)
})

endWithParent()
await Effect.runPromise(
  program.pipe(Effect.provide([Layer.retry(LedgerConfig.layer, untilAvailable), logToStderr]))
)
endPrinted()

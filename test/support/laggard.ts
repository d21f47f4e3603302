/**
 * A process with a subscriber that handles its first event until a quick one has seen TOTAL events, and then is slow:
 * `laggard.ts TOTAL`, the ledger from the environment, to be run with `--expose-gc`. Prints `handling`, `caught up`, and
 * in the end as JSON what the slow one saw and how much memory was in use on its way.
 */
import { Effect, Stream } from "effect"
import { Ledger, LedgerConfig } from "../../src/index.js"
import { endPrinted, endWithParent, logToStderr } from "./following.js"

const total = Number(process.argv[2])

const program = Effect.gen(function*() {
  const gate = yield* Effect.makeLatch()
  const quick = Ledger.subscribe().pipe(
    Stream.take(total),
    Stream.runDrain,
    Effect.zipRight(Effect.sync(() => process.stdout.write("caught up\n"))),
    Effect.zipRight(gate.open)
  )
  let seen = 0
  let inOrder = true
  const memory: Array<number> = []
  const slow = Ledger.subscribe().pipe(
    Stream.rechunk(1),
    Stream.take(total),
    Stream.runForEach(({ offset }) => {
      inOrder &&= offset === ++seen
      if (seen === 1) return Effect.zipRight(Effect.sync(() => process.stdout.write("handling\n")), gate.await)
      if (seen % 10_000 === 0) memory.push(heap())
      return seen % 100 === 0 ? Effect.sleep("1 millis") : Effect.void
    })
  )
  yield* Effect.all([quick, slow], { concurrency: "unbounded" })
  process.stdout.write(`${JSON.stringify({ seen, inOrder, memory })}\n`)
})

/** Bytes that are held, and not only not yet collected. */
const heap = (): number => {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

endWithParent()
await Effect.runPromise(program.pipe(Effect.provide([LedgerConfig.layer, logToStderr])))
endPrinted()

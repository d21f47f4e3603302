/**
 * A process that appends until everything is recorded: `writer.ts NAME COUNT LARGEST`, in batches of at most LARGEST
 * events, the ledger from the environment. Prints `offset id` of each event that is acknowledged. Ids and batches follow
 * from the name, so that it can be killed and started again.
 */
import { Effect, Layer } from "effect"
import { Event, Ledger, LedgerConfig } from "../../src/index.js"
import { endPrinted, endWithParent, logToStderr, random, untilAvailable } from "./following.js"

const [name = "", count = "0", largest = "1"] = process.argv.slice(2)

const program = Effect.gen(function*() {
  const next = random(name)
  for (let turn = 0; turn < Number(count);) {
    const size = Math.min(Number(count) - turn, 1 + Math.floor(next() * Number(largest)))
    const batch = yield* Effect.forEach(Array.from({ length: size }, (_, n) => turn + n), (turn) =>
      Event.create({
        id: Event.deterministicId(name, String(turn)),
        runId: name,
        turn,
        kind: "agent.spoke",
        actor: name,
        payload: { turn }
      }))
    const receipts = yield* Effect.retry(Ledger.appendAll(batch), untilAvailable)
    process.stdout.write(receipts.map(({ id, offset }) => `${offset} ${id}\n`).join(""))
    turn += size
  }
})

endWithParent()
await Effect.runPromise(
  program.pipe(Effect.provide([Layer.retry(LedgerConfig.layer, untilAvailable), logToStderr]))
)
endPrinted()

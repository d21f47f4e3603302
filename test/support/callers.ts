/**
 * A process with many callers: `callers.ts NAME CALLERS EACH [FROM TO]`, the ledger from the environment. Prints
 * `offset id` of each event that is acknowledged. Opens the ledger in the folder FROM, and goes to TO then.
 */
import { Effect, Layer, ManagedRuntime } from "effect"
import { Event, Ledger, LedgerConfig } from "../../src/index.js"
import { endWithParent, logToStderr } from "./following.js"

const [name = "", callers = "0", each = "0", from = ".", to = "."] = process.argv.slice(2)
const numbers = (count: string) => Array.from({ length: Number(count) }, (_, n) => n)

const program = Effect.forEach(
  numbers(callers),
  (caller) =>
    Effect.forEach(numbers(each), (turn) =>
      Effect.gen(function*() {
        const id = `${name}/${caller}/${turn}`
        const event = yield* Event.create({
          id,
          runId: `${name}/${caller}`,
          turn,
          kind: "agent.spoke",
          actor: name,
          payload: {}
        })
        const { offset } = yield* Ledger.append(event)
        process.stdout.write(`${offset} ${id}\n`)
      }), { discard: true }),
  { concurrency: "unbounded", discard: true }
)

endWithParent()
// it is not closed, and nothing of it keeps the process
const runtime = ManagedRuntime.make(Layer.merge(LedgerConfig.layer, logToStderr))
process.chdir(from)
await runtime.runPromise(Ledger.latestOffset)
process.chdir(to)
await runtime.runPromise(program)
process.stdin.unref()

/**
 * A process that copies the ledger of the environment to DESTINATION, over and over unless COUNT says how often:
 * `snapshotter.ts DESTINATION OPTIONS COUNT`, the options of the snapshot as JSON. Prints `copied N` after each page,
 * `made HEAD DIGEST` after each copy, and in the end `memory BYTES`, what was held at most.
 */
import { Effect, Layer } from "effect"
import { LedgerConfig, Snapshot } from "../../src/index.js"
import { endPrinted, endWithParent, logToStderr } from "./following.js"

const [destination = "", options = "{}", count = "Infinity"] = process.argv.slice(2)
const held = { first: 0, most: 0 }

const sample = (copied: number): void => {
  if (globalThis.gc === undefined || copied % 10_000 !== 0) return
  globalThis.gc()
  const { external, heapUsed } = process.memoryUsage()
  held.first ||= heapUsed + external
  held.most = Math.max(held.most, heapUsed + external)
}

const program = Effect.gen(function*() {
  process.stdout.write("begun\n")
  for (let made = 0; made < Number(count); made++) {
    const { digest, head } = yield* Snapshot.to(destination, {
      ...JSON.parse(options),
      onProgress: ({ copied }) =>
        Effect.sync(() => {
          sample(copied)
          process.stdout.write(`copied ${copied}\n`)
        })
    })
    process.stdout.write(`made ${head} ${digest}\n`)
  }
  process.stdout.write(`memory ${held.first} ${held.most}\n`)
})

endWithParent()
await Effect.runPromise(program.pipe(Effect.provide(Layer.merge(LedgerConfig.layer, logToStderr))))
endPrinted()

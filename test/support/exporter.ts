/**
 * A process that exports the ledger of the environment to a file, and stops for ever when COUNT events are written:
 * `exporter.ts FILE COUNT`. Prints `written` then, to be killed.
 */
import { Effect, Layer } from "effect"
import { LedgerConfig, Trace } from "../../src/index.js"
import { endWithParent, logToStderr } from "./following.js"

const [file = "", count = "0"] = process.argv.slice(2)

endWithParent()
await Effect.runPromise(
  Trace.toFile(file, {
    onProgress: (progress) =>
      progress.count < Number(count)
        ? Effect.void
        : Effect.zipRight(Effect.sync(() => process.stdout.write("written\n")), Effect.never)
  }).pipe(Effect.provide(Layer.merge(LedgerConfig.layer, logToStderr)))
)

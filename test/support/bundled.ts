/**
 * A program that is one file: `bundled.ts FILE COPY`. Copies the ledger in FILE twice, the second time over the first copy,
 * and prints as JSON how many events that were, whether it found the driver, and what is wrong with FILE.
 */
import { Effect } from "effect"
import { Snapshot, Verify } from "../../src/index.js"
import { findDriver } from "../../src/internal/sqliteDriver.js"
import * as SqliteLedger from "../../src/SqliteLedger.js"
import { endPrinted } from "./following.js"

const [file = "", copy = ""] = process.argv.slice(2)

await Effect.runPromise(
  Effect.gen(function*() {
    yield* Snapshot.to(copy)
    const { count } = yield* Snapshot.to(copy)
    const { problems } = yield* Verify.run()
    process.stdout.write(`${JSON.stringify({ count, driver: findDriver() ?? null, problems })}\n`)
  }).pipe(Effect.provide(SqliteLedger.layerFile(file)))
)
endPrinted()

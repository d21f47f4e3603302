/**
 * A process that opens a SQLite file for reading, `reader.ts FILE TOTAL`, as a user who owns nothing where it is started
 * by root, and prints the offset of each event up to TOTAL as it comes, or how it failed.
 */
import Sqlite from "better-sqlite3"
import { Effect, Stream } from "effect"
import { Ledger } from "../../src/index.js"
import * as SqliteLedger from "../../src/SqliteLedger.js"
import { endPrinted, endWithParent } from "./following.js"

const [file = "", total = "0"] = process.argv.slice(2)
const print = (text: unknown) => Effect.sync(() => void process.stdout.write(`${text}\n`))

endWithParent()
// what the driver needs of its own is loaded while it may be
new Sqlite(":memory:").close()
if (process.getuid?.() === 0) {
  process.setegid?.(65_534)
  process.seteuid?.(65_534)
}
await Effect.runPromise(
  Ledger.subscribe().pipe(
    Stream.take(Number(total)),
    Stream.runForEach(({ offset }) => print(offset)),
    Effect.provide(SqliteLedger.layerReadonly(file)),
    Effect.catchAll((error) => print(`${error._tag} ${error.message}`))
  )
)
endPrinted()

/** The command line, as a user who owns nothing where it is started by root. */
import Sqlite from "better-sqlite3"
import { createRequire } from "node:module"

// what the driver and the program need of their own is loaded while it may be
new Sqlite(":memory:").close()
createRequire(import.meta.url)("effect-ledger/package.json")
if (process.getuid?.() === 0) {
  process.setegid?.(65_534)
  process.seteuid?.(65_534)
}
await import("../../src/cli/main.js")

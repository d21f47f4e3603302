/**
 * A process that consumes: `consumer.ts OPTIONS`, the ledger from DATABASE_URL and LEDGER_SCHEMA, its prefix `ledger_`.
 * OPTIONS are JSON, see below. Exactly once, the handler writes each event into the table `seen`. At least once, it prints
 * `offset runId` for each. Before the event at `gateAt` is done it prints `handling` and stands still until the file
 * `gate` exists.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { Effect, Layer, Redacted } from "effect"
import * as Fs from "node:fs"
import { Consumer, type Event } from "../../src/index.js"
import * as PgLedger from "../../src/PgLedger.js"
import * as SqliteLedger from "../../src/SqliteLedger.js"
import { endWithParent, logToStderr, untilAvailable } from "./following.js"

interface Options {
  readonly delivery: Consumer.Delivery
  readonly lease: number
  readonly batch: number
  readonly groups?: number
  readonly gateAt?: number
  readonly gate?: string
}

const options: Options = JSON.parse(process.argv[2] ?? "")
const url = process.env["DATABASE_URL"] ?? ""
const sqlite = "sqlite:///"

/** As in the middle of a long computation: nothing else of this process runs meanwhile. */
const standAtGate = (): void => {
  process.stdout.write("handling\n")
  const never = new Int32Array(new SharedArrayBuffer(4))
  while (!Fs.existsSync(options.gate!)) Atomics.wait(never, 0, 0, 5)
}

const program = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const schema = process.env["LEDGER_SCHEMA"]
  const seen = sql.literal(schema === undefined ? "seen" : `${schema}.seen`)
  return yield* Consumer.run({
    ...options,
    name: "reader",
    handler: ({ id, offset, runId }: Event.RecordedEvent) =>
      Effect.gen(function*() {
        if (options.delivery === "exactlyOnce") {
          yield* sql`INSERT INTO ${seen} ("offset", id) VALUES (${offset}, ${id})`
          // other fibers of the process have their turn in the middle of a transaction
          yield* Effect.sleep("1 millis")
        }
        if (offset === options.gateAt) standAtGate()
        if (options.delivery === "atLeastOnce") process.stdout.write(`${offset} ${runId}\n`)
      })
  })
})

endWithParent()
const ledger = url.startsWith(sqlite)
  ? SqliteLedger.layerFile(url.slice(sqlite.length))
  : PgLedger.layerUrl(Redacted.make(url), { schema: process.env["LEDGER_SCHEMA"], maxConnections: 3 })
await Effect.runPromise(program.pipe(Effect.provide([Layer.retry(ledger, untilAvailable), logToStderr])))

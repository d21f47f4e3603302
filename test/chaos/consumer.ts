/**
 * A process that runs a durable consumer. Exactly once, the handler writes each event into the table `handled`; at least
 * once, into the history. `until N`: it ends when the consumer has come to offset N.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { Deferred, Effect, Layer, Logger, Redacted, Schedule } from "effect"
import { Consumer, type Event } from "../../src/index.js"
import * as PgLedger from "../../src/PgLedger.js"
import * as SqliteLedger from "../../src/SqliteLedger.js"
import { logToStderr, untilAvailable } from "../support/following.js"
import { type ConsumerConfig, now, recorder, storedOf } from "./history.js"
import { configured } from "./process.js"

const until = Effect.runSync(Deferred.make<number>())
const config = await configured<ConsumerConfig>((command) =>
  Deferred.unsafeDone(until, Effect.succeed(Number(command.split(" ")[1])))
)
const record = recorder(config.file)

const consuming = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  Consumer.run({
    name: config.delivery,
    delivery: config.delivery,
    batch: config.batch,
    // shorter than most of the time that a process is stopped
    lease: "500 millis",
    // a connection that was cut
    retry: Schedule.spaced("20 millis"),
    handler: (event: Event.RecordedEvent) =>
      config.delivery === "atLeastOnce"
        ? Effect.sync(() => record(["handled", now(), event.offset, event.id, storedOf(event)])).pipe(
          // so that many die between their batch and its checkpoint
          Effect.zipRight(event.offset % 4 === 0 ? Effect.sleep("1 millis") : Effect.void)
        )
        : sql`INSERT INTO handled ("offset", id, stored, life)
            VALUES (${event.offset}, ${event.id}, ${storedOf(event)}, ${config.life})`
  }))

const finished = Effect.flatMap(Deferred.await(until), (head) =>
  Consumer.status.pipe(
    Effect.retry(untilAvailable),
    Effect.repeat({
      until: (all) => all.some(({ name, offset }) => name === config.delivery && offset >= head),
      schedule: Schedule.spaced("50 millis")
    })
  ))

/** What a consumer says when it has lost the lease: what it handles then is of another tenure. */
const tellYielded = Logger.make(({ message }) => {
  if (String(message).includes("gives the partition up")) record(["yielded"])
})

const program = Effect.raceFirst(consuming, finished).pipe(
  Effect.catchAll((error) =>
    Effect.sync(() => {
      record(["failed", now(), `${config.life}, ${config.delivery}: ${error._tag}: ${error.message}`])
      process.exitCode = 3
    })
  )
)

const sqlite = "sqlite:///"
const ledger = config.url.startsWith(sqlite)
  ? SqliteLedger.layerFile(config.url.slice(sqlite.length))
  : PgLedger.layerUrl(Redacted.make(config.url), { commitTimeout: "5 seconds", maxConnections: 3 })
await Effect.runPromise(program.pipe(Effect.provide([
  Layer.retry(ledger, untilAvailable),
  logToStderr,
  Logger.add(tellYielded)
])))
process.exit()

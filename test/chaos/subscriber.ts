/**
 * A process that follows the log in one life, and looks at the head now and then. `until N`: it ends when it has seen
 * offset N.
 */
import { Deferred, Effect, Layer, Redacted, Schedule, Stream } from "effect"
import { Ledger, LedgerConfig } from "../../src/index.js"
import { logToStderr, untilAvailable } from "../support/following.js"
import { now, recorder, storedOf, type SubscriberConfig } from "./history.js"
import { configured } from "./process.js"

let seen = 0
let until = Infinity
const finished = Effect.runSync(Deferred.make<void>())
const endWhenSeen = (): void => {
  if (seen >= until) Deferred.unsafeDone(finished, Effect.void)
}
const config = await configured<SubscriberConfig>((command) => {
  until = Number(command.split(" ")[1])
  endWhenSeen()
})
const record = recorder(config.file)

const subscribing = Ledger.subscribe().pipe(
  Stream.runForEachChunk((chunk) =>
    Effect.sync(() => {
      const events = Array.from(chunk)
      record(["seen", events.map((event) => [event.offset, event.id, storedOf(event)])])
      seen = Math.max(seen, ...events.map(({ offset }) => offset))
      endWhenSeen()
    })
  ),
  Effect.zipRight(Effect.fail({ _tag: "Ended", message: "the subscription ended" }))
)

const looking = Effect.suspend(() => {
  const invokedAt = now()
  return Effect.map(Ledger.latestOffset, (head) => record(["head", invokedAt, now(), head]))
}).pipe(
  Effect.retry(untilAvailable),
  Effect.repeat(Schedule.spaced("50 millis"))
)

const program = Effect.all([subscribing, looking], { concurrency: "unbounded", discard: true }).pipe(
  Effect.catchAll((error) =>
    Effect.sync(() => {
      record(["failed", now(), `subscriber: ${error._tag}: ${error.message}`])
      process.exitCode = 3
    })
  ),
  Effect.raceFirst(Deferred.await(finished))
)

await Effect.runPromise(program.pipe(Effect.provide([
  Layer.retry(LedgerConfig.layerUrl(Redacted.make(config.url)), untilAvailable),
  logToStderr
])))
process.exit()

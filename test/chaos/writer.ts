/**
 * A process that appends: in most lanes one event or batch after the other, in the last one decisions that are raced with
 * the other writers. What is unknown is attempted again with the same ids until it is known, also in the next life.
 */
import { type Clock, Effect, Layer, Redacted, Stream } from "effect"
import type { Event } from "../../src/index.js"
import { Ledger, LedgerConfig } from "../../src/index.js"
import { logToStderr, random, untilAvailable } from "../support/following.js"
import { eventOf, now, type Planned, type PlannedEvent, recorder, type Resume, type WriterConfig } from "./history.js"
import { configured } from "./process.js"

const state = { stopping: false }
const config = await configured<WriterConfig>((command) => {
  state.stopping ||= command === "stop"
})
const record = recorder(config.file)

/** Between two decisions that all writers make at the same time, in microseconds. */
const slot = 50_000

const attempt = Effect.fnUntraced(function*(planned: Planned) {
  const events: Array<Event.Event> = yield* Effect.forEach(planned.events, eventOf)
  const { condition, key, spoiled } = planned
  if (spoiled !== undefined) events[spoiled] = { ...events[spoiled]!, turn: -1 }
  const call = condition !== undefined
    ? Ledger.appendIf({ noneMatch: { runId: condition.runId }, after: condition.after }, events)
    : events.length === 1
    ? Effect.map(Ledger.append(events[0]!), (receipt) => [receipt])
    : Ledger.appendAll(events)
  return yield* Effect.suspend(() => {
    record(["invoked", now(), planned])
    return call
  }).pipe(
    Effect.map((receipts) => {
      record(["ok", now(), key, receipts.map((receipt) => [receipt.offset, statusOf(receipt)])])
      return true
    }),
    Effect.catchAll((error) => {
      switch (error._tag) {
        case "InvalidEvent":
          record(["refused", now(), key, null])
          if (spoiled === undefined) record(["failed", now(), `${key}: ${error.message}`])
          return Effect.succeed(true)
        case "AppendConditionFailed":
          record(["refused", now(), key, error.offset])
          return Effect.succeed(true)
        case "StoreUnavailable":
          record(["unknown", now(), key, error.reason])
          // whoever takes the lock before it looks is in nobody's way
          if (error.reason.includes("a concurrent transaction")) record(["failed", now(), `${key}: ${error.message}`])
          return Effect.as(Effect.sleep("20 millis"), false)
      }
      record(["unknown", now(), key, error._tag])
      record(["failed", now(), `${key}: ${error._tag}: ${error.message}`])
      return Effect.as(Effect.sleep("200 millis"), false)
    })
  )
})

const statusOf = (receipt: Ledger.Receipt) =>
  receipt._tag === "Appended" ? "appended" : receipt.identical ? "identical" : "divergent"

const lane = Effect.fnUntraced(function*(
  name: string,
  { next, pending }: Resume,
  plan: (n: number, done: ReadonlyArray<Planned>) => Effect.Effect<Planned, never, Ledger.Ledger>,
  pause: number
) {
  const done: Array<Planned> = []
  const chance = random(`${config.seed} ${name} ${next} pauses`)
  for (let n = next, planned = pending; !state.stopping || planned !== undefined; planned = undefined) {
    planned ??= yield* plan(n++, done)
    while (!(yield* attempt(planned))) { /* again */ }
    if (planned.spoiled === undefined && planned.condition === undefined) done.unshift(planned)
    done.length = Math.min(done.length, 20)
    yield* Effect.sleep(chance() * pause)
  }
})

const producer = (name: string) => (n: number, done: ReadonlyArray<Planned>): Effect.Effect<Planned> =>
  Effect.sync(() => {
    const chance = random(`${config.seed} ${name} ${n}`)
    const key = `${name}/${n}`
    const runId = `run-${name}-${Math.floor(n / 40)}`
    const batch = (size: number): ReadonlyArray<PlannedEvent> =>
      Array.from({ length: size }, (_, index) => [`${key}/${index}`, runId, index])
    const planned = (events: ReadonlyArray<PlannedEvent>, more: Partial<Planned> = {}): Planned => ({
      key,
      lane: name,
      n,
      events,
      ...more
    })
    const what = chance()
    const size = 1 + Math.floor(chance() * config.largest)
    if (what < 0.6) return planned(batch(1))
    if (what < 0.8) return planned(batch(size))
    if (what < 0.808) return planned(batch(size * 10))
    // several statements in one transaction
    if (what < 0.81) return planned(batch(2100 + size))
    // what is recorded already, alone and among new events
    const old = done[Math.floor(chance() * done.length)]?.events ?? []
    if (what < 0.87) return planned(old.length === 0 ? batch(1) : old)
    if (what < 0.9) return planned([...batch(size), ...old.slice(0, 3)])
    // an id twice in one batch
    if (what < 0.93) return planned([...batch(size), batch(1)[0]!])
    // the same event as other writers, at the same time
    if (what < 0.97) {
      const shared = Math.floor(now() / slot)
      return planned([[`shared/${shared}`, "shared", shared % 1_000_000]])
    }
    return planned(batch(size), { spoiled: Math.floor(chance() * size) })
  })

const decider = (name: string) => (n: number): Effect.Effect<Planned, never, Ledger.Ledger> =>
  Effect.suspend(() => Effect.sleep((slot - now() % slot) / 1000)).pipe(
    Effect.zipRight(Effect.suspend((): Effect.Effect<Planned, never, Ledger.Ledger> => {
      const key = `${name}/${n}`
      const planned = (runId: string, turn: number, after: number): Planned => ({
        key,
        lane: name,
        n,
        // two events, so that a decision can be torn
        events: [[`${key}/0`, runId, turn], [`${key}/1`, runId, turn]],
        condition: { runId, after },
        decision: `${runId} ${turn}`
      })
      const number = Math.floor(now() / slot)
      // half of them: whoever comes first; the others: whoever has seen the last
      return number % 2 === 0 ? Effect.succeed(planned(`decision-${number}`, 0, 0)) : lastOf("counter").pipe(
        Effect.map((last) => planned("counter", (last?.turn ?? -1) + 1, last?.offset ?? 0))
      )
    }))
  )

const lastOf = (runId: string) =>
  Stream.runHead(Ledger.read({ filter: { runId }, direction: "backward", limit: 1 })).pipe(
    Effect.retry(untilAvailable),
    Effect.map((last) => last._tag === "Some" ? last.value : undefined),
    Effect.catchAll((error) =>
      Effect.sync((): undefined => {
        record(["failed", now(), `reading ${runId}: ${error._tag}: ${error.message}`])
        return undefined
      })
    )
  )

const program = Effect.forEach(
  Array.from({ length: config.lanes }, (_, index) => `${config.name}.${index}`),
  (name, index) =>
    index === config.lanes - 1 && config.lanes > 1
      ? lane(name, config.resume[name] ?? start, decider(name), 0)
      : lane(name, config.resume[name] ?? start, producer(name), config.pause),
  { concurrency: "unbounded", discard: true }
)

const start: Resume = { next: 0, pending: undefined }

/** A clock that goes back by a minute every second, and by an hour now and then. */
const backwards = (clock: Clock.Clock): Clock.Clock => {
  const begun = clock.unsafeCurrentTimeMillis()
  const back = (millis: number): number => {
    const elapsed = millis - begun
    return millis - elapsed * 61 - Math.floor(elapsed / 5000) * 3_600_000
  }
  return {
    ...clock,
    unsafeCurrentTimeMillis: () => Math.floor(back(clock.unsafeCurrentTimeMillis())),
    unsafeCurrentTimeNanos: () => BigInt(Math.floor(back(clock.unsafeCurrentTimeMillis()))) * 1_000_000n,
    currentTimeMillis: Effect.map(clock.currentTimeMillis, (millis) => Math.floor(back(millis))),
    currentTimeNanos: Effect.map(clock.currentTimeMillis, (millis) => BigInt(Math.floor(back(millis))) * 1_000_000n),
    sleep: (duration) => clock.sleep(duration)
  }
}

const ledger = LedgerConfig.layerUrl(Redacted.make(config.url), { commitTimeout: "5 seconds" })
const main = program.pipe(Effect.provide([Layer.retry(ledger, untilAvailable), logToStderr]))
await Effect.runPromise(
  config.backwards ? Effect.clockWith((clock) => Effect.withClock(main, backwards(clock))) : main
)
process.exit()

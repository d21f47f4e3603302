/** W8, from an append to a subscriber, in this process and in another. Events come one by one, with a pause between. */
import { Duration, Effect, type Layer, ManagedRuntime, Redacted } from "effect"
import { Event, Ledger, MemoryLedger } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { start } from "./process.js"
import { now, seenBy } from "./subscriber.js"

/** Milliseconds from an append's call, and from its acknowledgement, until a subscriber has the event. */
export interface Latency {
  readonly subscriber: string
  readonly fromCall: Quantiles
  readonly fromAcknowledgement: Quantiles
}

interface Quantiles {
  readonly p50: number
  readonly p99: number
}

const pause = Duration.millis(7)

/** So many events to each subscriber; without a URL there is no Postgres. */
export const latencies = async (
  count: number,
  file: (name: string) => string,
  url: string | undefined
): Promise<ReadonlyArray<Latency>> => {
  const memory = await within("memory, same process", count, MemoryLedger.layer)
  const near = await within("SQLite, same process", count, SqliteLedger.layerFile(file("within.db")))
  const across = file("across.db")
  const far = await beyond("SQLite, another process", count, SqliteLedger.layerFile(across), across, undefined)
  if (url === undefined) return [memory, near, far]
  const layer = (schema: string) => PgLedger.layerUrl(Redacted.make(url), { schema })
  return [
    memory,
    near,
    far,
    await within("Postgres, same process", count, layer("within")),
    await beyond("Postgres, another process", count, layer("across"), url, "across")
  ]
}

type AnyLedger = Layer.Layer<Ledger.Ledger, unknown>

const within = async (subscriber: string, count: number, layer: AnyLedger): Promise<Latency> => {
  const taken = times()
  await Effect.runPromise(
    Effect.gen(function*() {
      const ready = yield* Effect.makeLatch()
      const reading = yield* Effect.fork(
        seenBy(count, (offset, at) => offset === 0 ? ready.unsafeOpen() : taken.seen[offset] = at)
      )
      yield* ready.await
      yield* appendAll(count, taken)
      yield* reading
    }).pipe(Effect.provide(layer))
  )
  return latency(subscriber, taken)
}

const beyond = async (
  subscriber: string,
  count: number,
  layer: AnyLedger,
  url: string,
  schema: string | undefined
): Promise<Latency> => {
  const runtime = ManagedRuntime.make(layer)
  await runtime.runPromise(Ledger.latestOffset)
  const taken = times()
  const child = await start({ task: "subscribe", side: "ours", url, schema, count })
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()))
  let rest = ""
  await new Promise<void>((ready) =>
    child.stdout?.on("data", (chunk) => {
      const lines = (rest + String(chunk)).split("\n")
      rest = lines.pop() ?? ""
      for (const line of lines) {
        const [offset, at] = line.split(" ").map(Number)
        if (offset === 0) ready()
        else taken.seen[offset!] = at!
      }
    })
  )
  await runtime.runPromise(appendAll(count, taken))
  await ended
  await runtime.dispose()
  return latency(subscriber, taken)
}

/** By offset. */
interface Times {
  readonly called: Array<number>
  readonly acknowledged: Array<number>
  readonly seen: Array<number>
}

const times = (): Times => ({ called: [], acknowledged: [], seen: [] })

const appendAll = (count: number, { acknowledged, called }: Times) =>
  Effect.forEach(
    Array.from({ length: count }, (_, turn) => turn),
    (turn) =>
      Effect.gen(function*() {
        const event = yield* Event.create({
          runId: "latency",
          turn,
          kind: "agent.spoke",
          actor: "ada",
          payload: { turn }
        })
        yield* Effect.sleep(pause)
        const before = now()
        const { offset } = yield* Ledger.append(event)
        called[offset] = before
        acknowledged[offset] = now()
      }),
    { discard: true }
  )

const latency = (subscriber: string, { acknowledged, called, seen }: Times): Latency => {
  const quantiles = (from: ReadonlyArray<number>): Quantiles => {
    // a subscriber may be told before the writer is
    const all = seen.flatMap((at, offset) => [Math.max(0, at - from[offset]!)]).sort((a, b) => a - b)
    const at = (part: number) => all[Math.floor(all.length * part)]!
    return { p50: at(0.5), p99: at(0.99) }
  }
  return { subscriber, fromCall: quantiles(called), fromAcknowledgement: quantiles(acknowledged) }
}

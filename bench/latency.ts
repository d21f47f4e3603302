/**
 * From an append to a subscriber, in this process and in another: milliseconds from the call and from its
 * acknowledgement, half of the events within p50 and 99 of 100 within p99. Events come one by one, with a pause between
 * them. `npx tsx bench/latency.ts [COUNT]`.
 */
import { Duration, Effect, type Layer, ManagedRuntime, Redacted, Stream } from "effect"
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Event, Ledger, LedgerConfig, MemoryLedger } from "../src/index.js"
import { startPostgres } from "../test/support/postgres.js"

/** Monotonic, and the same for all processes. */
const now = (): number => Number(process.hrtime.bigint()) / 1e6

const seenBy = (count: number, see: (offset: number, at: number) => void) =>
  Ledger.follow().pipe(
    Stream.takeUntil((one) => one._tag === "CaughtUp" && one.head >= count),
    Stream.runForEach((one) =>
      Effect.sync(() => {
        if (one._tag === "Recorded") see(one.event.offset, now())
        else if (one._tag === "CaughtUp") see(0, 0)
      })
    )
  )

const [first = "500", url] = process.argv.slice(2)
const count = Number(first)
const pause = Duration.millis(7)

if (url !== undefined) {
  // the other process
  await Effect.runPromise(
    seenBy(count, (offset, at) => void process.stdout.write(`${offset} ${at}\n`)).pipe(
      Effect.provide(LedgerConfig.layerUrl(Redacted.make(url)))
    )
  )
  process.exit(0)
}

interface Times {
  readonly called: Array<number>
  readonly acknowledged: Array<number>
  readonly seen: Array<number>
}

const appendAll = (times: Times) =>
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
        const called = now()
        const { offset } = yield* Ledger.append(event)
        times.called[offset] = called
        times.acknowledged[offset] = now()
      }),
    { discard: true }
  )

const quantile = (from: ReadonlyArray<number>, to: ReadonlyArray<number>, part: number): string => {
  const all = Array.from({ length: count }, (_, n) => Math.max(0, (to[n + 1] ?? NaN) - (from[n + 1] ?? NaN))).sort((
    a,
    b
  ) => a - b)
  return (all[Math.min(all.length - 1, Math.floor(all.length * part))] ?? NaN).toFixed(2)
}

const print = (name: string, { acknowledged, called, seen }: Times): void =>
  console.log(
    `| ${name} | ${quantile(called, seen, 0.5)} | ${quantile(called, seen, 0.99)} | ${
      quantile(acknowledged, seen, 0.5)
    } | ${quantile(acknowledged, seen, 0.99)} |`
  )

const times = (): Times => ({ called: [], acknowledged: [], seen: [] })

const within = async (name: string, layer: Layer.Layer<Ledger.Ledger, unknown>): Promise<void> => {
  const taken = times()
  await Effect.runPromise(
    Effect.gen(function*() {
      const ready = yield* Effect.makeLatch()
      const reading = yield* Effect.fork(
        seenBy(count, (offset, at) => offset === 0 ? ready.unsafeOpen() : taken.seen[offset] = at)
      )
      yield* ready.await
      yield* appendAll(taken)
      yield* reading
    }).pipe(Effect.provide(layer))
  )
  print(name, taken)
}

const across = async (name: string, url: string): Promise<void> => {
  const runtime: ManagedRuntime.ManagedRuntime<Ledger.Ledger, unknown> = ManagedRuntime.make(
    LedgerConfig.layerUrl(Redacted.make(url))
  )
  await runtime.runPromise(Ledger.latestOffset)
  const taken = times()
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1]!, first, url], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  let rest = ""
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()))
  await new Promise<void>((ready) =>
    child.stdout.on("data", (chunk) => {
      const lines = (rest + String(chunk)).split("\n")
      rest = lines.pop() ?? ""
      for (const line of lines) {
        const [offset, at] = line.split(" ").map(Number)
        if (offset === 0) ready()
        else taken.seen[offset!] = at!
      }
    })
  )
  await runtime.runPromise(appendAll(taken))
  await ended
  await runtime.dispose()
  print(name, taken)
}

const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-latency-"))
const file = (name: string) => Path.join(directory, name)
const server = await startPostgres()
console.log(
  "| subscriber | from the call, p50 | p99 | from its acknowledgement, p50 | p99 |\n|---|---:|---:|---:|---:|"
)
await within("memory, same process", MemoryLedger.layer)
await within("SQLite, same process", LedgerConfig.layerUrl(Redacted.make(file("within.db"))))
await across("SQLite, another process", file("across.db"))
await within("Postgres, same process", LedgerConfig.layerUrl(Redacted.make(server.url), { schema: "within" }))
await across("Postgres, another process", server.url)
await server.stop()
Fs.rmSync(directory, { recursive: true })

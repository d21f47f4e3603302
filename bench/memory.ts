/**
 * The memory that reading takes, in a process whose heap may not exceed 64 MiB: appends batches of 100,000 events (each one atomic append), then tails all of them, and
 * prints the resident set after every batch and its peak while reading. `npx tsx bench/memory.ts [sqlite|postgres] [batches]`
 */
import { DateTime, Effect, ManagedRuntime, Redacted, Stream } from "effect"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { type Event, Ledger } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { startPostgres } from "../test/support/postgres.js"

const [backend = "sqlite", batches = "10"] = process.argv.slice(2)
const reading = process.env["LEDGER_READ"]
const directory = reading === undefined ? Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-memory-")) : ""
const server = backend === "postgres" && reading === undefined ? await startPostgres() : undefined
const where = reading ?? server?.url ?? Path.join(directory, "a.db")
const layer = () => backend === "postgres" ? PgLedger.layerUrl(Redacted.make(where)) : SqliteLedger.layerFile(where)

const events = function*(from: number, count: number): Generator<Event.Event> {
  for (let n = from; n < from + count; n++) {
    yield {
      id: `event-${n}`,
      runId: `run-${n % 1000}`,
      turn: n % 50,
      kind: "agent.spoke",
      actor: `actor-${n % 7}`,
      payload: { text: `line ${n} `.padEnd(200, "lorem ipsum "), n },
      createdAt: DateTime.unsafeMake(1_760_000_000_000 + n),
      schemaVersion: 1,
      sessionId: null,
      modelProfile: null,
      modelId: null
    }
  }
}

const mebibytes = () => Math.round(process.memoryUsage.rss() / 2 ** 20)

// a child of its own for each reading, so that the memory of appending does not count
if (reading !== undefined) {
  const runtime = ManagedRuntime.make(layer())
  await runtime.runPromise(Ledger.latestOffset)
  const before = mebibytes()
  let peak = before
  let count = 0
  await runtime.runPromise(Stream.runForEachChunk(Ledger.tail(0), (chunk) =>
    Effect.sync(() => {
      count += chunk.length
      peak = Math.max(peak, mebibytes())
    })))
  console.log(`${count.toLocaleString("en")} events read: ${before} MiB at the start, ${peak} MiB at the peak`)
  await runtime.dispose()
} else {
  for (let batch = 0; batch < Number(batches); batch++) {
    const runtime = ManagedRuntime.make(layer())
    const started = performance.now()
    const receipts = await runtime.runPromise(Ledger.appendAll(events(batch * 100_000, 100_000)))
    console.log(
      `100,000 events in one append: offsets ${receipts[0]?.offset} to ${receipts.at(-1)?.offset}, ` +
        `${Math.round(performance.now() - started)} ms, ${mebibytes()} MiB`
    )
    await runtime.dispose()
    if (batch === 0 || batch === Number(batches) - 1) {
      spawnSync(process.execPath, ["--max-old-space-size=64", "--import", "tsx", ...process.argv.slice(1)], {
        stdio: "inherit",
        env: { ...process.env, LEDGER_READ: where }
      })
    }
  }
  await server?.stop()
  Fs.rmSync(directory, { recursive: true, force: true })
}

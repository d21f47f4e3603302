/**
 * Taking a ledger elsewhere: snapshots, an export, an import, the same import again, and verification, each in a process
 * of its own whose heap may not exceed 96 MiB. Prints what each answered, its time, and its greatest resident set.
 * `npx tsx bench/carry.ts [COUNT]`, one million events unless told.
 */
import { DateTime, Effect, Redacted } from "effect"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { type Event, Ledger, LedgerConfig, type LedgerStore, Snapshot, Trace, Verify } from "../src/index.js"
import { startPostgres } from "../test/support/postgres.js"

const [first = "1000000"] = process.argv.slice(2)
const count = Number(first)

const event = (n: number): Event.Event => ({
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
})

const fill = Effect.forEach(
  Array.from({ length: Math.ceil(count / 1000) }, (_, batch) => batch * 1000),
  (from) => Ledger.appendAll(Array.from({ length: Math.min(1000, count - from) }, (_, n) => event(from + n))),
  { discard: true }
)

interface Step {
  readonly step: "fill" | "snapshot" | "export" | "import" | "verify"
  readonly url: string
  readonly to: string
}

const answer = ({ step, to }: Step): Effect.Effect<unknown, unknown, Ledger.Ledger | LedgerStore.LedgerStore> => {
  switch (step) {
    case "fill":
      return Effect.zipRight(fill, Ledger.latestOffset)
    case "snapshot":
      return Snapshot.to(to)
    case "export":
      return Trace.toFile(to)
    case "import":
      return Trace.fromFile(to)
    case "verify":
      return Verify.run()
  }
}

const given = process.env["LEDGER_STEP"]
if (given !== undefined) {
  const step = JSON.parse(given) as Step
  const result = await Effect.runPromise(
    Effect.provide(answer(step), LedgerConfig.layerUrl(Redacted.make(step.url)))
  )
  console.log(JSON.stringify(result))
  console.log(Math.round(process.resourceUsage().maxRSS / 1024))
  process.exit(0)
}

const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-carry-"))
const file = (name: string) => Path.join(directory, name)
const server = await startPostgres()

const run = (name: string, step: Step): void => {
  const started = performance.now()
  const { status, stdout } = spawnSync(
    process.execPath,
    ["--max-old-space-size=96", "--import", "tsx", process.argv[1]!, first],
    {
      stdio: ["ignore", "pipe", "inherit"],
      encoding: "utf8",
      env: { ...process.env, LEDGER_STEP: JSON.stringify(step) }
    }
  )
  const [result = "", peak = ""] = stdout.trim().split("\n")
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  console.log(
    `${name}: ${status === 0 ? "" : `ended with ${status}; `}${seconds} s, ${peak} MiB\n  ${result.slice(0, 330)}`
  )
}

run("append", { step: "fill", url: file("a.db"), to: "" })
run("snapshot, SQLite to SQLite", { step: "snapshot", url: file("a.db"), to: file("copy.db") })
run("snapshot, SQLite to Postgres", { step: "snapshot", url: file("a.db"), to: server.url })
run("snapshot, Postgres to SQLite", { step: "snapshot", url: server.url, to: file("back.db") })
run("export", { step: "export", url: file("a.db"), to: file("a.jsonl.gz") })
run("import", { step: "import", url: file("imported.db"), to: file("a.jsonl.gz") })
run("import again", { step: "import", url: file("imported.db"), to: file("a.jsonl.gz") })
for (const name of ["a", "copy", "back", "imported"]) {
  run(`verify ${name}`, { step: "verify", url: file(`${name}.db`), to: "" })
}
await server.stop()
Fs.rmSync(directory, { recursive: true })

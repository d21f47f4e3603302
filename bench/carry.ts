/**
 * Taking a ledger elsewhere: snapshots, an export, an import, the same import again, an import that is killed in the middle
 * and repeated, and verification, each in a process of its own whose heap may not exceed 96 MiB. Prints how long each took
 * and its greatest resident set, and ends with exit code 1 unless all digests are those of the source, and each import
 * wrote what was missing and nothing else.
 * `npx tsx bench/carry.ts [COUNT …]`, with 100,000 events and with a million unless told.
 */
import { DateTime, Effect, Redacted } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { type Event, Ledger, LedgerConfig, type LedgerStore, Snapshot, Trace, Verify } from "../src/index.js"
import { startPostgres } from "../test/support/postgres.js"

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

const fill = (count: number) =>
  Effect.forEach(
    Array.from({ length: Math.ceil(count / 1000) }, (_, batch) => batch * 1000),
    (from) => Ledger.appendAll(Array.from({ length: Math.min(1000, count - from) }, (_, n) => event(from + n))),
    { discard: true }
  )

interface Step {
  readonly step: "fill" | "snapshot" | "export" | "import" | "verify"
  readonly url: string
  readonly schema?: string
  readonly to?: string
  readonly toSchema?: string
  readonly count?: number
  /** Says so when that many events are imported. */
  readonly tellAt?: number
}

interface Answer {
  readonly digest?: string
  readonly appended?: number
  readonly duplicates?: number
  readonly count?: number
}

const answer = (
  { count = 0, step, tellAt = Infinity, to = "", toSchema }: Step
): Effect.Effect<Answer, unknown, Ledger.Ledger | LedgerStore.LedgerStore> => {
  switch (step) {
    case "fill":
      return Effect.zipRight(fill(count), Effect.map(Ledger.latestOffset, (count) => ({ count })))
    case "snapshot":
      return Snapshot.to(to, { schema: toSchema })
    case "export":
      return Trace.toFile(to)
    case "import": {
      let told = false
      return Trace.fromFile(to, {
        onProgress: ({ appended }) =>
          Effect.sync(() => {
            if (told || appended < tellAt) return
            told = true
            process.stdout.write("there\n")
          })
      })
    }
    case "verify":
      return Verify.run()
  }
}

const given = process.env["LEDGER_STEP"]
if (given !== undefined) {
  const step = JSON.parse(given) as Step
  const result = await Effect.runPromise(
    Effect.provide(answer(step), LedgerConfig.layerUrl(Redacted.make(step.url), { schema: step.schema }))
  )
  console.log(JSON.stringify(result))
  console.log(Math.round(process.resourceUsage().maxRSS / 1024))
  process.exit(0)
}

const counts = process.argv.slice(2).map(Number)
const server = await startPostgres()
const rows = new Map<string, Array<string>>()
const wrong: Array<string> = []

const start = (step: Step) =>
  spawn(process.execPath, ["--max-old-space-size=96", "--import", "tsx", process.argv[1]!], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, LEDGER_STEP: JSON.stringify(step) }
  })

const carry = async (count: number): Promise<void> => {
  const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-carry-"))
  const file = (name: string) => Path.join(directory, name)
  const expected = (what: string, found: unknown, value: unknown): void => {
    if (found !== value) wrong.push(`${count}: ${what} is ${found}, and not ${value}`)
  }

  const run = async (name: string, step: Step): Promise<Answer> => {
    const started = performance.now()
    const child = start(step)
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text) => output += text)
    const [code] = await once(child, "close")
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    const [result = "{}", peak = "?"] = output.trim().split("\n").slice(-2)
    expected(`the exit code of ${name}`, code, 0)
    console.log(`${count}, ${name}: ${seconds} s, ${peak} MiB\n  ${result.slice(0, 330)}`)
    rows.set(name, [...rows.get(name) ?? [], `${seconds} s, ${peak} MiB`])
    return code === 0 ? JSON.parse(result) : {}
  }

  try {
    const [source, trace, schema] = [file("a.db"), file("a.jsonl.gz"), `carry_${count}`]
    await run("append", { step: "fill", url: source, count })
    const { digest } = await run("verify", { step: "verify", url: source })
    const copies: ReadonlyArray<readonly [string, Step]> = [
      ["snapshot, SQLite to SQLite", { step: "snapshot", url: source, to: file("copy.db") }],
      ["snapshot, SQLite to Postgres", { step: "snapshot", url: source, to: server.url, toSchema: schema }],
      ["verify in Postgres", { step: "verify", url: server.url, schema }],
      ["snapshot, Postgres to SQLite", { step: "snapshot", url: server.url, schema, to: file("back.db") }]
    ]
    for (const [name, step] of copies) expected(`the digest of ${name}`, (await run(name, step)).digest, digest)
    expected("the export", (await run("export", { step: "export", url: source, to: trace })).count, count)

    const imported = { step: "import", url: file("imported.db"), to: trace } as const
    expected("appended", (await run("import", imported)).appended, count)
    const again = await run("import again", imported)
    expected("appended again", again.appended, 0)
    expected("the duplicates", again.duplicates, count)

    const cut = { ...imported, url: file("cut.db") }
    const child = start({ ...cut, tellAt: count / 2 })
    const ended = once(child, "exit")
    child.stdout.once("data", () => child.kill("SIGKILL"))
    expected("how the import ended", (await ended)[1], "SIGKILL")
    const { appended = 0, duplicates = 0 } = await run("import, once killed in the middle", cut)
    expected("killed and repeated, all", appended + duplicates, count)
    // of what had been written before, and what had not
    expected("killed in the middle", duplicates >= count / 2 && appended > 0, true)

    for (const name of ["copy", "back", "imported", "cut"]) {
      expected(
        `the digest of ${name}.db`,
        (await run(`verify ${name}`, { step: "verify", url: file(`${name}.db`) })).digest,
        digest
      )
    }
  } finally {
    Fs.rmSync(directory, { recursive: true })
  }
}

try {
  for (const count of counts.length === 0 ? [100_000, 1_000_000] : counts) await carry(count)
} finally {
  await server.stop()
}
for (const [name, cells] of rows) console.log(`| ${[name, ...cells].join(" | ")} |`)
for (const what of wrong) console.error(what)
console.log(wrong.length === 0 ? "all digests are those of the source" : `${wrong.length} wrong`)
process.exitCode = wrong.length === 0 ? 0 : 1

/**
 * `npm run bench`: this library beside the bare driver, and what it costs to be large. Writes `bench/results.md`,
 * `bench/results.json` and `bench/results.svg`. See docs/performance.md for the options.
 */
import { type Layer, Redacted } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { Client } from "pg"
import { type Ledger, MemoryLedger } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { startPostgres } from "../test/support/postgres.js"
import * as bare from "./bare.js"
import { asking, type Large, manyRuns, type Memory, opening, type Question, reading, reads } from "./large.js"
import { latencies, type Latency } from "./latency.js"
import { describe } from "./machine.js"
import { ours } from "./ours.js"
import { markdown, rateLine, type Results } from "./report.js"
import { fillPostgres, fillSqlite } from "./scale.js"
import type { Backend, Side } from "./side.js"
import { measure, type Rate, workloads } from "./workloads.js"

const { values: args } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    scale: { type: "string", default: "1" },
    events: { type: "string", default: "10000000" },
    backend: { type: "string" },
    only: { type: "string" },
    out: { type: "string" },
    peers: { type: "boolean", default: false }
  }
})
const rounds = Number(args.rounds)
const only = args.only?.split(",")
const wanted = (workload: string) => only === undefined || only.some((prefix) => workload.startsWith(prefix))
const onBackend = (name: string) => args.backend === undefined || name.toLowerCase().includes(args.backend)
const isWhole = only === undefined && args.backend === undefined

const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-bench-"))
// also where it fails or is ended: what is in there is large
process.on("exit", () => Fs.rmSync(directory, { recursive: true, force: true }))
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1))
const server = onBackend("postgres") ? await startPostgres() : undefined
const file = (name: string) => Path.join(directory, name)
const postgres = (url: string, schema: string) => PgLedger.layerUrl(Redacted.make(url), { schema })

const peers = args.peers ? await import("./peers.js") : undefined
const peerVersions = peers?.install()

let stores = 0

const made = async (layer: Layer.Layer<Ledger.Ledger, unknown>) => {
  const open = ours(layer)
  await open.latestOffset()
  return open
}

const sqliteBackend = (name: string, durability: "full" | "relaxed", others: ReadonlyArray<Side> = []): Backend => {
  const fresh = (open: (path: string) => ReturnType<Side["fresh"]>) => async () => {
    const path = file(`${++stores}.db`)
    const store = await open(path)
    return {
      ...store,
      close: async () => {
        await store.close()
        for (const suffix of ["", "-wal", "-shm"]) Fs.rmSync(path + suffix, { force: true })
      }
    }
  }
  const layer = (path: string) => SqliteLedger.layerFile(path, { durability })
  return {
    name,
    sides: [
      { name: "ours", fresh: fresh((path) => made(layer(path))) },
      {
        name: "driver",
        fresh: fresh(async (path) => {
          await (await made(layer(path))).close()
          return bare.sqlite(path, durability)
        })
      },
      ...others
    ]
  }
}

const postgresBackend = (url: string): Backend => {
  const fresh = (open: (schema: string) => ReturnType<Side["fresh"]>) => async () => {
    const schema = `bench_${++stores}`
    const store = await open(schema)
    return {
      ...store,
      close: async () => {
        await store.close()
        const client = new Client({ connectionString: url })
        await client.connect()
        await client.query(`DROP SCHEMA ${schema} CASCADE`)
        await client.end()
      }
    }
  }
  return {
    name: "Postgres",
    sides: [
      { name: "ours", fresh: fresh((schema) => made(postgres(url, schema))) },
      {
        name: "driver",
        fresh: fresh(async (schema) => {
          await (await made(postgres(url, schema))).close()
          return bare.postgres(url, schema)
        })
      },
      ...peers?.onPostgres(url) ?? []
    ]
  }
}

/** Ledgers of different sizes on one backend, filled one after the other. */
const large = async (
  backend: string,
  sizes: ReadonlyArray<number>,
  open: (events: number) => Omit<Large, "events"> & { readonly fill: (from: number, through: number) => unknown }
): Promise<{ readonly memory: ReadonlyArray<Memory>; readonly questions: ReadonlyArray<Question> }> => {
  const filled = []
  for (const events of sizes) {
    const ledger = { ...open(events), events }
    await (await made(ledger.layer)).close()
    const started = performance.now()
    await ledger.fill(1, events)
    console.log(`${backend}: ${events} events made in ${((performance.now() - started) / 1000).toFixed(0)} s`)
    filled.push(ledger)
  }
  const memory = wanted("W4") ? await reading(backend, filled.slice(0, 2), Math.min(3, rounds)) : []
  if (!wanted("W6")) return { memory, questions: [] }
  const ends = [filled[0]!, filled[filled.length - 1]!]
  const questions = [
    ...await opening(backend, ends, rounds * 2),
    ...await asking(backend, ends, reads(), rounds * 2)
  ]
  const more = 20_000
  for (const { events, fill } of ends) await fill(events + 1, events + more)
  return { memory, questions: [...questions, ...await asking(backend, ends, manyRuns(more), rounds)] }
}

const results: {
  -readonly [key in keyof Results]: Results[key] extends ReadonlyArray<infer A> ? Array<A> : Results[key]
} = {
  date: new Date().toISOString().slice(0, 16),
  command: ["npm run bench", ...process.argv.length > 2 ? ["--"] : [], ...process.argv.slice(2)].join(" "),
  rounds,
  scale: Number(args.scale),
  machine: await describe(directory, server?.url, peerVersions),
  rates: [] as Array<Rate>,
  memory: [] as Array<Memory>,
  questions: [] as Array<Question>,
  latencies: [] as Array<Latency>
}

const backends: ReadonlyArray<Backend> = [
  sqliteBackend("SQLite FULL", "full", peers?.onSqliteFull(file)),
  sqliteBackend("SQLite NORMAL", "relaxed", peers?.onSqliteNormal(file)),
  ...server === undefined ? [] : [postgresBackend(server.url)],
  { name: "memory", sides: [{ name: "ours", fresh: () => made(MemoryLedger.layer) }] }
].filter(({ name }) => onBackend(name))

for (const backend of backends) {
  for (const [name, workload] of Object.entries(workloads(results.scale))) {
    if (!wanted(name)) continue
    const rate = await measure(backend, name, workload, rounds)
    results.rates.push(rate)
    console.log(rateLine(rate))
  }
}

if (wanted("W4") || wanted("W6")) {
  const sizes = [...new Set([100_000, 1_000_000, ...wanted("W6") ? [Number(args.events)] : []])]
  const taken = [
    ...onBackend("sqlite")
      ? [
        await large("SQLite", sizes, (events) => {
          const url = file(`large-${events}.db`)
          return {
            layer: SqliteLedger.layerFile(url),
            at: { url },
            fill: (from, through) => fillSqlite(url, from, through, events)
          }
        })
      ]
      : [],
    ...server === undefined ? [] : [
      await large("Postgres", sizes, (events) => {
        const schema = `large_${events}`
        const { url } = server
        return {
          layer: postgres(url, schema),
          at: { url, schema },
          fill: (from, through) => fillPostgres(url, schema, from, through, events)
        }
      })
    ]
  ]
  results.memory.push(...taken.flatMap(({ memory }) => memory))
  results.questions.push(...taken.flatMap(({ questions }) => questions))
}
if (wanted("W8")) {
  results.latencies.push(...await latencies(Math.max(20, Math.round(500 * results.scale)), file, server?.url))
}

await server?.stop()

const text = markdown(results)
if (!isWhole) console.log(`\n${text}`)
const out = args.out ?? (isWhole ? fileURLToPath(new URL(".", import.meta.url)) : undefined)
if (out !== undefined) {
  Fs.mkdirSync(out, { recursive: true })
  Fs.writeFileSync(Path.join(out, "results.json"), `${JSON.stringify(results, rounded, 2)}\n`)
  Fs.writeFileSync(Path.join(out, "results.md"), text)
  const { plot } = await import("./plot.js")
  Fs.writeFileSync(Path.join(out, "results.svg"), await plot(results))
}

function rounded(_: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value
}

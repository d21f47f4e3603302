/**
 * Ours beside the bare driver: the same table with its indices and triggers, the same payloads and durability, in turn
 * within one run; figures are medians over the rounds, with the ratio of each round's pair. `npm run bench`, with
 * `-- --rounds N`, `-- --only W1,W4`, `-- --backend sqlite`.
 */
import Sqlite from "better-sqlite3"
import { DateTime, Effect, ManagedRuntime, Redacted, Stream } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { parseArgs } from "node:util"
import { Pool } from "pg"
import type { Event } from "../src/index.js"
import { Ledger, MemoryLedger } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { startPostgres } from "../test/support/postgres.js"

const { values: args } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    only: { type: "string" },
    backend: { type: "string" },
    scale: { type: "string", default: "1" }
  }
})
const rounds = Number(args.rounds)
const scale = Number(args.scale)
const only = args.only?.split(",")
const sized = (count: number) => Math.max(10, Math.round(count * scale))

const singles = sized(5000)
const concurrent = sized(20_000)
const batches = sized(100)
const reads = sized(100_000)
const runReads = sized(1000)

type Runtime = ManagedRuntime.ManagedRuntime<Ledger.Ledger, unknown>

/** The driver by hand: what a program without this library would write. */
interface Bare {
  /** One transaction an event. */
  readonly single: (event: Event.Event, offset: number) => void | Promise<void>
  readonly concurrent: (events: ReadonlyArray<Event.Event>, offset: number) => Promise<void>
  readonly batch: (events: ReadonlyArray<Event.Event>, offset: number) => void | Promise<void>
  readonly again: (events: ReadonlyArray<Event.Event>) => void | Promise<void>
  readonly scan: () => number | Promise<number>
  readonly run: (runId: string) => number | Promise<number>
}

interface Backend {
  readonly name: string
  /** Two empty ledgers, one for each side. */
  readonly fresh: () => Promise<{ readonly runtime: Runtime; readonly bare: Bare; readonly close: () => Promise<void> }>
}

let made = 0
const make = (count: number, runs = 100): Array<Event.Event> =>
  Array.from({ length: count }, () => {
    const n = ++made
    return {
      id: `0190${(n * 2654435761 % 2 ** 32).toString(16).padStart(8, "0")}-${n}`,
      runId: `run-${n % runs}`,
      turn: n % 50,
      kind: n % 3 === 0 ? "agent.spoke" : "model.replied",
      actor: `actor-${n % 7}`,
      payload: {
        text: `line ${n} `.padEnd(180, "lorem ipsum "),
        tokens: n % 900,
        cost: n / 1000,
        tools: ["search", "read"]
      },
      createdAt: DateTime.unsafeMake(1_760_000_000_000 + n),
      schemaVersion: 1,
      sessionId: null,
      modelProfile: "fast",
      modelId: `model-${n % 3}`
    }
  })

const chunks = <A>(all: ReadonlyArray<A>, size: number): Array<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(all.length / size) }, (_, index) => all.slice(index * size, (index + 1) * size))

const columns =
  `"offset", id, run_id, turn, kind, actor, payload, created_at, schema_version, session_id, model_profile, model_id, digest`
const zeros = Buffer.alloc(32)
const rowOf = (event: Event.Event, offset: number): Array<unknown> => [
  offset,
  event.id,
  event.runId,
  event.turn,
  event.kind,
  event.actor,
  JSON.stringify(event.payload),
  event.createdAt.epochMillis,
  event.schemaVersion,
  event.sessionId,
  event.modelProfile,
  event.modelId,
  zeros
]

interface BareRow {
  readonly payload: string
  readonly created_at: number | string
}
const decoded = (row: BareRow) => ({
  ...row,
  payload: JSON.parse(row.payload) as unknown,
  created_at: new Date(Number(row.created_at))
})

const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-bench-"))

const sqlite = (durability: "full" | "relaxed"): Backend => ({
  name: `SQLite ${durability === "full" ? "FULL" : "NORMAL"}`,
  fresh: async () => {
    const open = async (file: string) => {
      const runtime = ManagedRuntime.make(SqliteLedger.layerFile(file, { durability }))
      await runtime.runPromise(Ledger.latestOffset)
      return runtime
    }
    const file = Path.join(directory, `${++made}`)
    const runtime = await open(`${file}-ours.db`)
    await (await open(`${file}-bare.db`)).dispose()
    const db = new Sqlite(`${file}-bare.db`)
    db.pragma(`synchronous = ${durability === "full" ? "FULL" : "NORMAL"}`)
    const insert = db.prepare(`INSERT INTO ledger_events (${columns}) VALUES (${"?, ".repeat(12)}?)`)
    const known = db.prepare<[string], { readonly offset: number }>(`SELECT "offset" FROM ledger_events WHERE id = ?`)
    const all = db.prepare<[], BareRow>(`SELECT ${columns} FROM ledger_events ORDER BY "offset"`)
    const run = db.prepare<[string], BareRow>(`SELECT ${columns} FROM ledger_events WHERE run_id = ? ORDER BY "offset"`)
    const batch = db.transaction((events: ReadonlyArray<Event.Event>, offset: number) => {
      events.forEach((event, index) => insert.run(rowOf(event, offset + index)))
    })
    const again = db.transaction((events: ReadonlyArray<Event.Event>) => {
      for (const event of events) known.get(event.id)
    })
    return {
      runtime,
      bare: {
        single: (event, offset) => void insert.run(rowOf(event, offset)),
        concurrent: async (events, offset) =>
          events.forEach((event, index) => insert.run(rowOf(event, offset + index))),
        batch,
        again: (events) => again.immediate(events),
        scan: () => {
          let count = 0
          for (const row of all.iterate()) if (decoded(row).payload !== null) count++
          return count
        },
        run: (runId) => run.all(runId).map(decoded).length
      },
      close: async () => {
        await runtime.dispose()
        db.close()
        for (const side of ["ours", "bare"]) {
          for (const suffix of ["", "-wal", "-shm"]) Fs.rmSync(`${file}-${side}.db${suffix}`, { force: true })
        }
      }
    }
  }
})

const postgres = (url: string): Backend => ({
  name: "Postgres",
  fresh: async () => {
    const open = async (schema: string) => {
      const runtime = ManagedRuntime.make(PgLedger.layerUrl(Redacted.make(url), { schema }))
      await runtime.runPromise(Ledger.latestOffset)
      return runtime
    }
    const schema = `bench_${++made}`
    const runtime = await open(`${schema}_ours`)
    await (await open(`${schema}_bare`)).dispose()
    const table = `${schema}_bare.ledger_events`
    const pool = new Pool({ connectionString: url, max: 10 })
    const client = await pool.connect()
    const placeholders = (count: number) =>
      Array.from(
        { length: count },
        (_, row) => `(${Array.from({ length: 13 }, (_, n) => `$${row * 13 + n + 1}`).join(",")})`
      )
        .join(",")
    const insert = (count: number) => `INSERT INTO ${table} (${columns}) VALUES ${placeholders(count)}`
    const one = insert(1)
    const many = insert(1000)
    const page = `SELECT ${columns} FROM ${table} WHERE "offset" > $1 ORDER BY "offset" LIMIT 1000`
    return {
      runtime,
      bare: {
        single: async (event, offset) => void await client.query(one, rowOf(event, offset)),
        concurrent: async (events, offset) => {
          await Promise.all(events.map((event, index) => pool.query(one, rowOf(event, offset + index))))
        },
        batch: async (events, offset) => {
          await client.query("BEGIN")
          await client.query(many, events.flatMap((event, index) => rowOf(event, offset + index)))
          await client.query("COMMIT")
        },
        again: async (events) => {
          await client.query(
            `INSERT INTO ${table} (${columns}) VALUES ${placeholders(events.length)} ON CONFLICT DO NOTHING`,
            events.flatMap((event, index) => rowOf(event, 1_000_000_000 + index))
          )
        },
        scan: async () => {
          let count = 0
          for (let after = 0;;) {
            const { rows } = await client.query<BareRow & { readonly offset: string }>(page, [after])
            if (rows.length === 0) return count
            count += rows.map(decoded).length
            after = Number(rows[rows.length - 1]?.offset)
          }
        },
        run: async (runId) =>
          (await client.query<BareRow>(`SELECT ${columns} FROM ${table} WHERE run_id = $1 ORDER BY "offset"`, [runId]))
            .rows
            .map(decoded).length
      },
      close: async () => {
        await runtime.dispose()
        await pool.query(`DROP SCHEMA ${schema}_ours CASCADE; DROP SCHEMA ${schema}_bare CASCADE`)
        client.release()
        await pool.end()
      }
    }
  }
})

/** Milliseconds. */
const clock = async (body: () => unknown): Promise<number> => {
  const started = performance.now()
  await body()
  return performance.now() - started
}

interface Pair {
  readonly ours: number
  readonly bare: number
  /** What one unit of the workload is, to turn times into rates. */
  readonly units: number
}

type Workload = (side: Awaited<ReturnType<Backend["fresh"]>>, order: boolean) => Promise<Pair>

const both = async (
  order: boolean,
  units: number,
  ours: () => Promise<unknown>,
  bare: () => unknown
): Promise<Pair> => {
  if (order) {
    const first = await clock(ours)
    return { ours: first, bare: await clock(bare), units }
  }
  const first = await clock(bare)
  return { ours: await clock(ours), bare: first, units }
}

const appendAll = (runtime: Runtime, events: ReadonlyArray<Event.Event>) => runtime.runPromise(Ledger.appendAll(events))

const fill = async ({ bare, runtime }: Awaited<ReturnType<Backend["fresh"]>>, count: number, runs: number) => {
  const events = make(count, runs)
  let offset = 1
  for (const chunk of chunks(events, 1000)) {
    await appendAll(runtime, chunk)
    await bare.batch(chunk, offset)
    offset += chunk.length
  }
  return events
}

const sequential = (runtime: Runtime, events: ReadonlyArray<Event.Event>) =>
  runtime.runPromise(
    Effect.flatMap(Ledger.Ledger, (ledger) => Effect.forEach(events, ledger.append, { discard: true }))
  )

const together = (fibers: number): Workload => (side, order) => {
  const events = make(concurrent)
  return both(
    order,
    concurrent,
    () =>
      side.runtime.runPromise(
        Effect.flatMap(Ledger.Ledger, (ledger) =>
          Effect.forEach(events, ledger.append, { discard: true, concurrency: fibers }))
      ),
    () => side.bare.concurrent(events, 1)
  )
}

const workloads: Record<string, Workload> = {
  "W1 single appends": ({ bare, runtime }, order) => {
    const events = make(singles)
    return both(order, singles, () => sequential(runtime, events), async () => {
      let offset = 1
      for (const event of events) await bare.single(event, offset++)
    })
  },
  "W2 64 fibers": together(64),
  "W2 256 fibers": together(256),
  "W3 batches of 1,000": ({ bare, runtime }, order) => {
    const events = chunks(make(batches * 1000), 1000)
    return both(order, batches * 1000, async () => {
      for (const batch of events) await appendAll(runtime, batch)
    }, async () => {
      for (const [index, batch] of events.entries()) await bare.batch(batch, index * 1000 + 1)
    })
  },
  "W4 read all": async (side, order) => {
    await fill(side, Math.ceil(reads / 1000) * 1000, 1000)
    return both(
      order,
      reads,
      () => side.runtime.runPromise(Stream.runForEachChunk(Ledger.tail(0), () => Effect.void)),
      () => side.bare.scan()
    )
  },
  "W5 read a run of 100": async (side, order) => {
    await fill(side, 100_000, 1000)
    return both(order, runReads * 100, async () => {
      for (let n = 0; n < runReads; n++) await side.runtime.runPromise(Ledger.eventsForRun(`run-${n % 1000}`))
    }, async () => {
      for (let n = 0; n < runReads; n++) await side.bare.run(`run-${n % 1000}`)
    })
  },
  "W7 known ids, batches": async (side, order) => {
    const events = chunks(await fill(side, sized(20_000), 100), 1000)
    return both(order, sized(20_000), async () => {
      for (const batch of events) await appendAll(side.runtime, batch)
    }, async () => {
      for (const batch of events) await side.bare.again(batch)
    })
  },
  "W7 known ids, single": async (side, order) => {
    const events = (await fill(side, sized(20_000), 100)).slice(0, singles)
    return both(order, singles, () => sequential(side.runtime, events), async () => {
      for (const event of events) await side.bare.again([event])
    })
  }
}

const sorted = (values: ReadonlyArray<number>) => values.toSorted((a, b) => a - b)
const median = (values: ReadonlyArray<number>) => sorted(values)[values.length >> 1] ?? Number.NaN
const round = (value: number) => Math.round(value).toLocaleString("en")

const server = args.backend === "sqlite" ? undefined : await startPostgres()
const backends = [sqlite("full"), sqlite("relaxed"), ...server === undefined ? [] : [postgres(server.url)]].filter((
  backend
) => args.backend === undefined || backend.name.toLowerCase().includes(args.backend))

const lines = [
  "| backend | workload | ours, events/s | bare driver, events/s | ratio (min–max) |",
  "|---|---|---:|---:|---|"
]
console.log(lines.join("\n"))
for (const backend of backends) {
  for (const [name, workload] of Object.entries(workloads)) {
    if (only !== undefined && !only.some((prefix) => name.startsWith(prefix))) continue
    const pairs: Array<Pair> = []
    for (let n = 0; n < rounds; n++) {
      const side = await backend.fresh()
      pairs.push(await workload(side, n % 2 === 0))
      await side.close()
    }
    const ratios = sorted(pairs.map(({ bare, ours }) => bare / ours))
    const rate = (key: "ours" | "bare") => round(median(pairs.map((pair) => pair.units / pair[key] * 1000)))
    const line = `| ${backend.name} | ${name} | ${rate("ours")} | ${rate("bare")} | ${median(ratios).toFixed(2)} (${
      ratios[0]?.toFixed(2)
    }–${ratios.at(-1)?.toFixed(2)}) |`
    lines.push(line)
    console.log(line)
  }
}

if (args.backend === undefined && only === undefined) {
  const memory = ManagedRuntime.make(MemoryLedger.layer)
  const events = chunks(make(sized(100_000)), 1000)
  const write = await clock(async () => {
    for (const batch of events) await appendAll(memory, batch)
  })
  const read = await clock(() => memory.runPromise(Ledger.events))
  const line = `| memory | appends in batches of 1,000; reads | ${round(sized(100_000) / write * 1000)}; ${
    round(sized(100_000) / read * 1000)
  } | | |`
  console.log(line)
  await memory.dispose()
}
Fs.rmSync(directory, { recursive: true, force: true })
await server?.stop()

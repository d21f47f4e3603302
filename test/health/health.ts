/** Watches a process under load: whether anything of it, or of its database, grows that should not. */
import Sqlite from "better-sqlite3"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { Client } from "pg"
import { startPostgres } from "../support/postgres.js"
import { startScript } from "../support/processes.js"
import type { Config, End, Sample, State } from "./load.js"
import * as Times from "./times.js"

export interface Settings {
  readonly backend: "sqlite" | "postgres"
  readonly seconds: number
  readonly progress?: ((line: string) => void) | undefined
}

/** What was seen at one moment. */
export interface Look extends Sample {
  /** Seconds since the beginning. */
  readonly at: number
  readonly phase: Phase
  /** Connections of others to the server; none, of a file. */
  readonly connections: number
  /** Bytes of the write-ahead log: of the file beside SQLite's, of the server's folder. */
  readonly wal: number
  /** Bytes of the tables of consumers and projections, which are written again and again, with their indices. */
  readonly kept: number
}

/** `during`: while a snapshot is open that was taken at its beginning. */
export type Phase = "warm-up" | "before" | "during" | "after"

export interface Report {
  readonly backend: string
  readonly seconds: number
  readonly events: number
  /** Of each kind of call. */
  readonly calls: Readonly<Record<string, number>>
  /** Before the ledger was opened, at most, and after it was closed. */
  readonly handles: Extent
  readonly connections: Extent
  /** Bytes: at the end of the warm-up, and at the end. */
  readonly heap: { readonly warm: number; readonly end: number }
  /** Bytes, at most. */
  readonly wal: Readonly<Record<Phase, number>> & { readonly closed: number }
  readonly kept: Readonly<Record<Phase, number>>
  /** Median and 99th percentile in milliseconds of each kind of call: the median of those of the looks of a phase. */
  readonly took: Readonly<Record<string, Readonly<Record<Phase, readonly [median: number, p99: number]>>>>
  readonly looks: ReadonlyArray<Look>
  /** What is not as it should be. */
  readonly problems: ReadonlyArray<string>
}

export interface Extent {
  readonly start: number
  readonly most: number
  readonly end: number
}

/** By how much the heap may grow after the warm-up. */
export const heapBound = 8 * 2 ** 20

export const watch = async ({ backend, progress = () => {}, seconds }: Settings): Promise<Report> => {
  const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-health-"))
  const database = backend === "sqlite" ? sqliteDatabase(folder) : await postgresDatabase()
  try {
    const before = await database.look()
    const child = await startScript("../health/load.ts", [], {}, ["--expose-gc"])
    let errors = ""
    child.stderr?.on("data", (chunk) => {
      errors = (errors + String(chunk)).slice(-10_000)
    })
    const lines = createInterface(child.stdout!)[Symbol.asyncIterator]()
    const next = async <A>(): Promise<A> => {
      const { done, value } = await Promise.race([
        lines.next(),
        sleep(60_000, { done: true, value: "" } as const, { ref: false })
      ])
      if (done === true) throw new Error(`the process under load is silent\n${errors}`)
      return JSON.parse(value)
    }
    try {
      const config: Config = { url: database.url }
      child.stdin?.write(`${JSON.stringify(config)}\n`)
      const start = await next<State>()
      await next<"ready">()
      const begun = Date.now()
      const looks: Array<Look> = []
      const windows = Math.max(10, Math.min(60, Math.floor(seconds / 10)))
      const times = Times.make()
      const load = { isOver: false }
      const probing = (async () => {
        while (!load.isOver) {
          for (const [what, call] of Object.entries(database.probes)) {
            const begun = performance.now()
            await call()
            times.note(what, performance.now() - begun)
          }
          await sleep(100)
        }
      })()
      // it is heard of at the end
      probing.catch(() => {})
      let closeSnapshot: (() => Promise<void>) | undefined
      progress(header)
      for (let window = 1; window <= windows; window++) {
        const share = (window - 1) / windows
        const phase = share < 0.2 ? "warm-up" : share < 0.4 ? "before" : share < 0.7 ? "during" : "after"
        if (phase === "during") closeSnapshot ??= await database.openSnapshot()
        if (phase === "after") await closeSnapshot?.()
        await sleep(Math.max(0, begun + window * seconds * 1000 / windows - Date.now()))
        child.stdin?.write("sample\n")
        const sample = await next<Sample>()
        const look: Look = {
          ...sample,
          ...await database.look(),
          took: { ...sample.took, ...times.take() },
          at: (Date.now() - begun) / 1000,
          phase
        }
        looks.push(look)
        progress(line(look))
      }
      load.isOver = true
      await probing
      child.stdin?.write("close\n")
      const end = await next<End>()
      // a backend ends when it has heard of it
      let after = await database.look()
      for (const deadline = Date.now() + 5000; after.connections > before.connections && Date.now() < deadline;) {
        await sleep(50)
        after = await database.look()
      }
      return reportOf(backend, looks, {
        handles: { start: start.handles, most: most(looks, ({ handles }) => handles), end: end.handles },
        connections: {
          start: before.connections,
          most: most(looks, ({ connections }) => connections),
          end: after.connections
        },
        walClosed: after.wal,
        failures: end.failures
      })
    } finally {
      child.kill("SIGKILL")
    }
  } finally {
    await database.stop()
    Fs.rmSync(folder, { recursive: true, force: true })
  }
}

interface Database {
  readonly url: string
  readonly look: () => Promise<Pick<Look, "connections" | "wal" | "kept">>
  /** What is timed ten times a second beside the load, by the driver alone. */
  readonly probes: Readonly<Record<string, () => Promise<unknown>>>
  /** Answers how to close it. */
  readonly openSnapshot: () => Promise<() => Promise<void>>
  readonly stop: () => Promise<void>
}

const sqliteDatabase = (folder: string): Database => {
  const file = Path.join(folder, "a.db")
  const other = new Sqlite(Path.join(folder, "other.db"))
  other.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE other (text text)")
  const write = other.prepare("INSERT INTO other VALUES (?)")
  return {
    probes: { [reference]: () => Promise.resolve().then(() => write.run("x".repeat(300))) },
    url: `sqlite:///${file}`,
    look: () =>
      Promise.resolve({
        connections: 0,
        wal: Fs.statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0,
        kept: 0
      }),
    openSnapshot: () => {
      const db = new Sqlite(file, { readonly: true })
      db.exec("BEGIN")
      db.prepare("SELECT count(*) FROM ledger_events").get()
      return Promise.resolve(() => {
        db.close()
        return Promise.resolve()
      })
    },
    stop: () => {
      other.close()
      return Promise.resolve()
    }
  }
}

const postgresDatabase = async (): Promise<Database> => {
  // a folder of the usual size would not be full within the time
  const server = await startPostgres({ flags: ["-c", "max_wal_size=64MB", "-c", "autovacuum_naptime=5s"] })
  const connect = async (): Promise<Client> => {
    const client = new Client({ connectionString: server.url, application_name: "watcher" })
    await client.connect()
    return client
  }
  const client = await connect()
  const prober = await connect()
  await client.query("CREATE TABLE other (text text)")
  return {
    url: server.url,
    probes: {
      [reference]: () => prober.query("INSERT INTO other VALUES ($1)", ["x".repeat(300)]),
      "a checkpoint's row": () =>
        prober.query("SELECT \"offset\" FROM ledger_consumers WHERE name = 'exactlyOnce' AND part = 0")
    },
    look: async () => {
      const { rows: [row] } = await client.query<Record<"connections" | "wal" | "kept", string>>(
        `SELECT (SELECT count(*) FROM pg_stat_activity
          WHERE backend_type = 'client backend' AND application_name <> 'watcher') AS connections,
        (SELECT sum(size) FROM pg_ls_waldir()) AS wal,
        (SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
          WHERE relname IN ('ledger_consumers', 'ledger_projections')) AS kept`
      )
      return { connections: Number(row!.connections), wal: Number(row!.wal), kept: Number(row!.kept) }
    },
    openSnapshot: async () => {
      const snapshot = await connect()
      await snapshot.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
      await snapshot.query("SELECT count(*) FROM ledger_events")
      return () => snapshot.end()
    },
    stop: async () => {
      await Promise.all([client.end(), prober.end()])
      await server.stop()
    }
  }
}

const reportOf = (
  backend: Settings["backend"],
  looks: ReadonlyArray<Look>,
  { connections, failures, handles, walClosed }: Pick<Report, "handles" | "connections"> & {
    readonly walClosed: number
    readonly failures: ReadonlyArray<string>
  }
): Report => {
  const phases = (of: (looks: ReadonlyArray<Look>) => number) => byPhase((phase) => of(inPhase(looks, phase)))
  const last = looks.at(-1)!
  const kinds = Array.from(new Set(looks.flatMap(({ took }) => Object.keys(took))))
  const calls = Object.fromEntries(
    kinds.map((kind) => [kind, looks.reduce((sum, { took }) => sum + (took[kind]?.count ?? 0), 0)])
  )
  const took = Object.fromEntries(kinds.map((kind) => [
    kind,
    byPhase((phase): readonly [number, number] => {
      const those = inPhase(looks, phase).flatMap(({ took }) => took[kind] ?? [])
      return [median(those.map(({ median }) => median)), median(those.map(({ p99 }) => p99))]
    })
  ]))
  const heap = { warm: inPhase(looks, "warm-up").at(-1)!.heap, end: last.heap }
  const wal = { ...phases((some) => most(some, ({ wal }) => wal)), closed: walClosed }
  const kept = phases((some) => most(some, ({ kept }) => kept))

  const problems = [...failures]
  const must = (isSo: boolean, message: string): void => {
    if (!isSo) problems.push(message)
  }
  must(
    handles.end <= handles.start,
    `${handles.end} handles are open after the end, ${handles.start} were at the start`
  )
  must(
    connections.end <= connections.start,
    `${connections.end} connections are open after the end, ${connections.start} were at the start`
  )
  must(
    heap.end - heap.warm <= heapBound,
    `the heap has grown from ${mebibytes(heap.warm)} to ${mebibytes(heap.end)} MiB`
  )
  return {
    backend,
    seconds: Math.round(last.at),
    events: last.events,
    calls,
    handles,
    connections,
    heap,
    wal,
    kept,
    took,
    looks,
    problems
  }
}

/** What a long run has to show as well: a short one has too few samples. */
export const growth = ({ looks, took, wal, backend }: Report): ReadonlyArray<string> => {
  const problems: Array<string> = []
  // others use the machine, too: only what has grown is slower in the quietest moment as well
  const quietest = (kind: string, some: ReadonlyArray<Look>): number =>
    some.reduce((least, { took }) => Math.min(least, took[kind]?.median ?? Infinity), Infinity)
  const secondHalf = (phase: Phase): ReadonlyArray<Look> => {
    const some = inPhase(looks, phase)
    return some.slice(Math.floor(some.length / 2))
  }
  for (const kind of Object.keys(took)) {
    const before = quietest(kind, inPhase(looks, "before"))
    for (const phase of ["during", "after"] as const) {
      const now = quietest(kind, secondHalf(phase))
      const slower = quietest(reference, secondHalf(phase)) / quietest(reference, inPhase(looks, "before"))
      if (kind !== reference && now > 2 * Math.max(1, slower) * before + 1) {
        problems.push(
          `${kind} took ${before.toFixed(1)} ms at its best before the snapshot, and ${now.toFixed(1)} ms ${phase} it`
        )
      }
    }
  }
  const ends = inPhase(looks, "after")
  const [first, last] = [ends[1] ?? ends[0]!, ends.at(-1)!]
  if (last.wal > first.wal) {
    problems.push(`the WAL grew from ${mebibytes(first.wal)} to ${mebibytes(last.wal)} MiB after the snapshot`)
  }
  if (backend === "sqlite" && last.wal > 16 * 2 ** 20) {
    problems.push(`the WAL is still ${mebibytes(last.wal)} MiB after the snapshot`)
  }
  if (backend === "sqlite" && wal.before > 16 * 2 ** 20) {
    problems.push(`the WAL was ${mebibytes(wal.before)} MiB before there was a snapshot`)
  }
  return problems
}

/** A row that is written in another table, or another file. */
const reference = "by the driver alone"

export const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1)

const byPhase = <A>(of: (phase: Phase) => A): Readonly<Record<Phase, A>> => ({
  "warm-up": of("warm-up"),
  before: of("before"),
  during: of("during"),
  after: of("after")
})

const inPhase = (looks: ReadonlyArray<Look>, phase: Phase): ReadonlyArray<Look> =>
  looks.filter((look) => look.phase === phase)

const most = (looks: ReadonlyArray<Look>, of: (look: Look) => number): number =>
  looks.reduce((most, look) => Math.max(most, of(look)), 0)

const median = (numbers: ReadonlyArray<number>): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0

const header =
  "   s  snapshot   events   heap    rss  handles  conns    WAL   kept  append p99   run  page   sub  once least"

const line = ({ at, connections, events, handles, heap, kept, phase, rss, took, wal }: Look): string => {
  const of = (kind: string, width = 6): string => (took[kind]?.median ?? NaN).toFixed(1).padStart(width)
  return [
    at.toFixed(0).padStart(4),
    phase.padStart(9),
    String(events).padStart(8),
    mebibytes(heap).padStart(6),
    mebibytes(rss).padStart(6),
    String(handles).padStart(8),
    String(connections).padStart(6),
    mebibytes(wal).padStart(6),
    mebibytes(kept).padStart(6),
    of("append"),
    (took["append"]?.p99 ?? NaN).toFixed(0).padStart(4),
    of("run"),
    of("page", 5),
    of("subscriber 1", 5),
    of("exactlyOnce", 5),
    of("atLeastOnce", 5)
  ].join(" ")
}

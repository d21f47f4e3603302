/** Starts the processes, lets something harm them, and has the checker look at all that was recorded. */
import Sqlite from "better-sqlite3"
import type { ChildProcess } from "node:child_process"
import { spawn, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Client } from "pg"
import { random } from "../support/following.js"
import { type PostgresServer, startPostgres } from "../support/postgres.js"
import { startScript } from "../support/processes.js"
import { type Proxy, startProxy } from "../support/proxy.js"
import { check, type Seen, type Violation } from "./checker.js"
import {
  type ConsumerConfig,
  createHandled,
  emptyStory,
  now,
  reader,
  recordedOf,
  selectHandled,
  selectHolders,
  selectLog,
  type StoredRow,
  type Story,
  type WriterConfig
} from "./history.js"
import { longest, type Span } from "./waits.js"

export interface Settings {
  readonly backend: "sqlite" | "postgres"
  readonly seed: string
  readonly writers: number
  readonly subscribers: number
  /** Processes that run a consumer exactly once, and as many that run another at least once; none, unless told. */
  readonly consumers?: number | undefined
  /** Of each writer; the last one decides, where there are several. */
  readonly lanes?: number | undefined
  /** The longest pause between two operations of a lane, in milliseconds. */
  readonly pause?: number | undefined
  readonly largest?: number | undefined
  /** SQLite: the file lies on a small disk, which is filled now and then. */
  readonly smallDisk?: boolean | undefined
  readonly progress?: ((line: string) => void) | undefined
}

export interface Report {
  readonly backend: string
  readonly seed: string
  readonly seconds: number
  readonly events: number
  readonly operations: number
  readonly unknown: number
  /** Refused by a condition; and by what the events were. */
  readonly refused: number
  readonly invalid: number
  readonly seen: ReadonlyArray<number>
  /** Events that the handlers were given: those that run exactly once, as far as it was committed. */
  readonly handled: Readonly<Record<"exactlyOnce" | "atLeastOnce", number>>
  /** How often a lease came to another process, or to the next life of the same, that then handled something. */
  readonly takeovers: Readonly<Record<"exactlyOnce" | "atLeastOnce", number>>
  /** What was done to it, and how often. */
  readonly faults: Readonly<Record<string, number>>
  /**
   * The longest that an operation of less than 1,000 events took, or had taken when its process was killed, in
   * milliseconds; and the longest without the time in which a process was stopped, a server away, the disk full, or this
   * machine too busy to run a timer.
   */
  readonly longestWait: number
  readonly longestWaitUnstopped: number
  readonly violations: ReadonlyArray<{ readonly kind: Violation["kind"] | "failure"; readonly detail: string }>
}

/** What a nemesis can reach. */
export interface World {
  readonly settings: Settings
  readonly chance: () => number
  readonly writers: ReadonlyArray<Mortal>
  readonly subscribers: ReadonlyArray<Member>
  readonly consumers: ReadonlyArray<Mortal>
  /** The consumers that have a lease. */
  readonly holders: () => Promise<ReadonlyArray<Mortal>>
  readonly server: PostgresServer | undefined
  readonly proxy: Proxy | undefined
  readonly disk: Disk | undefined
  readonly count: (fault: string, by?: number) => void
  /** This time is nobody's wait for the ledger. */
  readonly disturbed: (from: number, to: number) => void
  /** Events that were acknowledged so far. */
  readonly acknowledged: () => number
  /** Attempts that were told so far that the disk is full. */
  readonly withoutRoom: () => number
}

export interface Member {
  readonly name: string
  readonly pid: () => number | undefined
  readonly ended: () => string | undefined
  readonly kill: () => Promise<void>
  readonly send: (command: string) => void
  readonly errors: () => string
}

export interface Mortal extends Member {
  /** Starts the next life. */
  readonly restart: () => Promise<void>
  /** Whether this life has written anything down. */
  readonly hasBegun: () => boolean
}

export interface Disk {
  readonly fill: () => void
  readonly empty: () => void
}

export const run = async (settings: Settings, harm: (world: World) => Promise<void>): Promise<Report> => {
  const begun = now()
  const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-chaos-"))
  const progress = settings.progress ?? (() => {})
  const faults: Record<string, number> = {}
  const disturbances: Array<Span> = []
  const stories: Array<Story> = []
  let ticked = begun
  const ticks = setInterval(() => {
    if (now() - ticked > 250_000) disturbances.push([ticked, now()])
    ticked = now()
  }, 50)
  const members: Array<Member> = []
  const failures: Array<string> = []
  const server = settings.backend === "postgres" ? await startPostgres() : undefined
  const proxy = server === undefined ? undefined : await startProxy(server.url)
  const mounted = settings.smallDisk === true ? smallDisk(Path.join(folder, "disk")) : undefined
  const file = Path.join(mounted === undefined ? folder : Path.join(folder, "disk"), "a.db")
  const url = proxy?.url ?? `sqlite:///${file}`
  try {
    const writers: Array<Mortal> = []
    for (let index = 0; index < settings.writers; index++) {
      const story = emptyStory()
      stories.push(story)
      const name = `w${index}`
      const writer = await startMortal(folder, story, name, "../chaos/writer.ts", (file): WriterConfig => ({
        url,
        name,
        file,
        resume: Object.fromEntries(story.lanes),
        seed: settings.seed,
        lanes: settings.lanes ?? 3,
        pause: settings.pause ?? 40,
        largest: settings.largest ?? 12,
        // time is a thing of the producer alone
        backwards: index === 1
      }))
      writers.push(writer)
      members.push(writer)
    }
    const subscribers: Array<Member> = []
    const views: Array<Story> = []
    const readers: Array<() => void> = []
    for (let index = 0; index < settings.subscribers; index++) {
      const story = emptyStory()
      const path = Path.join(folder, `s${index}.jsonl`)
      const member = await startMember(`s${index}`, "../chaos/subscriber.ts", {
        url,
        file: path
      })
      views.push(story)
      readers.push(reader(path, story))
      subscribers.push(member)
      members.push(member)
    }
    const consumers: Array<Mortal> = []
    const consumed = { exactlyOnce: emptyStory(), atLeastOnce: emptyStory() }
    if ((settings.consumers ?? 0) > 0) await query(server, file, createHandled[settings.backend])
    for (const delivery of ["exactlyOnce", "atLeastOnce"] as const) {
      for (let index = 0; index < (settings.consumers ?? 0); index++) {
        const name = `${delivery}-${index}`
        const config = (file: string): ConsumerConfig => ({
          url,
          file,
          life: Path.basename(file),
          delivery,
          batch: consumerBatch
        })
        const consumer = await startMortal(folder, consumed[delivery], name, "../chaos/consumer.ts", config)
        consumers.push(consumer)
        members.push(consumer)
      }
    }
    const sum = (field: "acknowledged" | "withoutRoom"): number => {
      for (const writer of writers) writer.hasBegun()
      return stories.reduce((sum, story) => sum + story[field], 0)
    }
    const world: World = {
      settings,
      chance: random(`${settings.seed} nemesis`),
      writers,
      subscribers,
      consumers,
      holders: async () => {
        const rows = await query(server, file, selectHolders)
        const pids = new Set(rows.map(({ holder }) => Number(String(holder).split(":")[1])))
        return consumers.filter((consumer) => pids.has(consumer.pid() ?? 0))
      },
      server,
      proxy,
      disk: mounted,
      count: (fault, by = 1) => {
        faults[fault] = (faults[fault] ?? 0) + by
      },
      disturbed: (from, to) => disturbances.push([from, to]),
      acknowledged: () => sum("acknowledged"),
      withoutRoom: () => sum("withoutRoom")
    }
    await until("every writer begins", 60_000, () => writers.every((writer) => writer.hasBegun()))

    await harm(world)

    for (const writer of writers) writer.send("stop")
    failures.push(...await all("finish what they began", writers))
    const log = (await query(server, file, selectLog)).map(recordedOf)
    progress(`${log.length} events; subscribers and consumers come to the end`)
    for (const reader of [...subscribers, ...consumers]) reader.send(`until ${log.length}`)
    // a consumer that was never left in peace may have most of it before it
    const patience = 30_000 + 5 * log.length
    failures.push(...await all("see the whole log", [...subscribers, ...consumers], patience))
    for (const read of readers) read()
    for (const mortal of [...writers, ...consumers]) mortal.hasBegun()
    const rows = consumers.length === 0 ? [] : await query(server, file, selectHandled)
    const table = rows.map((row): Seen => ({
      offset: Number(row["offset"]),
      id: String(row["id"]),
      stored: String(row["stored"])
    }))
    const tenures = consumed.atLeastOnce.tenures

    const operations = stories.flatMap((story) => story.operations)
    const violations = check({
      operations,
      log,
      subscribers: views.map(({ seen }, index) => ({ name: `s${index}`, seen })),
      exactlyOnce: consumers.length === 0 ? [] : [{ name: "the table", seen: table }],
      atLeastOnce: consumers.length === 0 ? [] : [{ name: "the consumer", batch: consumerBatch, tenures }],
      heads: views.flatMap(({ heads }) => heads)
    })
    for (const story of [...stories, ...views, ...Object.values(consumed)]) failures.push(...story.failures)
    const waits = stories.flatMap((story) => story.waits)
    if (mounted !== undefined) faults["attempts without room"] = sum("withoutRoom")
    if (proxy !== undefined) {
      const { appends, others, unknown } = proxy.lost()
      faults["lost acknowledgements of appends"] = appends
      faults["lost acknowledgements of other commits"] = others
      faults["lost acknowledgements, unknown"] = unknown
    }
    return {
      backend: settings.backend,
      seed: settings.seed,
      seconds: Math.round((now() - begun) / 1e6),
      events: log.length,
      operations: operations.length,
      unknown: operations.filter(({ outcome }) => outcome._tag === "unknown").length,
      refused: operations.filter(({ outcome }) => outcome._tag === "refused" && outcome.by !== undefined).length,
      invalid: operations.filter(({ outcome }) => outcome._tag === "refused" && outcome.by === undefined).length,
      seen: views.map(({ seen }) => seen.length),
      handled: {
        exactlyOnce: table.length,
        atLeastOnce: tenures.reduce((sum, tenure) => sum + tenure.length, 0)
      },
      takeovers: {
        exactlyOnce: rows.filter(({ life }, index) => index > 0 && life !== rows[index - 1]!["life"]).length,
        atLeastOnce: Math.max(0, tenures.length - 1)
      },
      faults,
      longestWait: longest(waits),
      longestWaitUnstopped: longest(waits, disturbances),
      violations: [...failures.slice(0, 20).map((detail) => ({ kind: "failure" as const, detail })), ...violations]
    }
  } finally {
    clearInterval(ticks)
    await Promise.all(members.map((member) => member.kill()))
    proxy?.close()
    await server?.stop()
    mounted?.unmount()
    Fs.rmSync(folder, { recursive: true, force: true })
  }
}

/** Stops a process for a while; it goes on even when this one ends. */
export const stopFor = (world: World, member: Member, millis: number): void => {
  const pid = member.pid()
  if (pid === undefined) return
  const begun = now()
  world.count("processes stopped")
  const stopping = spawn("/bin/sh", ["-c", `kill -STOP ${pid} && sleep ${millis / 1000}; kill -CONT ${pid}`], {
    stdio: "ignore",
    detached: true
  })
  stopping.on("exit", () => world.disturbed(begun, now())).unref()
}

/** Those that fall to this share, and at least one where there is any. */
export const someOf = <A>(members: ReadonlyArray<A>, chance: () => number, share: number): ReadonlyArray<A> => {
  const chosen = members.filter(() => chance() < share)
  return chosen.length > 0 ? chosen : members.slice(Math.floor(chance() * members.length)).slice(0, 1)
}

/** Terminates some of the server's backends; answers how many. */
export const terminateBackends = async (url: string, chance: () => number, share: number): Promise<number> => {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5000 })
  client.on("error", () => {})
  try {
    await client.connect()
    const { rows } = await client.query<{ readonly pid: number }>(
      "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' " +
        "AND pid <> pg_backend_pid() ORDER BY pid"
    )
    const chosen = someOf(rows, chance, share).map(({ pid }) => pid)
    await client.query("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", [chosen])
    return chosen.length
  } finally {
    await client.end()
  }
}

/** Looks again and again until it holds. */
export const until = async (what: string, millis: number, holds: () => boolean): Promise<void> => {
  const deadline = Date.now() + millis
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`it took more than ${millis} ms until ${what}`)
    await sleep(2)
  }
}

/** How many events share a checkpoint. */
const consumerBatch = 50

/** Waits until they have ended by themselves, and tells of those that have not, or not well. */
const all = async (what: string, members: ReadonlyArray<Member>, millis = 30_000): Promise<ReadonlyArray<string>> => {
  await until(what, millis, () => members.every((member) => member.ended() !== undefined)).catch(() => {})
  return members.filter((member) => member.ended() !== "0").map((member) =>
    `${member.name} did not ${what}: it ${
      member.ended() === undefined ? "still runs" : `ended with ${member.ended()}`
    }\n${member.errors().slice(-2000)}`
  )
}

const startMember = async (name: string, script: string, config: unknown): Promise<Member> => {
  const child: ChildProcess = await startScript(script, [], {})
  let ended: string | undefined
  let errors = ""
  const end = new Promise<void>((resolve) => {
    child.on("error", (error) => {
      errors += String(error)
    })
    child.on("close", (code, signal) => {
      ended = String(code ?? signal)
      resolve()
    })
  })
  child.stdin?.on("error", () => {})
  child.stdout?.resume()
  child.stderr?.on("data", (chunk) => {
    errors = (errors + String(chunk)).slice(-10_000)
  })
  child.stdin?.write(`${JSON.stringify(config)}\n`)
  return {
    name,
    pid: () => ended === undefined ? child.pid : undefined,
    ended: () => ended,
    kill: () => {
      child.kill("SIGKILL")
      return end
    },
    send: (command) => void child.stdin?.write(`${command}\n`),
    errors: () => errors
  }
}

/** One that can be killed, and then lives again. */
const startMortal = async (
  folder: string,
  story: Story,
  name: string,
  script: string,
  configOf: (file: string) => unknown
): Promise<Mortal> => {
  let life = 0
  let file = ""
  let read: ReturnType<typeof reader> = () => {}
  let killed = 0
  const start = (): Promise<Member> => {
    file = Path.join(folder, `${name}-${++life}.jsonl`)
    read = reader(file, story)
    return startMember(name, script, configOf(file))
  }
  let member = await start()
  const readThis = (): void => {
    read()
    const ended = member.ended()
    if (ended !== undefined && ended !== "0" && ended !== "SIGKILL") {
      throw new Error([`${name} ended with ${ended}`, ...story.failures, member.errors()].join("\n"))
    }
  }
  return {
    name,
    pid: () => member.pid(),
    ended: () => member.ended(),
    kill: () => {
      killed = now()
      return member.kill()
    },
    send: (command) => member.send(command),
    errors: () => member.errors(),
    hasBegun: () => {
      readThis()
      return (Fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0) > 0
    },
    restart: async () => {
      readThis()
      read(killed)
      Fs.rmSync(file, { force: true })
      member = await start()
    }
  }
}

/** Asks the database without the library. */
const query = async (
  server: PostgresServer | undefined,
  file: string,
  statement: string
): Promise<ReadonlyArray<StoredRow>> => {
  if (server === undefined) {
    const db = new Sqlite(file, { timeout: 10_000 })
    try {
      const prepared = db.prepare<[], StoredRow>(statement)
      if (prepared.reader) return prepared.all()
      prepared.run()
      return []
    } finally {
      db.close()
    }
  }
  const client = new Client(server.url)
  await client.connect()
  try {
    return (await client.query<StoredRow>(statement)).rows
  } finally {
    await client.end()
  }
}

/** A file system in memory with 192 MiB of room; only root can mount one. It is gone when this process is. */
const smallDisk = (path: string): Disk & { readonly unmount: () => void } => {
  Fs.mkdirSync(path)
  const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", "size=192m", "tmpfs", path], { stdio: "ignore" })
  if (status !== 0) throw new Error("no small disk can be mounted here: that takes root")
  const guardian = spawn("/bin/sh", ["-c", "cat; umount -l \"$1\"", "disk-guardian", path], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true
  })
  guardian.unref()
  const balloon = Path.join(path, "balloon")
  return {
    fill: () => {
      const block = Buffer.alloc(2 ** 16)
      const descriptor = Fs.openSync(balloon, "a")
      try {
        for (let left = 2 ** 12; left > 0; left--) Fs.writeSync(descriptor, block)
      } catch {
        // full
      } finally {
        Fs.closeSync(descriptor)
      }
    },
    empty: () => Fs.rmSync(balloon, { force: true }),
    unmount: () => {
      spawnSync("umount", ["-l", path], { stdio: "ignore" })
      guardian.stdin.end()
    }
  }
}

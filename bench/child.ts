/** A process of its own, for what is measured by it: the way to the first answer, its memory, a subscriber's wait. */
import * as Fs from "node:fs"
import type { Whole } from "./side.js"

/** What to do, and where: in a file, or in a schema at a URL. */
export interface Task {
  readonly task: "open" | "readAll" | "subscribe"
  readonly side: "ours" | "driver"
  readonly url: string
  readonly schema?: string | undefined
  /** How many events a subscriber waits for. */
  readonly count?: number | undefined
}

const { count = 0, schema, side, task, url } = JSON.parse(process.env["LEDGER_TASK"] ?? "") as Task

const oursAt = async () => {
  const { Redacted } = await import("effect")
  const layer = schema === undefined
    ? (await import("../src/SqliteLedger.js")).layerFile(url)
    : (await import("../src/PgLedger.js")).layerUrl(Redacted.make(url), { schema })
  return { layer, ...await import("./ours.js") }
}

/** What opens the store; the code that it needs is loaded. */
const opener = async (): Promise<() => Whole | Promise<Whole>> => {
  if (side === "ours") {
    const { layer, ours } = await oursAt()
    return () => ours(layer)
  }
  const bare = await import("./bare.js")
  await (schema === undefined ? import("better-sqlite3") : import("pg"))
  return () => schema === undefined ? bare.sqlite(url) : bare.postgres(url, schema)
}

/** The greatest resident set, in KiB. */
const peak = (): number => {
  // what the system calls the greatest so far begins with that of the process that started this one
  const status = Fs.existsSync("/proc/self/status") ? Fs.readFileSync("/proc/self/status", "utf8") : ""
  return Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1] ?? process.resourceUsage().maxRSS)
}

if (task === "subscribe") {
  const { layer } = await oursAt()
  const { Effect } = await import("effect")
  const { seenBy } = await import("./subscriber.js")
  await Effect.runPromise(
    Effect.provide(seenBy(count, (offset, at) => void process.stdout.write(`${offset} ${at}\n`)), layer)
  )
} else {
  const open = await opener()
  const started = performance.now()
  const store = await open()
  const answer = await store[task === "open" ? "latestOffset" : "readAll"]()
  const elapsed = performance.now() - started
  await store.close()
  if (answer === 0) throw new Error("the store is empty")
  console.log(task === "open" ? elapsed : peak() / 1024)
}

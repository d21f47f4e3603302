/** What the harness and its processes share: which events are appended, and how a process records what happens. */
import { DateTime, Effect } from "effect"
import { createHash } from "node:crypto"
import * as Fs from "node:fs"
import { Event } from "../../src/index.js"
import type { Handled, HeadRead, Operation, Outcome, Receipt, Recorded, Seen } from "./checker.js"
import type { Wait } from "./waits.js"

/** An operation before its first attempt: it says everything that is needed to attempt it again. */
export interface Planned {
  readonly key: string
  readonly lane: string
  /** The number of the operation in its lane. */
  readonly n: number
  readonly events: ReadonlyArray<PlannedEvent>
  readonly condition?: { readonly runId: string; readonly after: number } | undefined
  readonly decision?: string | undefined
  /** The index of an event that is made invalid: the whole batch must be refused. */
  readonly spoiled?: number | undefined
}

export type PlannedEvent = readonly [id: string, runId: string, turn: number]

/** What a writer is told when it starts. */
export interface WriterConfig {
  readonly url: string
  readonly name: string
  readonly file: string
  readonly seed: string
  readonly lanes: number
  /** The longest pause between two operations of a lane, in milliseconds. */
  readonly pause: number
  /** The largest batch. */
  readonly largest: number
  /** Its clock goes backwards. */
  readonly backwards: boolean
  readonly resume: Readonly<Record<string, Resume>>
}

/** Where a lane goes on: with what it does not know the outcome of. */
export interface Resume {
  readonly next: number
  readonly pending: Planned | undefined
}

/** What a subscriber is told when it starts. */
export interface SubscriberConfig {
  readonly url: string
  readonly file: string
}

/** What a consumer is told when it starts. */
export interface ConsumerConfig {
  readonly url: string
  readonly file: string
  /** Of the process and its life. */
  readonly life: string
  /** It is the consumer's name as well. */
  readonly delivery: "exactlyOnce" | "atLeastOnce"
  readonly batch: number
}

/** The table of the handler that runs exactly once; `n` grows as the rows are written. */
export const createHandled = {
  sqlite:
    `CREATE TABLE handled (n integer PRIMARY KEY AUTOINCREMENT, "offset" integer, id text, stored text, life text)`,
  postgres: `CREATE TABLE handled (n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, "offset" bigint, id text,
    stored text, life text)`
}

export const selectHandled = `SELECT "offset", id, stored, life FROM handled ORDER BY n`

/** Who has, or had last, the lease of a consumer: `host:pid:…`. */
export const selectHolders = `SELECT holder FROM ledger_consumers WHERE holder IS NOT NULL`

/** A line of a history file. */
export type Line =
  | readonly ["invoked", at: number, planned: Planned]
  | readonly ["ok", at: number, key: string, receipts: ReadonlyArray<readonly [number, Receipt["status"]]>]
  | readonly ["refused", at: number, key: string, by: number | null]
  | readonly ["unknown", at: number, key: string, reason: string]
  /** What no fault may lead to. */
  | readonly ["failed", at: number, what: string]
  | readonly ["seen", ReadonlyArray<readonly [offset: number, id: string, stored: string]>]
  | readonly ["head", invokedAt: number, at: number, head: number]
  | readonly ["handled", at: number, offset: number, id: string, stored: string]
  /** The lease was given up, or lost. */
  | readonly ["yielded"]

/** Microseconds of the clock that all processes share. */
export const now = (): number => Number(process.hrtime.bigint() / 1000n)

/** Writes through to the operating system line by line, so that nothing is lost when the process is killed. */
export const recorder = (file: string): (line: Line) => void => {
  const descriptor = Fs.openSync(file, "a")
  return (line) => void Fs.writeSync(descriptor, `${JSON.stringify(line)}\n`)
}

/** The event that a plan means: it follows from the id, but for `createdAt`. */
export const eventOf = ([id, runId, turn]: PlannedEvent): Effect.Effect<Event.Event> => {
  const hash = createHash("sha256").update(id).digest()
  const [rare, short = 0] = hash
  const length = rare === 0 ? 20_000 : short
  return Effect.orDie(Event.create({
    id,
    runId,
    turn,
    kind: (["agent.spoke", "model.replied", "tool.called"] as const)[hash[2]! % 3]!,
    actor: `actor-${hash[3]! % 7}`,
    payload: { hash: hash.toString("hex"), text: "so ‘it’ goes 😀\n".repeat(Math.ceil(length / 15)), turn },
    sessionId: hash[4]! % 2 === 0 ? null : `session-${hash[4]! % 5}`,
    modelId: hash[5]! % 3 === 0 ? null : `model-${hash[5]! % 4}`
  }))
}

/** A digest of every field but `createdAt`. */
export const contentOf = (event: Event.Event): string =>
  digest([
    event.runId,
    event.turn,
    event.kind,
    event.actor,
    event.payload,
    event.schemaVersion,
    event.sessionId,
    event.modelProfile,
    event.modelId
  ])

export const storedOf = (event: Event.RecordedEvent): string =>
  `${contentOf(event)}@${DateTime.toEpochMillis(event.createdAt)}`

/** A row of the events table, as the driver gives it: the log is read without the library. */
export type StoredRow = Readonly<Record<string, string | number | null>>

export const selectLog =
  `SELECT "offset", id, run_id, turn, kind, actor, payload, created_at, schema_version, session_id,
  model_profile, model_id FROM ledger_events ORDER BY "offset"`

export const recordedOf = (row: StoredRow): Recorded => {
  const content = digest([
    row["run_id"],
    row["turn"],
    row["kind"],
    row["actor"],
    JSON.parse(String(row["payload"])),
    row["schema_version"],
    row["session_id"],
    row["model_profile"],
    row["model_id"]
  ])
  return {
    offset: Number(row["offset"]),
    id: String(row["id"]),
    runId: String(row["run_id"]),
    content,
    stored: `${content}@${row["created_at"]}`
  }
}

const digest = (fields: ReadonlyArray<unknown>): string =>
  createHash("sha1").update(JSON.stringify(fields)).digest("base64url").slice(0, 12)

/** What one process recorded in all its lives. */
export interface Story {
  readonly operations: Array<Writable<Operation>>
  readonly seen: Array<Seen>
  readonly tenures: Array<ReadonlyArray<Handled>>
  readonly heads: Array<HeadRead>
  readonly failures: Array<string>
  readonly lanes: Map<string, Resume>
  /** How long an operation took from its first attempt in a life until its outcome was known, or until it was killed. */
  readonly waits: Array<Wait>
  acknowledged: number
  /** Attempts that were told that the disk is full. */
  withoutRoom: number
}

/** What was begun, and is not known yet. */
interface Open {
  readonly operation: Writable<Operation>
  readonly since: number
  readonly of: Planned
}

type Writable<A> = { -readonly [K in keyof A]: A[K] }

export const emptyStory = (): Story => ({
  operations: [],
  seen: [],
  tenures: [],
  heads: [],
  failures: [],
  lanes: new Map(),
  waits: [],
  acknowledged: 0,
  withoutRoom: 0
})

/** Reads what was added to the history file of one life since the last call; the last one says when that was killed. */
export const reader = (file: string, story: Story): (killed?: number) => void => {
  const open = new Map<string, Open>()
  const contents = new Map<string, string>()
  let tenure: Array<Handled> | undefined
  let position = 0
  let rest = Buffer.alloc(0)

  const finish = (key: string, outcome: Outcome): void => {
    const started = open.get(key)
    if (started === undefined) throw new Error(`${file}: an outcome of ${key}, which was not invoked`)
    started.operation.outcome = outcome
    if (outcome._tag === "unknown") return
    open.delete(key)
    story.lanes.set(started.of.lane, { next: started.of.n + 1, pending: undefined })
    waited(started, outcome.at)
    if (outcome._tag === "ok") story.acknowledged += outcome.receipts.length
  }

  const waited = ({ of, since }: Open, until: number): void => {
    // a large batch is work
    if (of.events.length < 1000) story.waits.push([since, until - since])
  }

  const contentFor = (event: PlannedEvent): string => {
    const known = contents.get(event[0])
    if (known !== undefined) return known
    const content = contentOf(Effect.runSync(eventOf(event)))
    // most ids are asked for once; retries come soon
    if (contents.size > 5000) contents.clear()
    contents.set(event[0], content)
    return content
  }

  const take = (line: Line): void => {
    switch (line[0]) {
      case "invoked": {
        const [, at, planned] = line
        const operation: Writable<Operation> = {
          lane: planned.lane,
          key: planned.key,
          invokedAt: at,
          events: planned.events.map((event) => ({ id: event[0], runId: event[1], content: contentFor(event) })),
          condition: planned.condition,
          decision: planned.decision,
          outcome: { _tag: "unknown", at: undefined }
        }
        open.set(planned.key, { operation, since: open.get(planned.key)?.since ?? at, of: planned })
        story.lanes.set(planned.lane, { next: planned.n + 1, pending: planned })
        story.operations.push(operation)
        return
      }
      case "ok":
        return finish(line[2], {
          _tag: "ok",
          at: line[1],
          receipts: line[3].map(([offset, status]) => ({ offset, status }))
        })
      case "refused":
        return finish(line[2], { _tag: "refused", at: line[1], by: line[3] ?? undefined })
      case "unknown":
        if (line[3].includes("is full")) story.withoutRoom++
        return finish(line[2], { _tag: "unknown", at: line[1] })
      case "failed":
        return void story.failures.push(line[2])
      case "seen":
        for (const [offset, id, stored] of line[1]) story.seen.push({ offset, id, stored })
        return
      case "head":
        return void story.heads.push({ invokedAt: line[1], at: line[2], head: line[3] })
      case "handled":
        if (tenure === undefined) story.tenures.push(tenure = [])
        tenure.push({ at: line[1], offset: line[2], id: line[3], stored: line[4] })
        return
      case "yielded":
        tenure = undefined
    }
  }

  return (killed) => {
    if (!Fs.existsSync(file)) return
    const descriptor = Fs.openSync(file, "r")
    try {
      const size = Fs.fstatSync(descriptor).size
      const added = Buffer.alloc(size - position)
      position += Fs.readSync(descriptor, added, 0, added.length, position)
      const bytes = Buffer.concat([rest, added])
      const end = bytes.lastIndexOf(10)
      rest = bytes.subarray(end + 1)
      // a line without its end was being written when the process was killed: it has not happened
      for (const line of bytes.subarray(0, Math.max(0, end)).toString("utf8").split("\n")) {
        if (line !== "") take(JSON.parse(line))
      }
    } finally {
      Fs.closeSync(descriptor)
    }
    if (killed === undefined) return
    for (const one of open.values()) waited(one, killed)
    open.clear()
  }
}

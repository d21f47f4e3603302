/** The drivers by hand: what a program without this library would write, over the tables that a ledger has made. */
import type { Event } from "../src/index.js"
import type { Whole } from "./side.js"

// each driver is loaded where it is used, as a process is measured whose memory it is
export const sqlite = async (file: string, durability: "full" | "relaxed" = "full"): Promise<Whole> => {
  const { default: Sqlite } = await import("better-sqlite3")
  const db = new Sqlite(file)
  db.pragma(`synchronous = ${durability === "full" ? "FULL" : "NORMAL"}`)
  const insert = db.prepare(`INSERT INTO ledger_events (${columns}) VALUES (${"?, ".repeat(12)}?)`)
  // the table's guard refuses an insert of a known id, also one with ON CONFLICT DO NOTHING
  const insertNew = db.prepare(
    `INSERT INTO ledger_events (${columns}) SELECT ${"?, ".repeat(12)}? ` +
      `WHERE NOT EXISTS (SELECT 1 FROM ledger_events WHERE id = ?)`
  )
  const all = db.prepare<[], BareRow>(`SELECT ${columns} FROM ledger_events ORDER BY "offset"`)
  const run = db.prepare<[string], BareRow>(`SELECT ${columns} FROM ledger_events WHERE run_id = ? ORDER BY "offset"`)
  const head = db.prepare<[], number>(`SELECT "offset" FROM ledger_events ORDER BY "offset" DESC LIMIT 1`).pluck()
  const latestOffset = () => head.get() ?? 0
  let last = latestOffset()
  const single = (events: ReadonlyArray<Event.Event>) => {
    for (const event of events) insert.run(rowOf(event, ++last))
  }
  const againSingle = (events: ReadonlyArray<Event.Event>) => {
    for (const event of events) last += insertNew.run(rowOf(event, last + 1), event.id).changes
  }
  return {
    single,
    together: single,
    batch: db.transaction(single).immediate,
    again: { single: againSingle, batch: db.transaction(againSingle).immediate },
    readAll: () => {
      let count = 0
      for (const row of all.iterate()) if (decoded(row).payload !== null) count++
      return count
    },
    readRun: (runId) => run.all(runId).map(decoded).length,
    latestOffset,
    close: async () => void db.close()
  }
}

export const postgres = async (url: string, schema: string): Promise<Whole> => {
  const { Pool } = await import("pg")
  const table = `${schema}.ledger_events`
  const pool = new Pool({ connectionString: url, max: 10 })
  const client = await pool.connect()
  const insert = (count: number, conflict = "") =>
    `INSERT INTO ${table} (${columns}) VALUES ${
      Array.from({ length: count }, (_, row) => `(${Array.from({ length: 13 }, (_, n) => `$${row * 13 + n + 1}`)})`)
    } ${conflict}`
  const one = insert(1)
  const page = `SELECT ${columns} FROM ${table} WHERE "offset" > $1 ORDER BY "offset" LIMIT 1000`
  const latestOffset = async () => {
    const { rows } = await client.query<{ readonly offset: string }>(
      `SELECT "offset" FROM ${table} ORDER BY "offset" DESC LIMIT 1`
    )
    return Number(rows[0]?.offset ?? 0)
  }
  let last: number | undefined
  const next = async (events: ReadonlyArray<Event.Event>) => {
    last ??= await latestOffset()
    const after = last
    last += events.length
    return events.map((event, index) => rowOf(event, after + index + 1))
  }
  const insertKnown = async (events: ReadonlyArray<Event.Event>) => {
    const far = 1_000_000_000
    await client.query(
      insert(events.length, "ON CONFLICT DO NOTHING"),
      events.flatMap((event, index) => rowOf(event, far + index))
    )
  }
  return {
    single: async (events) => {
      for (const row of await next(events)) await client.query(one, row)
    },
    together: async (events) => void await Promise.all((await next(events)).map((row) => pool.query(one, row))),
    batch: async (events) => {
      await client.query("BEGIN")
      await client.query(insert(events.length), (await next(events)).flat())
      await client.query("COMMIT")
    },
    again: {
      single: async (events) => {
        for (const event of events) await insertKnown([event])
      },
      batch: insertKnown
    },
    readAll: async () => {
      let count = 0
      for (let after = 0;;) {
        const { rows } = await client.query<BareRow & { readonly offset: string }>(page, [after])
        if (rows.length === 0) return count
        count += rows.map(decoded).length
        after = Number(rows[rows.length - 1]?.offset)
      }
    },
    readRun: async (runId) =>
      (await client.query<BareRow>(`SELECT ${columns} FROM ${table} WHERE run_id = $1 ORDER BY "offset"`, [runId]))
        .rows.map(decoded).length,
    latestOffset,
    close: async () => {
      client.release()
      await pool.end()
    }
  }
}

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

/**
 * Large ledgers, made inside the database: a statement counts, and writes events with their digests as this library
 * would. An empty ledger is filled without its indices and SQLite's triggers, which are made again as they were.
 */
import Sqlite from "better-sqlite3"
import { Client } from "pg"
import { sha256 } from "../src/internal/digest.js"
import { spanRows } from "../src/internal/sqlStore.js"

/** Where 1,000 runs (one of them has all that is left) and sessions of 100 events are, and 100 rare events: spread evenly, whatever the size is. */
const smallRuns = 1000
const smallEvents = smallRuns * 100

/** What differs between the databases. */
interface Dialect {
  readonly table: string
  /** The SHA-256 of a text. */
  readonly digest: (text: string) => string
  /** ISO 8601 without a fraction, of seconds since 1970. */
  readonly iso: (seconds: string) => string
}

/**
 * Appends the events `from` to `through` of a ledger that is to hold `of`. Those behind `of` are each a run of their own.
 */
const insert = ({ digest, iso, table }: Dialect, from: number, through: number, of: number): string => {
  const every = Math.max(1, Math.floor(of / smallEvents))
  const small = `n % ${every} = 0 AND n <= ${of}`
  const columns = {
    "\"offset\"": "n",
    id: "'event-' || n",
    run_id:
      `CASE WHEN n > ${of} THEN 'own-' || n WHEN ${small} THEN 'run-' || (n / ${every} % ${smallRuns}) ELSE 'run-0' END`,
    turn: "CAST(n % 50 AS int)",
    kind: `CASE WHEN n % ${
      Math.max(1, Math.floor(of / 100))
    } = 0 THEN 'run.finished' WHEN n % 3 = 0 THEN 'agent.spoke' ELSE 'model.replied' END`,
    actor: "'actor-' || (n % 7)",
    payload: `'{"cost":' || (n % 1000) || ',"text":"line ' || n || '${
      " lorem ipsum dolor sit amet".repeat(7)
    }","tokens":' || (n % 900) || ',"tools":["search","read"]}'`,
    created_at: `(${epoch} + n) * 1000`,
    schema_version: "1",
    session_id: `CASE WHEN ${small} THEN 'session-' || (n / ${every} % ${smallRuns}) END`,
    model_profile: "'fast'",
    model_id: "'model-' || (n % 3)"
  }
  const canonical =
    `'{"actor":"' || actor || '","created_at":"' || ${iso(`${epoch} + "offset"`)} || '.000Z","id":"' || id || ` +
    `'","kind":"' || kind || '","model_id":"' || model_id || '","model_profile":"' || model_profile || ` +
    `'","payload":' || payload || ',"run_id":"' || run_id || '","schema_version":1,"session_id":' || ` +
    `coalesce('"' || session_id || '"', 'null') || ',"turn":' || turn || '}'`
  const names = Object.keys(columns).join(", ")
  return `WITH RECURSIVE counted(n) AS (SELECT CAST(${from} AS bigint) UNION ALL SELECT n + 1 FROM counted WHERE n < ${through}),
    made AS (SELECT ${Object.entries(columns).map(([name, value]) => `${value} AS ${name}`)} FROM counted)
    INSERT INTO ${table} (${names}, digest) SELECT ${names}, ${digest(canonical)} FROM made`
}

const epoch = 1_760_000_000

/** When the event at an offset was created, in milliseconds. */
export const createdAt = (offset: number): number => (epoch + offset) * 1000

const step = 100_000

/** Fills a ledger in a file, which was made and holds nothing, or so many events of the same kind. */
export const fillSqlite = (file: string, from: number, through: number, of: number): void => {
  const db = new Sqlite(file)
  db.pragma("synchronous = OFF")
  db.pragma("journal_mode = OFF")
  db.pragma("cache_size = -1000000")
  db.function("sha256", { deterministic: true }, (text) => Buffer.from(sha256(String(text)), "hex"))
  const dropped = db.prepare<[], { readonly type: string; readonly name: string; readonly sql: string }>(
    "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = 'ledger_events' AND type IN ('index', 'trigger') AND sql IS NOT NULL"
  ).all().filter(() => from === 1)
  for (const { name, type } of dropped) db.exec(`DROP ${type} ${name}`)
  const dialect: Dialect = {
    table: "ledger_events",
    digest: (text) => `sha256(${text})`,
    iso: (seconds) => `strftime('%Y-%m-%dT%H:%M:%S', ${seconds}, 'unixepoch')`
  }
  for (let n = from; n <= through; n += step) db.exec(insert(dialect, n, Math.min(through, n + step - 1), of))
  for (const { sql } of dropped) db.exec(sql)
  if (from === 1) {
    db.exec(
      `INSERT INTO ledger_spans SELECT max("offset"), min(created_at), max(created_at) FROM ledger_events ` +
        `GROUP BY ("offset" - 1) / ${spanRows} HAVING count(*) = ${spanRows}`
    )
  }
  db.pragma("journal_mode = WAL")
  db.close()
}

/** Fills a ledger in a schema, as {@link fillSqlite} does. */
export const fillPostgres = async (
  url: string,
  schema: string,
  from: number,
  through: number,
  of: number
): Promise<void> => {
  const client = new Client({ connectionString: url })
  await client.connect()
  await client.query("SET synchronous_commit = off; SET maintenance_work_mem = '1GB'")
  const { rows: dropped } = await client.query<{ readonly indexname: string; readonly indexdef: string }>(
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = $1 AND tablename = 'ledger_events' " +
      "AND indexdef LIKE 'CREATE INDEX%' AND $2",
    [schema, from === 1]
  )
  for (const { indexname } of dropped) await client.query(`DROP INDEX ${schema}.${indexname}`)
  const table = `${schema}.ledger_events`
  const dialect: Dialect = {
    table,
    digest: (text) => `sha256(convert_to(${text}, 'UTF8'))`,
    iso: (seconds) => `to_char(to_timestamp(${seconds}) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')`
  }
  for (let n = from; n <= through; n += step) {
    await client.query(insert(dialect, n, Math.min(through, n + step - 1), of))
  }
  for (const { indexdef } of dropped) await client.query(indexdef)
  // as autovacuum would have done by and by, in the middle of what is measured
  await client.query(`VACUUM (ANALYZE) ${table}`)
  await client.query("CHECKPOINT")
  await client.end()
}

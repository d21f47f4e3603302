/**
 * Which lock orders appends: an empty table, or an advisory lock? Single appends through the bare driver, the two in
 * turn, in the same table; the ratio is taken round by round. `npx tsx bench/lock.ts`
 */
import { Effect, Redacted } from "effect"
import { randomUUID } from "node:crypto"
import { Client } from "pg"
import { Ledger } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import { startPostgres } from "../test/support/postgres.js"

const rounds = 25
const appends = 200

const server = await startPostgres()
await Effect.runPromise(Ledger.latestOffset.pipe(Effect.provide(PgLedger.layerUrl(Redacted.make(server.url)))))
const client = new Client(server.url)
await client.connect()
const { rows } = await client.query<{ readonly definition: string; readonly table: string }>(
  "SELECT proname AS table, pg_get_functiondef(oid) AS definition FROM pg_proc WHERE proname LIKE 'ledger_append_v%_one'"
)
const { definition, table } = rows[0]!
await client.query(
  definition.replace(table, "advisory").replace(
    /LOCK TABLE [^;]*/,
    "PERFORM pg_advisory_xact_lock(7308, (SELECT 'public.ledger_events'::regclass::oid::int))"
  )
)

const digest = Buffer.alloc(32)
const time = async (name: string): Promise<number> => {
  const started = performance.now()
  for (let n = 0; n < appends; n++) {
    await client.query(
      `SELECT ${name}($1,'r',1,'a.b','x','{}',0,1,NULL,NULL,NULL,$2,'',10000,NULL)`,
      [randomUUID(), digest]
    )
  }
  return (performance.now() - started) / appends
}

const figures: Array<readonly [table: number, advisory: number]> = []
for (let round = 0; round < rounds; round++) {
  figures.push(
    round % 2 === 0
      ? [await time(table), await time("advisory")]
      : await time("advisory").then(async (advisory) => [await time(table), advisory] as const)
  )
}
const median = (values: ReadonlyArray<number>) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
const ratios = figures.map(([table, advisory]) => table / advisory)
console.log(
  `one append, ms, median of ${rounds} rounds: table ${median(figures.map(([table]) => table)).toFixed(3)}, ` +
    `advisory ${median(figures.map(([, advisory]) => advisory)).toFixed(3)}, ratio ${median(ratios).toFixed(3)} ` +
    `(${Math.min(...ratios).toFixed(3)} to ${Math.max(...ratios).toFixed(3)})`
)
await client.end()
await server.stop()

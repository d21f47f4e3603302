import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { randomBytes } from "node:crypto"
import * as Pg from "pg"
import { afterAll, inject } from "vitest"
import * as PgLedger from "../src/PgLedger.js"
import { suite } from "./contract/index.js"
import { contractClient } from "./support/contractClient.js"

const url = inject("databaseUrl")
// the database may be one that other runs use too
const prefix = `contract_${randomBytes(4).toString("hex")}`

let schemas = 0
const newSchema = () => `${prefix}_${++schemas}`
const ledger = (schema: string) => PgLedger.layerUrl(Redacted.make(url), { schema, maxConnections: 4 })

afterAll(async () => {
  const client = new Pg.Client({ connectionString: url })
  await client.connect()
  for (let schema = 1; schema <= schemas; schema++) {
    await client.query(`DROP SCHEMA IF EXISTS ${prefix}_${schema} CASCADE`)
  }
  await client.end()
})

suite("Postgres", {
  layer: () => ledger(newSchema()),
  consumers: () => ledger(newSchema()),
  stored: () => ledger(newSchema()),
  client: () => {
    const schema = newSchema()
    return contractClient({
      events: `${schema}.ledger_events`,
      notes: `${schema}.notes`,
      order: "place int8 GENERATED ALWAYS AS IDENTITY",
      lift: [
        `ALTER TABLE ${schema}.ledger_events DISABLE TRIGGER ledger_append_only`,
        `DO $$ DECLARE name text; BEGIN
          FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = '${schema}.ledger_events'::regclass AND contype = 'c'
          LOOP EXECUTE 'ALTER TABLE ${schema}.ledger_events DROP CONSTRAINT ' || quote_ident(name); END LOOP;
        END $$`
      ]
    }).pipe(Layer.provideMerge(ledger(schema)))
  }
})

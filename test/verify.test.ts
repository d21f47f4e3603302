/** What verify finds in a database that was damaged, or whose guards were changed. The contract has what all backends share. */
import { afterAll, describe, expect, inject, it } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { Context, DateTime, Effect, Either, Layer, Redacted } from "effect"
import { execFileSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Client } from "pg"
import { type Event, Ledger, LedgerStore, Verify } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { canonical, digest, epoch, event, events } from "./contract/fixtures.js"
import { random } from "./support/following.js"
import { bundleAlone } from "./support/processes.js"

const root = Fs.mkdtempSync(join(tmpdir(), "effect-ledger-verify-"))
afterAll(() => Fs.rmSync(root, { recursive: true, force: true }))
let files = 0
const newFile = () => join(root, `${++files}.db`)

const fill = (file: string, held: ReadonlyArray<Event.Event>) =>
  Ledger.appendAll(held).pipe(Effect.provide(SqliteLedger.layerFile(file, { durability: "relaxed" })))

const verifyFile = (file: string) =>
  Verify.run().pipe(Effect.provide(SqliteLedger.layerFile(file, { durability: "relaxed" })))

describe("a SQLite file", () => {
  it.live(
    "1,000 single bytes changed in what an event says: each is found, at its offset",
    () =>
      Effect.gen(function*() {
        const seed = randomBytes(4).toString("hex")
        console.log(`seed of the changes: ${seed}`)
        const next = random(seed)
        const upTo = (n: number) => Math.floor(next() * n)
        const held = Array.from({ length: 300 }, (_, n): Event.Event =>
          event(`event-${n}-${upTo(1e9)}`, {
            runId: `run-${upTo(20)}`,
            // at least two bytes wide, so that the columns stand where they are looked for
            turn: 1000 + upTo(10_000),
            kind: ["agent.spoke", "tool.called"][upTo(2)]!,
            actor: ["ada", "béa", "\u{1f4be}"][upTo(3)]!,
            payload: { n, said: "x".repeat(upTo(300)), é: [upTo(1e6), null, true] },
            createdAt: DateTime.unsafeMake(epoch + upTo(1e9)),
            schemaVersion: 300,
            sessionId: upTo(2) === 0 ? null : `session-${upTo(9)}`,
            modelId: upTo(2) === 0 ? null : `model-${upTo(9)}`
          }))
        const template = newFile()
        yield* fill(template, held)
        const sound = Fs.readFileSync(template)
        expect(yield* verifyFile(template)).toMatchObject({ head: 300, checked: 300, count: 0, problems: [] })
        Fs.writeFileSync(template, sound)

        const file = newFile()
        const missed: Array<string> = []
        let unopened = 0
        for (let n = 0; n < 1000; n++) {
          const index = upTo(held.length)
          const { begin, end } = cellOf(sound, held[index]!)
          const at = begin + upTo(end - begin)
          const damaged = Buffer.from(sound)
          damaged[at] = damaged[at]! ^ (1 + upTo(255))
          Fs.writeFileSync(file, damaged)
          const report = yield* Effect.either(verifyFile(file))
          if (Either.isLeft(report)) unopened++
          else if (!report.right.problems.some(({ offset }) => offset === index + 1)) {
            missed.push(
              `event ${index + 1}, byte ${at - begin} of ${end - begin}: ${JSON.stringify(report.right.problems)}`
            )
          }
        }
        expect(missed).toStrictEqual([])
        // the whole file could be opened each time
        expect(unopened).toBe(0)
      }),
    120_000
  )

  it.live("a page that cannot be read: its events are named, and the others are read", () =>
    Effect.gen(function*() {
      const file = newFile()
      const held = events(2500)
      yield* fill(file, held)
      const bytes = Fs.readFileSync(file)
      const page = Math.floor(cellOf(bytes, held[1799]!).begin / 4096)
      bytes.fill(0xff, page * 4096, page * 4096 + 8)
      Fs.writeFileSync(file, bytes)
      const { checked, count, head, problems } = yield* verifyFile(file)
      expect(head).toBe(2500)
      const db = new Sqlite(file)
      const row = db.prepare("SELECT * FROM ledger_events WHERE \"offset\" = ?")
      const lost = held.map((_, index) => index + 1).filter((offset) => {
        try {
          return row.get(offset) === undefined
        } catch {
          return true
        }
      })
      db.close()
      expect(lost).toContain(1800)
      const found = problems.flatMap(({ offset }) => offset === null ? [] : [offset])
      expect(found).toStrictEqual(lost)
      expect(checked + found.length).toBe(2500)
      expect(count).toBeGreaterThan(found.length)
    }))

  it.live("a file that cannot be read at all is an error or a problem, never a success", () =>
    Effect.gen(function*() {
      const file = newFile()
      yield* fill(file, events(300))
      const bytes = Fs.readFileSync(file)
      const damages: ReadonlyArray<readonly [string, Buffer]> = [
        ["the header", Buffer.concat([Buffer.alloc(16), bytes.subarray(16)])],
        ["the schema", Buffer.concat([bytes.subarray(0, 100), Buffer.alloc(900, 0xff), bytes.subarray(1000)])],
        ["half of it", bytes.subarray(0, bytes.length >> 1)],
        ["all but the first page", Buffer.concat([bytes.subarray(0, 4096), Buffer.alloc(bytes.length - 4096)])]
      ]
      for (const [what, damaged] of damages) {
        Fs.writeFileSync(file, damaged)
        const report = yield* Effect.either(verifyFile(file))
        if (Either.isLeft(report)) expect(`${what}: ${report.left._tag}`).toMatch(/: (Store|Incompatible)/)
        else expect(`${what}: ${report.right.count}`).toMatch(/: [1-9]/)
      }
    }))

  it.live("guards that are missing or changed, an index that differs, and checkpoints at nothing", () =>
    Effect.gen(function*() {
      const file = newFile()
      yield* fill(file, events(50))
      const sound = Fs.readFileSync(file)
      const position = `('reader', 0, 1, (SELECT incarnation FROM ledger_meta), 7, '${"0".repeat(64)}', 1, NULL, 0)`
      const changes: ReadonlyArray<readonly [string, RegExp]> = [
        ["DROP TRIGGER ledger_no_update", /trigger "ledger_no_update" is missing/],
        ["DROP TRIGGER ledger_no_delete", /trigger "ledger_no_delete" is missing/],
        [
          "DROP TRIGGER ledger_only_append; CREATE TRIGGER ledger_only_append BEFORE INSERT ON ledger_events BEGIN SELECT 1; END",
          /trigger "ledger_only_append" is missing, or was changed/
        ],
        ["DROP TRIGGER ledger_span", /trigger "ledger_span" is missing/],
        ["INSERT INTO ledger_spans VALUES (4096, 0, 0)", /times of the span that ends at 4096 are not those/],
        ["DROP INDEX ledger_kind", /index "ledger_kind" is missing/],
        ["DROP INDEX ledger_large", /index "ledger_large" is missing/],
        ["DROP VIEW ledger_view", /view "ledger_view" is missing/],
        ["DROP TABLE ledger_dead_letters", /table "ledger_dead_letters" is missing/],
        [
          "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, 'length(digest) = 32', 'true')",
          /table "ledger_events" is missing, or was changed/
        ],
        [`INSERT INTO ledger_consumers VALUES ${position}`, /consumer reader has a checkpoint at another event .* 7/],
        [
          "INSERT INTO ledger_projections VALUES ('sum', 1, 1, (SELECT incarnation FROM ledger_meta), 99, 'x', '{}')",
          /projection sum has a checkpoint at another event .* 99/
        ],
        [
          "PRAGMA ignore_check_constraints = ON; DROP TRIGGER ledger_only_append; " +
          "INSERT INTO ledger_events SELECT -3, 'x', run_id, turn, kind, actor, payload, created_at, schema_version, " +
          "session_id, model_profile, model_id, digest FROM ledger_events WHERE \"offset\" = 1",
          /a row stands at the offset -3/
        ]
      ]
      for (const [change, expected] of changes) {
        Fs.writeFileSync(file, sound)
        expect((yield* verifyFile(file)).problems).toStrictEqual([])
        const db = new Sqlite(file)
        db.unsafeMode()
        db.exec(change)
        db.close()
        const { problems } = yield* verifyFile(file)
        expect([change, ...problems.map(({ what }) => what)].join("\n")).toMatch(expected)
      }
      Fs.writeFileSync(file, sound)
      indexOtherwise(file)
      expect((yield* verifyFile(file)).problems.map(({ what }) => what).join("\n")).toMatch(
        /missing from index ledger_run/
      )
    }))

  it.live("a large file is checked by another thread, and answers the same", () =>
    Effect.gen(function*() {
      const file = newFile()
      yield* fill(file, events(3000, "large", { payload: { text: "x".repeat(2000) } }))
      expect(Fs.statSync(file).size).toBeGreaterThan(2 ** 22)
      expect((yield* verifyFile(file)).problems).toStrictEqual([])
      indexOtherwise(file)
      expect((yield* verifyFile(file)).problems.map(({ what }) => what).join("\n")).toMatch(
        /missing from index ledger_run/
      )
    }))

  it.live("a program that is one file finds no driver for another thread, and checks and replaces all the same", () =>
    Effect.gen(function*() {
      const [file, folder] = [newFile(), Fs.mkdtempSync(join(root, "alone-"))]
      yield* fill(file, events(3000, "large", { payload: { text: "x".repeat(2000) } }))
      expect(Fs.statSync(file).size).toBeGreaterThan(2 ** 22)
      const program = yield* Effect.promise(() => bundleAlone("bundled.ts", folder))
      const answer = () =>
        JSON.parse(execFileSync(process.execPath, [program, file, join(folder, "copy.db")], { encoding: "utf8" }))
      expect(answer()).toStrictEqual({ count: 3000, driver: null, problems: [] })
      indexOtherwise(file)
      expect(answer().problems.map(({ what }: { readonly what: string }) => what).join("\n")).toMatch(
        /missing from index ledger_run/
      )
    }))
})

describe("a ledger in Postgres", () => {
  const url = inject("databaseUrl")
  const schema = `verify_${randomBytes(4).toString("hex")}`

  it.scopedLive("guards that are missing or changed, and checkpoints at nothing", () =>
    Effect.gen(function*() {
      const client = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const client = new Client(url)
          await client.connect()
          return client
        }),
        (client) =>
          Effect.promise(async () => {
            await client.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)
            await client.end()
          })
      )
      const store = Context.get(
        yield* Layer.build(PgLedger.layerUrl(Redacted.make(url), { schema, maxConnections: 2 })),
        LedgerStore.LedgerStore
      )
      const table = `${schema}.ledger_events`
      const changes: ReadonlyArray<readonly [string, RegExp, string?]> = [
        [`ALTER TABLE ${table} DISABLE TRIGGER ledger_append_only`, /not ENABLE ALWAYS/],
        // as a restore with --disable-triggers leaves it
        [`ALTER TABLE ${table} ENABLE TRIGGER ledger_append_only`, /not ENABLE ALWAYS/],
        [`DROP TRIGGER ledger_append_only ON ${table}`, /trigger that refuses changes is missing/],
        [
          `DROP TRIGGER ledger_append_only ON ${table};
           CREATE TRIGGER ledger_append_only BEFORE UPDATE ON ${table} EXECUTE FUNCTION ${schema}.ledger_refuse();
           ALTER TABLE ${table} ENABLE ALWAYS TRIGGER ledger_append_only`,
          /trigger that refuses changes was changed/
        ],
        [
          `CREATE OR REPLACE FUNCTION ${schema}.ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RETURN NULL; END $$`,
          /function "ledger_refuse" is missing, or was changed/
        ],
        ...["ledger_append_v4", "ledger_append_v4_one"].map((name) =>
          [
            `DO $$ BEGIN EXECUTE (SELECT 'DROP FUNCTION ' || oid::regprocedure FROM pg_proc
             WHERE proname = '${name}' AND pronamespace = '${schema}'::regnamespace); END $$`,
            new RegExp(`function "${name}" is missing`)
          ] as const
        ),
        [`ALTER TABLE ${table} DISABLE TRIGGER ledger_span`, /trigger that keeps the times of spans is missing/],
        [
          `INSERT INTO ${schema}.ledger_spans VALUES (4096, 0, 0)`,
          /times of the span that ends at 4096 are not those/
        ],
        [`DROP INDEX ${schema}.ledger_actor`, /index "ledger_actor" is missing/],
        [`DROP INDEX ${schema}.ledger_large`, /index "ledger_large" is missing/],
        [`ALTER TABLE ${table} DROP CONSTRAINT ledger_events_pkey`, /primary key is missing/],
        [`ALTER TABLE ${table} DROP CONSTRAINT ledger_events_id_key`, /unique constraint of the id is missing/],
        [`ALTER TABLE ${table} DROP CONSTRAINT ledger_events_digest_check`, /1 of 13 check constraints/],
        [
          `DROP TRIGGER ledger_append_only ON ${table};
           CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ${table} WHEN (false)
           EXECUTE FUNCTION ${schema}.ledger_refuse(); ALTER TABLE ${table} ENABLE ALWAYS TRIGGER ledger_append_only`,
          /trigger that refuses changes was changed/
        ],
        [
          `DROP TRIGGER ledger_append_only ON ${table};
           CREATE TRIGGER ledger_append_only BEFORE UPDATE OF turn OR DELETE OR TRUNCATE ON ${table}
           EXECUTE FUNCTION ${schema}.ledger_refuse(); ALTER TABLE ${table} ENABLE ALWAYS TRIGGER ledger_append_only`,
          /trigger that refuses changes was changed/
        ],
        [
          `ALTER TABLE ${table} DROP CONSTRAINT ledger_events_kind_check;
           ALTER TABLE ${table} ADD CONSTRAINT ledger_events_kind_check CHECK (true)`,
          /1 of 13 check constraints/
        ],
        [
          `ALTER TABLE ${table} DROP CONSTRAINT ledger_events_pkey;
           ALTER TABLE ${table} ADD CONSTRAINT ledger_events_pkey PRIMARY KEY ("offset", id)`,
          /primary key is missing, or was changed/
        ],
        [
          `ALTER TABLE ${table} DROP CONSTRAINT ledger_events_id_key;
           ALTER TABLE ${table} ADD CONSTRAINT ledger_events_id_key UNIQUE (id, actor)`,
          /unique constraint of the id is missing, or was changed/
        ],
        ...[
          "(kind, \"offset\")",
          "(actor)",
          "(actor, \"offset\" DESC)",
          "(actor, \"offset\") WHERE actor <> 'ada'",
          "(actor COLLATE \"POSIX\", \"offset\")"
        ].map((keys) =>
          [
            `DROP INDEX ${schema}.ledger_actor; CREATE INDEX ledger_actor ON ${table} ${keys}`,
            /index "ledger_actor" was changed/
          ] as const
        ),
        [
          `DROP INDEX ${schema}.ledger_model; CREATE INDEX ledger_model ON ${table} (model_id, "offset")`,
          /index "ledger_model" was changed/
        ],
        ...["SECURITY INVOKER", "RESET search_path", "SET search_path = public", "SET work_mem = '1MB'"].map((change) =>
          [
            `DO $$ BEGIN EXECUTE (SELECT 'ALTER FUNCTION ' || oid::regprocedure || ' ${
              change.replaceAll("'", "''")
            }' FROM pg_proc
             WHERE proname = 'ledger_append_v4' AND pronamespace = '${schema}'::regnamespace); END $$`,
            /function "ledger_append_v4" is missing, or was changed/
          ] as const
        ),
        [
          `INSERT INTO ${schema}.ledger_consumers
           SELECT 'reader', 0, 1, incarnation, 3, 'x', 1, NULL, 0 FROM ${schema}.ledger_meta`,
          /consumer reader has a checkpoint at another event .* 3/
        ]
      ]
      expect(yield* store.inspect).toStrictEqual([])
      for (const [change, expected] of changes) {
        yield* Effect.promise(() => client.query("BEGIN"))
        yield* Effect.promise(() => client.query(change))
        yield* Effect.promise(() => client.query("COMMIT"))
        const problems = yield* store.inspect
        expect([change, ...problems.map(({ what }) => what)].join("\n")).toMatch(expected)
        expect(problems).toHaveLength(1)
        yield* Effect.promise(() => client.query(`DROP SCHEMA ${schema} CASCADE`))
        yield* Effect.scoped(Layer.build(PgLedger.layerUrl(Redacted.make(url), { schema, maxConnections: 1 })))
      }
    }))
})

/**
 * Where a file holds the record of an event, from its id to its digest. Where pages were split, copies of records are left
 * in the unused part of pages before.
 */
const cellOf = (bytes: Buffer, one: Event.Event): { readonly begin: number; readonly end: number } => {
  const payload = Buffer.from(canonical(one.payload))
  const at = bytes.lastIndexOf(payload)
  const before = Buffer.from(`${one.id}${one.runId}`)
  const begin = bytes.lastIndexOf(before, at)
  const end = bytes.indexOf(Buffer.from(digest(one), "hex"), at) + 32
  expect(begin).toBeGreaterThan(0)
  expect(end - at).toBeLessThan(payload.length + 200)
  return { begin, end }
}

/** Makes the index of runs one of actors that says it is one of runs. */
const indexOtherwise = (file: string): void => {
  const write = (from: string, to: string, then: string) => {
    const db = new Sqlite(file)
    db.unsafeMode()
    db.exec("PRAGMA writable_schema = ON")
    db.prepare("UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'ledger_run'").run(from, to)
    db.close()
    const again = new Sqlite(file)
    again.exec(then)
    again.close()
  }
  write("(run_id", "(actor", "REINDEX ledger_run")
  write("(actor", "(run_id", "SELECT 1")
}

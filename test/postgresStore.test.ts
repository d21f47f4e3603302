/** What only Postgres can show. */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { assert, describe, it } from "@effect/vitest"
import { Chunk, Context, Duration, Effect, Exit, Fiber, Layer, Redacted, Stream } from "effect"
import { createHash, randomBytes } from "node:crypto"
import * as Fs from "node:fs"
import * as Net from "node:net"
import { inspect } from "node:util"
import { Client } from "pg"
import { inject } from "vitest"
import { Consumer, Event, Ledger, LedgerStore, Verify } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import { eventually } from "./contract/handle.js"
import { runScript } from "./support/processes.js"
import { startProxy } from "./support/proxy.js"
import { until } from "./support/running.js"

const url = inject("databaseUrl")
const newSchema = () => `t${randomBytes(8).toString("hex")}`
const open = ({ url: at = url, ...options }: PgLedger.UrlOptions & { readonly url?: string } = {}) =>
  PgLedger.layerUrl(Redacted.make(at), { schema: newSchema(), maxConnections: 4, ...options })
const proxied = Effect.acquireRelease(
  Effect.promise(() => startProxy(url)),
  (proxy) => Effect.sync(() => proxy.close())
)

let made = 0
const event = (over: Partial<Event.Event> = {}): Effect.Effect<Event.Event> =>
  Effect.map(
    Effect.orDie(Event.create({
      id: `e${++made}`,
      runId: "run",
      turn: 1,
      kind: "agent.spoke",
      actor: "ada",
      payload: { n: made }
    })),
    (event) => ({ ...event, ...over })
  )
const events = (count: number) => Effect.all(Array.from({ length: count }, () => event()))
const offsets = Effect.map(Ledger.events, (all) => all.map(({ offset }) => offset))
const dense = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

const raw = <A>(use: (client: Client) => Promise<A>): Effect.Effect<A> =>
  Effect.acquireUseRelease(
    Effect.promise(async () => {
      const client = new Client(url)
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => use(client)),
    (client) => Effect.promise(() => client.end())
  )

describe("notifications", () => {
  it.live("the last is sent before the ledger is closed, and none for duplicates", () => {
    const schema = newSchema()
    const channel = `effect_ledger_${createHash("md5").update(`"${schema}"."ledger_events"`).digest("hex")}`
    return raw(async (client) => {
      let told = 0
      client.on("notification", () => told++)
      await client.query(`LISTEN ${channel}`)
      const appendEach = (all: ReadonlyArray<Event.Event>) =>
        Effect.runPromise(Effect.provide(
          Effect.forEach(all, Ledger.append, { discard: true }),
          open({ schema, maxConnections: 2 })
        ))
      for (let n = 1; n <= 10; n++) {
        const two = await Effect.runPromise(events(2))
        // the second is due when the ledger is closed already
        await appendEach(two)
        await Effect.runPromise(until(() => told >= 2 * n))
        await appendEach(two)
      }
      await client.query("SELECT 1")
      assert.strictEqual(told, 20)
    })
  })
})

describe("Postgres set-up", () => {
  it.live(
    "32 processes that start at once on one empty schema all come up and leave no hole",
    () =>
      Effect.gen(function*() {
        const schema = newSchema()
        const env = { DATABASE_URL: url, LEDGER_SCHEMA: schema }
        yield* Effect.promise(() =>
          Promise.all(Array.from({ length: 32 }, (_, n) => runScript("appender.ts", [`p${n}`, "50"], env)))
        )
        yield* Effect.gen(function*() {
          assert.deepStrictEqual(yield* offsets, dense(32 * 50))
          assert.strictEqual((yield* Ledger.runs).length, 32)
          for (const runId of yield* Ledger.runs) {
            const turns = (yield* Ledger.eventsForRun(runId)).map(({ turn }) => turn)
            assert.deepStrictEqual(turns, dense(50).map((n) => n - 1))
          }
        }).pipe(Effect.provide(open({ schema })))
      }),
    120_000
  )

  it.live("opening an existing ledger writes nothing", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      yield* Effect.provide(Effect.flatMap(event(), Ledger.append), open({ schema }))
      // where every write is refused, whatever else the server has to do meanwhile
      const readOnly = new URL(url)
      readOnly.searchParams.set("options", "-c default_transaction_read_only=on")
      const reading = PgLedger.layerUrl(Redacted.make(readOnly.href), { schema })
      assert.strictEqual(yield* Effect.provide(Ledger.latestOffset, reading), 1)
      const refused = yield* Effect.flip(Effect.provide(Effect.flatMap(event(), Ledger.append), reading))
      assert.include(refused.message, "read")
    }))

  it.live("two ledgers in one schema, told apart by their prefixes, do not see each other", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      yield* Effect.provide(Effect.flatMap(events(3), Ledger.appendAll), open({ schema, prefix: "one_" }))
      assert.strictEqual(yield* Effect.provide(Ledger.latestOffset, open({ schema, prefix: "two_" })), 0)
      assert.strictEqual(yield* Effect.provide(Ledger.latestOffset, open({ schema, prefix: "one_" })), 3)
    }))

  it.live("a newer set-up, a database that is not UTF8, and a bad prefix are refused", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      yield* Effect.provide(Ledger.latestOffset, open({ schema }))
      yield* raw((client) => client.query(`UPDATE ${schema}.ledger_meta SET version = 99`))
      const newer = yield* Effect.flip(Effect.provide(Ledger.latestOffset, open({ schema })))
      assert.strictEqual(newer._tag, "IncompatibleStore")
      assert.include(newer.message, "99")

      const name = newSchema()
      yield* raw((client) =>
        client.query(`CREATE DATABASE ${name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
      )
      const other = new URL(url)
      other.pathname = `/${name}`
      const ascii = yield* Effect.flip(
        Effect.provide(Ledger.latestOffset, PgLedger.layerUrl(Redacted.make(other.href), { schema }))
      )
      assert.strictEqual(ascii._tag, "IncompatibleStore")
      yield* raw((client) => client.query(`DROP DATABASE ${name} WITH (FORCE)`))

      const prefix = yield* Effect.flip(Effect.provide(Ledger.latestOffset, open({ prefix: "Bad-Name" })))
      assert.strictEqual(prefix._tag, "StoreFailure")
    }))

  it.live("a host that refuses, and one that accepts and never answers, are StoreUnavailable", () =>
    Effect.scoped(Effect.gen(function*() {
      const server = yield* Effect.acquireRelease(
        Effect.async<Net.Server>((resume) => {
          const server = Net.createServer(() => {}).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const silent = yield* tryUrl(`postgresql://ada:s3cret@127.0.0.1:${(server.address() as Net.AddressInfo).port}/x`)
      assert.strictEqual(silent._tag, "StoreUnavailable")
      server.close()
      const refused = yield* tryUrl(`postgresql://ada:s3cret@127.0.0.1:1/x`)
      assert.strictEqual(refused._tag, "StoreUnavailable")
      assert.notInclude(JSON.stringify([silent, refused]), "s3cret")
    })))
})

const tryUrl = (url: string) =>
  Effect.flip(
    Effect.provide(Ledger.latestOffset, PgLedger.layerUrl(Redacted.make(url), { connectTimeout: "300 millis" }))
  )

describe("Postgres guards its table", () => {
  it.live("change, removal and stray rows are refused, also for a replica's session", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const table = `${schema}.ledger_events`
      yield* Effect.provide(Effect.flatMap(events(3), Ledger.appendAll), open({ schema }))
      const columns = `"offset", id, run_id, turn, kind, actor, payload, created_at, schema_version, digest`
      const row = (over: Record<string, string>) =>
        Object.values({
          offset: "4",
          id: "'x'",
          run: "'r'",
          turn: "0",
          kind: "'a.b'",
          actor: "'a'",
          payload: "'{}'",
          created: "0",
          version: "1",
          digest: "decode(repeat('00', 32), 'hex')",
          ...over
        }).join(", ")
      const forbidden = [
        `UPDATE ${table} SET turn = 9`,
        `DELETE FROM ${table}`,
        `TRUNCATE ${table}`,
        `SET session_replication_role = replica; DELETE FROM ${table}`,
        ...[
          { offset: "0" },
          { offset: "2" },
          { id: "''" },
          { id: `'${"x".repeat(65)}'` },
          { turn: "-1" },
          { kind: "'nodots'" },
          { kind: "E'a.b\\n'" },
          { kind: "'A.b'" },
          { payload: "'[]'" },
          { payload: "'no json'" },
          { created: "253402300800000" },
          { version: "0" },
          { digest: "decode('00', 'hex')" }
        ].map((over) => `INSERT INTO ${table} (${columns}) VALUES (${row(over)})`)
      ]
      for (const text of forbidden) {
        const refused = yield* raw((client) =>
          client.query(text).then(() => undefined, (error: Error) => error.message)
        )
        assert.isDefined(refused, text)
      }
      yield* raw((client) => client.query(`BEGIN; INSERT INTO ${table} (${columns}) VALUES (${row({})}); ROLLBACK`))
      assert.deepStrictEqual(yield* Effect.provide(offsets, open({ schema })), [1, 2, 3])
      // a person can query the payload
      const [text] = yield* raw(async (client) =>
        (await client.query(`SELECT payload->>'n' AS n FROM ${schema}.ledger_view`)).rows
      )
      assert.match(text.n, /^\d+$/)
    }))
})

describe("Postgres in the caller's transaction", () => {
  const setup = Effect.gen(function*() {
    const schema = newSchema()
    const context = yield* Layer.build(open({ schema }))
    return {
      schema,
      sql: Context.get(context, PgClient.PgClient),
      ledger: Context.get(context, Ledger.Ledger),
      context
    }
  })

  it.scopedLive("a snapshot older than the last event is TransactionAborted, and repeating the transaction works", () =>
    Effect.gen(function*() {
      const { ledger, sql } = yield* setup
      yield* ledger.append(yield* event())
      const attempt = (between: Effect.Effect<unknown, unknown>) =>
        sql.withTransaction(Effect.gen(function*() {
          yield* sql`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`
          yield* sql`SELECT 1`
          yield* between
          return yield* ledger.append(yield* event())
        }))
      const elsewhere = Effect.flatMap(event(), ledger.append).pipe(Effect.forkDaemon, Effect.flatMap(Fiber.join))
      const outside = Effect.mapInputContext(elsewhere, (_: Context.Context<never>) => Context.empty())
      const failed = yield* Effect.flip(attempt(outside))
      assert.strictEqual((failed as { _tag: string })._tag, "TransactionAborted")
      assert.strictEqual((yield* attempt(Effect.void))._tag, "Appended")
      assert.deepStrictEqual(yield* Effect.provideService(offsets, Ledger.Ledger, ledger), [1, 2, 3])
    }))

  it.scopedLive("a client that falls silent in the middle of a large batch does not keep the lock", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const proxy = yield* proxied
      const lockTimeout = "2 seconds"
      const build = (url: string) =>
        Effect.map(
          Layer.build(PgLedger.layerUrl(Redacted.make(url), { schema, lockTimeout, commitTimeout: lockTimeout })),
          Context.get(Ledger.Ledger)
        )
      const far = yield* build(proxy.url)
      const near = yield* build(url)
      const batch = yield* events(4100)
      proxy.silenceInTransaction()
      const lost = yield* Effect.fork(Effect.flip(far.appendAll(batch)))
      const holds = raw(async (client) =>
        (await client.query("SELECT FROM pg_locks WHERE relation = $1::regclass AND granted", [
            `${schema}.ledger_lock`
          ]))
            .rowCount === 1 && proxy.connections.some(({ silent }) => silent)
      )
      yield* Effect.repeat(holds, { until: (holds) => holds })
      // it waits for the lock, and gets it before it would give up
      assert.strictEqual((yield* near.append(yield* event()))._tag, "Appended")
      assert.strictEqual((yield* Fiber.join(lost))._tag, "StoreUnavailable")
      assert.strictEqual(yield* near.latestOffset, 1)
      const receipts = yield* far.appendAll(batch)
      assert.isTrue(receipts.every(({ _tag, offset }, index) => _tag === "Appended" && offset === index + 2))
    }))

  it.scopedLive("an append that fails in it leaves the transaction usable", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const context = yield* Layer.build(open({ schema, lockTimeout: "50 millis" }))
      const sql = Context.get(context, PgClient.PgClient)
      const ledger = Context.get(context, Ledger.Ledger)
      yield* sql`CREATE TABLE ${sql(schema)}.notes (text text)`
      const locked = yield* Effect.makeLatch()
      const done = yield* Effect.makeLatch()
      const holder = yield* Effect.fork(sql.withTransaction(Effect.gen(function*() {
        yield* ledger.append(yield* event())
        yield* locked.open
        yield* done.await
      })))
      yield* locked.await
      const tag = yield* sql.withTransaction(Effect.gen(function*() {
        const error = yield* Effect.flip(ledger.append(yield* event()))
        yield* sql`INSERT INTO ${sql(schema)}.notes VALUES ('still here')`
        return error._tag
      }))
      assert.strictEqual(tag, "StoreUnavailable")
      // outside a transaction the same lock is waited for no longer
      assert.strictEqual((yield* Effect.flip(ledger.append(yield* event())))._tag, "StoreUnavailable")
      yield* done.open
      yield* Fiber.join(holder)
      assert.strictEqual((yield* ledger.append(yield* event()))._tag, "Appended")
      assert.strictEqual((yield* sql`SELECT * FROM ${sql(schema)}.notes`).length, 1)
      assert.deepStrictEqual(yield* Effect.provideService(offsets, Ledger.Ledger, ledger), [1, 2])
    }))

  it.scopedLive("a transaction of another client, of either database, is not joined", () =>
    Effect.gen(function*() {
      const { ledger } = yield* setup
      const other = Context.get(
        yield* Layer.build(PgClient.layer({ url: Redacted.make(url), maxConnections: 1 })),
        PgClient.PgClient
      )
      const sqlite = Context.get(
        yield* Layer.build(SqliteClient.layer({ filename: ":memory:" })),
        SqliteClient.SqliteClient
      )
      for (const foreign of [other, sqlite]) {
        const exit = yield* Effect.exit(foreign.withTransaction(
          Effect.zipRight(Effect.flatMap(event(), ledger.append), Effect.fail("roll back"))
        ))
        assert.isTrue(Exit.isFailure(exit))
      }
      assert.strictEqual(yield* ledger.latestOffset, 2)
    }))

  it.scopedLive("a transaction that has failed before is TransactionAborted", () =>
    Effect.gen(function*() {
      const { ledger, sql } = yield* setup
      const error = yield* Effect.flip(sql.withTransaction(Effect.gen(function*() {
        yield* Effect.ignore(sql`SELECT 1 / 0`)
        return yield* ledger.append(yield* event())
      })))
      assert.strictEqual((error as { _tag: string })._tag, "TransactionAborted")
    }))

  it.scopedLive("the caller's settings are as they were, but a commit that would not be durable", () =>
    Effect.gen(function*() {
      const { ledger, sql } = yield* setup
      const settings = yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`SET LOCAL synchronous_commit = off`
        yield* sql`SET LOCAL lock_timeout = '1234ms'`
        yield* ledger.append(yield* event())
        return yield* sql`SELECT current_setting('synchronous_commit') AS commits, current_setting('lock_timeout') AS lock,
          current_setting('enable_seqscan') AS seqscan`
      }))
      assert.deepStrictEqual(settings, [{ commits: "on", lock: "1234ms", seqscan: "on" }])
    }))
})

describe("maxLockHold", () => {
  it.scopedLive("a transaction that stands idle after its append is ended, and the others go on", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const context = yield* Layer.build(open({ schema, maxLockHold: "300 millis" }))
      const sql = Context.get(context, PgClient.PgClient)
      const appended = yield* Effect.makeLatch()
      const woken = yield* Effect.makeLatch()
      const idle = yield* Effect.flatMap(event(), Ledger.append).pipe(
        Effect.zipRight(appended.open),
        Effect.zipRight(woken.await),
        Effect.zipRight(sql`SELECT 1`),
        sql.withTransaction,
        Effect.provide(context),
        Effect.exit,
        Effect.fork
      )
      yield* appended.await
      const one = yield* event()
      yield* Effect.gen(function*() {
        assert.strictEqual((yield* Ledger.append(one))._tag, "Appended")
        yield* woken.open
        assert.isTrue(Exit.isFailure(yield* Fiber.join(idle)))
        assert.deepStrictEqual((yield* Ledger.events).map(({ id }) => id), [one.id])
      }).pipe(Effect.provide(open({ schema })))
      // and its client has other connections
      assert.strictEqual(yield* Effect.provide(Ledger.latestOffset, context), 1)
    }))

  it.scopedLive("lowers what the caller has set, raises nothing, and ends with the transaction", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const context = yield* Layer.build(open({ schema, maxConnections: 1 }))
      const sql = Context.get(context, PgClient.PgClient)
      const name = "idle_in_transaction_session_timeout"
      const setting = Effect.map(
        sql<{ readonly value: string }>`SELECT current_setting(${name}) AS value`,
        ([row]) => row!.value
      )
      const afterAppend = (before: string, maxLockHold: Duration.DurationInput) =>
        sql.withTransaction(
          sql`SELECT set_config(${name}, ${before}, true)`.pipe(
            Effect.zipRight(Effect.flatMap(event(), Ledger.append)),
            Effect.zipRight(setting)
          )
        ).pipe(Effect.provide(PgLedger.layer({ schema, maxLockHold })), Effect.provide(context))
      const before = yield* setting
      for (const [set, expected] of [["0", "90s"], ["1d", "90s"], ["91s", "90s"], ["1min", "1min"], ["7s", "7s"]]) {
        assert.strictEqual(yield* afterAppend(set!, "90 seconds"), expected)
      }
      assert.strictEqual(yield* afterAppend("0", Duration.infinity), "2147483647ms")
      assert.strictEqual(yield* setting, before)
    }))
})

describe("Postgres appends", () => {
  it.live(
    "cost the same after 150,000 events in one session whose statistics saw one row",
    () =>
      Effect.gen(function*() {
        const schema = newSchema()
        const calls = [
          ...[true, false].map((lookFirst) =>
            `v4(('{' || $1 || '}')::text[],'{r}','{1}','{a.b}','{x}','{"{}"}','{0}','{1}','{NULL}','{NULL}','{NULL}',` +
            `'{"\\\\x${"00".repeat(32)}"}',NULL,'',1000,NULL,${lookFirst})`
          ),
          `v4_one($1,'r',1,'a.b','x','{}',0,1,NULL,NULL,NULL,'\\x${"00".repeat(32)}','',1000,NULL)`
        ]
        const blocks = async (client: Client) => {
          let touched = 0
          for (const call of calls) {
            const { rows } = await client.query(
              `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT ${schema}.ledger_append_${call}`,
              [randomBytes(8).toString("hex")]
            )
            const { Plan } = rows[0]["QUERY PLAN"][0]
            touched += Number(Plan["Shared Hit Blocks"]) + Number(Plan["Shared Read Blocks"])
          }
          return touched
        }
        yield* Effect.provide(Effect.flatMap(event(), Ledger.append), open({ schema }))
        const [early, late] = yield* raw(async (client) => {
          await client.query(`ALTER TABLE ${schema}.ledger_events SET (autovacuum_enabled = off)`)
          await client.query(`ANALYZE ${schema}.ledger_events`)
          const single = async () => {
            for (let n = 0; n < 10; n++) await blocks(client)
            return blocks(client)
          }
          const before = await single()
          for (let batch = 0; batch < 75; batch++) {
            await client.query(
              `SELECT ${schema}.ledger_append_v4(array_agg(md5(n::text)), array_agg('r' || n % 100), array_agg(1), array_agg('a.b'::text),
              array_agg('x'::text), array_agg('{}'::text), array_agg(0::int8), array_agg(1), array_agg(NULL::text), array_agg(NULL::text),
              array_agg(NULL::text), array_agg(decode(repeat('00', 32), 'hex')), NULL, '', 1000, NULL, false)
            FROM generate_series($1::int, $2::int) AS n`,
              [batch * 2000, batch * 2000 + 1999]
            )
          }
          return [before, await single()]
        })
        // pages touched: the tree is a level or two deeper, and nothing is scanned
        assert.isBelow(late ?? Number.NaN, (early ?? 0) * 2 + 50)
      }),
    120_000
  )

  it.live("a page ends where it was asked to, also where a row is missing", () => {
    const schema = newSchema()
    return Effect.gen(function*() {
      yield* Ledger.appendAll(yield* events(6))
      yield* raw(async (client) => {
        await client.query(`ALTER TABLE ${schema}.ledger_events DISABLE TRIGGER ledger_append_only`)
        await client.query(`DELETE FROM ${schema}.ledger_events WHERE "offset" = 3`)
      })
      const store = yield* LedgerStore.LedgerStore
      const page = (backward: boolean) =>
        Effect.map(
          store.page({ filters: [], after: 1, through: 5, backward, limit: 1000 }),
          ({ rows }) => rows.map(([offset]) => Number(offset))
        )
      assert.deepStrictEqual(yield* page(false), [2, 4, 5])
      assert.deepStrictEqual(yield* page(true), [5, 4, 2])
    }).pipe(Effect.provide(open({ schema })))
  })

  it.live("work where the server's default isolation is serializable", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const other = new URL(url)
      other.searchParams.set("options", "-c default_transaction_isolation=serializable")
      const layer = PgLedger.layerUrl(Redacted.make(other.href), { schema, maxConnections: 2 })
      yield* Effect.provide(Ledger.latestOffset, layer)
      const writer = (name: string) =>
        Effect.provide(
          Effect.forEach(dense(50), (turn) => Effect.flatMap(event({ id: `${name}-${turn}` }), Ledger.append), {
            discard: true
          }),
          layer
        )
      yield* Effect.all(["a", "b", "c", "d"].map(writer), { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* Effect.provide(offsets, layer), dense(200))
    }))

  it.live("go on when idle connections have died", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      yield* Effect.gen(function*() {
        yield* Ledger.append(yield* event())
        yield* raw((client) =>
          client.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE $1",
            [`%${schema}%`]
          )
        )
        assert.strictEqual((yield* Ledger.append(yield* event()))._tag, "Appended")
        assert.deepStrictEqual(yield* offsets, [1, 2])
      }).pipe(Effect.provide(open({ schema })))
    }))

  it.live("interrupted while they wait for a connection lose none", () =>
    Effect.gen(function*() {
      const { sql, ledger } = yield* Effect.map(
        Effect.context<Ledger.Ledger | PgClient.PgClient>(),
        (context) => ({ sql: Context.get(context, PgClient.PgClient), ledger: Context.get(context, Ledger.Ledger) })
      )
      const busy = yield* Effect.makeLatch()
      const done = yield* Effect.makeLatch()
      const hold = Effect.fork(sql.withTransaction(Effect.zipRight(busy.open, done.await)))
      const holders = [yield* hold, yield* hold]
      yield* busy.await
      const readers = yield* Effect.forEach(dense(20), () => Effect.fork(ledger.latestOffset))
      yield* Effect.yieldNow()
      yield* Fiber.interruptAll(readers)
      yield* done.open
      yield* Effect.forEach(holders, Fiber.join)
      const exits = yield* Effect.all(dense(20).map(() => Effect.flatMap(event(), ledger.append)), { concurrency: 20 })
      assert.strictEqual(exits.length, 20)
      assert.deepStrictEqual(yield* offsets, dense(20))
    }).pipe(Effect.provide(open({ maxConnections: 2 }))))

  it.live("a page that is on its way when the ledger is closed leaves no connection open", () => {
    const name = newSchema()
    const at = new URL(url)
    at.searchParams.set("application_name", name)
    const connections = () =>
      raw((client) => client.query("SELECT pid FROM pg_stat_activity WHERE application_name = $1", [name]))
    return Effect.flatMap(events(3500), Ledger.appendAll).pipe(
      Effect.zipRight(eventually(connections(), ({ rowCount }) => rowCount !== 0)),
      // the third page, when the second has been given
      Effect.zipRight(Stream.runDrain(Stream.take(Ledger.tail(), 1001))),
      Effect.provide(open({ url: at.href })),
      Effect.zipRight(eventually(connections(), ({ rowCount }) => rowCount === 0))
    )
  })

  it.live("over a client that transforms names", () =>
    Effect.gen(function*() {
      const client = PgClient.layer({
        url: Redacted.make(url),
        maxConnections: 2,
        transformQueryNames: (name) => `x_${name}`,
        transformResultNames: (name) => name.toUpperCase()
      })
      yield* Effect.gen(function*() {
        const appended = yield* event()
        yield* Ledger.append(appended)
        const [read] = Chunk.toReadonlyArray(yield* Stream.runCollect(Ledger.tail(0)))
        assert.deepStrictEqual(read, { ...appended, offset: 1 })
      }).pipe(Effect.provide(PgLedger.layer({ schema: newSchema() }).pipe(Layer.provide(client))))
    }))
})

describe("behind a pooler", () => {
  const preparedStatements = Effect.flatMap(
    PgClient.PgClient,
    (sql) => sql<{ readonly count: number }>`SELECT count(*)::int4 AS count FROM pg_prepared_statements`
  )

  it.scopedLive("notifications arrive by the URL that is given for them, and nothing is prepared by the other", () =>
    Effect.gen(function*() {
      const pooler = yield* proxied
      const direct = yield* proxied
      const schema = newSchema()
      const context = yield* Layer.build(open({
        url: pooler.url,
        schema,
        listenUrl: Redacted.make(direct.url),
        maxConnections: 1,
        // nothing is seen in time but what was notified
        pollInterval: "1 hour"
      }))
      const reading = yield* Ledger.subscribe().pipe(
        Stream.take(5),
        Stream.runCollect,
        Effect.provide(context),
        Effect.fork
      )
      yield* until(() => direct.connections.some(({ listening }) => listening))
      yield* Effect.provide(
        Effect.forEach(dense(5), () => Effect.flatMap(event(), Ledger.append)),
        open({ schema })
      )
      assert.deepStrictEqual(Array.from(yield* Fiber.join(reading), ({ offset }) => offset), dense(5))
      assert.deepStrictEqual(direct.connections.map(({ isListener }) => isListener), [true])
      assert.isFalse(pooler.connections.some(({ isListener }) => isListener))
      assert.deepStrictEqual(yield* Effect.provide(preparedStatements, context), [{ count: 0 }])
    }))

  it.live("elsewhere statements are prepared", () =>
    Effect.gen(function*() {
      yield* Ledger.latestOffset
      assert.notDeepEqual(yield* preparedStatements, [{ count: 0 }])
    }).pipe(Effect.provide(open({ maxConnections: 1 }))))

  it.live("pages are planned once, whatever their size", () =>
    Effect.gen(function*() {
      yield* Ledger.appendAll(yield* events(20_000))
      const reads = [
        Ledger.read({ limit: 3 }),
        Ledger.tail(18_000),
        Ledger.read({ filter: { runId: "run" }, limit: 500 })
      ]
      const sql = yield* PgClient.PgClient
      const plans = Effect.zipRight(
        Effect.forEach(reads, (read) => Effect.forEach(dense(15), () => Stream.runDrain(read))),
        sql<{ readonly generic: number; readonly custom: number }>`
          SELECT generic_plans::int4 AS generic, custom_plans::int4 AS custom FROM pg_prepared_statements
          WHERE statement LIKE '%AS page'`
      )
      // the server tries five times whether a plan for the values would be better; on a slow machine a plan ends meanwhile
      yield* eventually(plans, (all) => all.length > 1 && all.every(({ generic, custom }) => generic > 9 && custom < 6))
    }).pipe(Effect.provide(open({ maxConnections: 1, cacheBytes: 0 }))))

  it.live("no page is asked for twice, and no size added up, while no large payload was met", () =>
    Effect.gen(function*() {
      yield* Ledger.appendAll(yield* events(10))
      const store = yield* LedgerStore.LedgerStore
      const ends = { after: 5, through: 5, backward: false, limit: 1000 }
      const filters = [[], [{ runId: "nobody" }], [{ kinds: ["no.body", "no.one"] }], [{
        createdFrom: 2 ** 42
      }]] as const
      for (const some of filters) {
        for (const range of [ends, { ...ends, backward: true }, { ...ends, after: 0, through: some.length * 10 }]) {
          assert.deepStrictEqual((yield* store.page({ ...range, filters: some })).rows, [])
        }
      }
      const asked = yield* (yield* PgClient.PgClient)`
        SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%sum(octet_length(payload))%'`
      assert.deepStrictEqual(asked, [])
    }).pipe(Effect.provide(open({ maxConnections: 1, cacheBytes: 0 }))))

  it.live("what was planned for a few events is planned again when they have become many", () => {
    const schema = newSchema()
    return Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const readAll = Stream.runDrain(Ledger.tail())
      yield* Ledger.appendAll(yield* events(10))
      yield* sql`ANALYZE ${sql(schema)}.ledger_events`
      yield* Effect.repeatN(readAll, 10)
      yield* Ledger.appendAll(yield* events(20_000))
      yield* Effect.sleep("1100 millis")
      const scanned = Effect.zipRight(
        sql`SELECT pg_stat_force_next_flush()`,
        sql<{ readonly rows: number }>`SELECT seq_tup_read::int4 AS rows FROM pg_stat_user_tables
          WHERE schemaname = ${schema} AND relname = 'ledger_events'`
      )
      const before = (yield* scanned)[0]!.rows
      yield* readAll
      assert.isBelow((yield* scanned)[0]!.rows - before, 20_000)
    }).pipe(Effect.provide(open({ schema, maxConnections: 1, cacheBytes: 0 })))
  })

  it.live("a URL for notifications that cannot be read is refused at set-up, and not shown", () =>
    Effect.gen(function*() {
      const layer = open({ listenUrl: Redacted.make("postgresql://ada:secret@[/agents") })
      const error = yield* Effect.flip(Effect.provide(Ledger.latestOffset, layer))
      assert.strictEqual(error._tag, "StoreFailure")
      assert.include(error.message, "cannot be read")
      assert.notInclude(inspect(error, { depth: 10 }), "secret")
    }))
})

describe("an answer that is lost", () => {
  it.scopedLive("counts no dead letter twice, and hides none that was handled", () =>
    Effect.gen(function*() {
      const proxy = yield* proxied
      const schema = newSchema()
      const letters = `"${schema}"."ledger_dead_letters"`
      const loses = <A, E, R>(statement: string, effect: Effect.Effect<A, E, R>) =>
        Effect.gen(function*() {
          const { others } = proxy.lost()
          proxy.loseAnswers(1, "answered", `${statement} ${letters}`)
          const answer = yield* effect
          assert.strictEqual(proxy.lost().others, others + 1)
          return answer
        })
      yield* Effect.gen(function*() {
        yield* Effect.flatMap(event(), Ledger.append)
        const attempts = Effect.map(Consumer.deadLetters("reader"), (all) => all.map(({ attempts }) => attempts))
        const replay = (handler: Effect.Effect<void, string>) =>
          Consumer.replay({ name: "reader", handler: () => handler })
        const buried = Effect.raceFirst(
          Consumer.run({ name: "reader", onFailure: "deadLetter", handler: () => Effect.fail("no") }),
          eventually(Consumer.status, ([status]) => status?.lag === 0)
        )
        yield* loses("INSERT INTO", buried)
        assert.deepStrictEqual(yield* attempts, [1])
        assert.deepStrictEqual(yield* loses("UPDATE", replay(Effect.fail("no"))), { handled: 0, failed: 1 })
        assert.deepStrictEqual(yield* attempts, [2])
        assert.deepStrictEqual(yield* loses("DELETE FROM", replay(Effect.void)), { handled: 1, failed: 0 })
        assert.deepStrictEqual(yield* attempts, [])
      }).pipe(Effect.provide(PgLedger.layerUrl(Redacted.make(proxy.url), { schema, maxConnections: 4 })))
    }))
})

describe("roles", () => {
  const script = (roles: PgLedger.Roles) => Effect.orDie(PgLedger.roles(roles))
  const client = PgClient.layer({ url: Redacted.make(url), maxConnections: 2 })
  const named = (schema: string) => ({ writer: `writer-${schema}`, reader: `reader's "${schema}"` })
  const quoted = (role: string) => `"${role.replaceAll("\"", "\"\"")}"`
  const dropping = (roles: ReadonlyArray<string>) =>
    raw(async (client) => {
      for (const role of roles.map(quoted)) {
        await client.query(`REASSIGN OWNED BY ${role} TO CURRENT_USER; DROP OWNED BY ${role}; DROP ROLE ${role}`)
      }
    })

  it.live.each([
    { prefix: "ledger_", withOwner: true, how: "applied" },
    { prefix: "audit_", withOwner: false, how: "pasted" }
  ])(
    "$how, the writer appends and cannot forge, change or remove; the reader reads and follows",
    (given) =>
      Effect.gen(function*() {
        const { prefix } = given
        const schema = newSchema()
        const { reader, writer } = named(schema)
        const owner = given.withOwner ? `owner ${schema}` : undefined
        const roles: PgLedger.Roles = { owner, writer, reader, prefix, schema }
        const owned = open({ schema, prefix })
        yield* Effect.provide(Effect.flatMap(events(2), Ledger.appendAll), owned)
        yield* raw((client) =>
          client.query(`GRANT ALL ON "${schema}".${prefix}events, "${schema}".${prefix}meta TO PUBLIC`)
        )
        const apply = given.how === "applied"
          ? Effect.provide(PgLedger.applyRoles(roles), client)
          : Effect.flatMap(script(roles), (text) => raw((client) => client.query(text)))
        yield* apply
        yield* raw(async (client) => {
          for (const role of [writer, reader]) await client.query(`ALTER ROLE ${quoted(role)} LOGIN PASSWORD 'open'`)
          await client.query(
            `GRANT INSERT, DELETE ON "${schema}".${prefix}events TO ${quoted(writer)}, ${quoted(reader)}`
          )
        })
        // it takes away what was granted since, and leaves the passwords alone
        yield* apply
        const as = (role: string) => {
          const other = new URL(url)
          other.username = encodeURIComponent(role)
          other.password = "open"
          return other.href
        }
        const ledgerAs = (role: string) =>
          PgLedger.layerUrl(Redacted.make(as(role)), { schema, prefix, maxConnections: 2 })
        const statement = (role: string, text: string) =>
          Effect.promise(async () => {
            const client = new Client(as(role))
            await client.connect()
            try {
              return await client.query(text).then(() => "done", (error: Error) => error.message)
            } finally {
              await client.end()
            }
          })
        yield* Effect.gen(function*() {
          const one = yield* event()
          assert.deepStrictEqual(yield* Ledger.append(one), Ledger.Receipt.Appended({ id: one.id, offset: 3 }))
          assert.strictEqual((yield* Ledger.append(one))._tag, "Duplicate")
          const seen = yield* Stream.runCollect(Ledger.subscribe().pipe(Stream.take(3)))
          assert.strictEqual(seen.length, 3)
          let handled = 0
          yield* Effect.raceFirst(
            Consumer.run({
              name: "as the writer",
              delivery: "exactlyOnce",
              handler: () => Effect.sync(() => void handled++)
            }),
            Effect.repeat(Effect.sleep("10 millis"), { until: () => handled === 3 })
          )
        }).pipe(Effect.provide(ledgerAs(writer)))
        yield* Effect.gen(function*() {
          const seen = yield* Stream.runCollect(Ledger.subscribe().pipe(Stream.take(3)))
          assert.strictEqual(seen.length, 3)
          const refused = yield* Effect.flip(Effect.flatMap(event(), Ledger.append))
          assert.strictEqual(refused._tag, "StoreFailure")
          assert.include(refused.message, "permission denied")
          assert.deepStrictEqual((yield* Verify.run()).problems, [])
          assert.strictEqual((yield* Consumer.status)[0]?.name, "as the writer")
        }).pipe(Effect.provide(ledgerAs(reader)))
        const of = (name: string) => `"${schema}".${prefix}${name}`
        const table = of("events")
        const forgeries = [
          `INSERT INTO ${table} SELECT (jsonb_populate_record(e, '{"offset": 9, "id": "forged"}')).* FROM ${table} AS e`,
          `UPDATE ${table} SET actor = 'mallory'`,
          `DELETE FROM ${table}`,
          `TRUNCATE ${table}`,
          `DROP TABLE ${table}`,
          `ALTER TABLE ${table} DISABLE TRIGGER ALL`,
          `ALTER TABLE ${table} DROP COLUMN digest`,
          `DROP TRIGGER ${prefix}append_only ON ${table}`,
          `DROP FUNCTION ${of("append_v4")}`,
          `DROP FUNCTION ${of("append_v4_one")}`,
          `CREATE OR REPLACE FUNCTION ${of("refuse")}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`,
          `UPDATE ${of("meta")} SET incarnation = 'forged'`,
          `DELETE FROM ${of("meta")}`,
          `BEGIN; LOCK TABLE ${of("lock")} IN EXCLUSIVE MODE`,
          `INSERT INTO ${of("view")} SELECT * FROM ${of("view")}`,
          "SET session_replication_role = replica",
          ...(owner === undefined ? [] : [`SET ROLE ${quoted(owner)}`])
        ]
        const readersForgeries = [
          `SELECT ${of("append_v4")}('{x}','{r}','{1}','{a.b}','{x}','{"{}"}','{0}','{1}','{NULL}','{NULL}','{NULL}',` +
          `'{"\\\\x${"00".repeat(32)}"}',NULL,'',1000,NULL,true)`,
          `SELECT ${of("append_v4_one")}('x','r',1,'a.b','x','{}',0,1,NULL,NULL,NULL,'\\x${
            "00".repeat(32)
          }','',1000,NULL)`,
          `UPDATE ${of("consumers")} SET "offset" = 0`,
          `DELETE FROM ${of("projections")}`
        ]
        for (const role of [writer, reader]) {
          for (const text of role === reader ? [...forgeries, ...readersForgeries] : forgeries) {
            assert.match(
              yield* statement(role, text),
              /permission denied|must be owner|cannot insert/,
              `${role}: ${text}`
            )
          }
        }
        assert.strictEqual(yield* Effect.provide(Ledger.latestOffset, owned), 3)
        if (owner !== undefined) {
          const owners = yield* raw((client) =>
            client.query(
              "SELECT DISTINCT pg_get_userbyid(relowner) AS name FROM pg_class WHERE relnamespace = $1::regnamespace " +
                "UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = $1::regnamespace",
              [schema]
            )
          )
          assert.deepStrictEqual(owners.rows, [{ name: owner }])
        }
        yield* dropping([writer, reader, ...(owner === undefined ? [] : [owner])])
      })
  )

  it.live("are refused, and nothing is changed, where a role has rights from elsewhere", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const { reader, writer } = named(schema)
      const [owner, powerful] = [`owner ${schema}`, `powerful ${schema}`]
      yield* Effect.provide(Ledger.latestOffset, open({ schema }))
      const apply = (roles: { readonly writer?: string; readonly reader?: string; readonly owner?: string } = {}) =>
        Effect.provide(PgLedger.applyRoles({ writer, reader, schema, ...roles }), client)
      const rights = raw(async (client) =>
        (await client.query(
          "SELECT relname, relacl::text FROM pg_class WHERE relnamespace = $1::regnamespace ORDER BY 1",
          [
            schema
          ]
        )).rows
      )
      yield* raw((client) =>
        client.query(
          `CREATE ROLE ${quoted(powerful)} SUPERUSER; CREATE ROLE ${quoted(owner)}; CREATE ROLE ${
            quoted(writer)
          }; CREATE ROLE ${quoted(reader)}`
        )
      )
      const refused = (
        roles: { readonly writer?: string; readonly reader?: string; readonly owner?: string },
        message: string
      ) =>
        Effect.gen(function*() {
          const before = yield* rights
          const error = yield* Effect.flip(apply(roles))
          assert.strictEqual(error._tag, "StoreFailure")
          assert.include(error.message, message)
          assert.deepStrictEqual(yield* rights, before)
        })
      yield* refused({ writer: powerful }, powerful)
      yield* raw((client) => client.query(`GRANT ${quoted(owner)} TO ${quoted(writer)}`))
      yield* refused({ owner }, writer)
      yield* raw((client) => client.query(`REVOKE ${quoted(owner)} FROM ${quoted(writer)}`))
      yield* raw((client) => client.query(`GRANT pg_write_all_data TO ${quoted(reader)}`))
      yield* refused({}, reader)
      yield* raw((client) => client.query(`REVOKE pg_write_all_data FROM ${quoted(reader)}`))
      yield* raw((client) => client.query(`GRANT ${quoted(writer)} TO ${quoted(reader)}`))
      yield* refused({}, reader)
      yield* raw((client) => client.query(`REVOKE ${quoted(writer)} FROM ${quoted(reader)}`))
      const missing = yield* Effect.flip(
        Effect.provide(PgLedger.applyRoles({ writer, reader, schema, prefix: "no_" }), client)
      )
      assert.strictEqual(missing._tag, "StoreFailure")
      const before = yield* rights
      const undone = Effect.gen(function*() {
        const sql = yield* PgClient.PgClient
        return yield* sql.withTransaction(
          Effect.zipRight(PgLedger.applyRoles({ writer, reader, schema }), Effect.fail("roll back"))
        )
      })
      assert.strictEqual(yield* Effect.flip(Effect.provide(undone, client)), "roll back")
      assert.deepStrictEqual(yield* rights, before)
      yield* Effect.all([apply(), apply({ owner }), apply()], { concurrency: "unbounded" })
      // the owner needs no other right to say it again
      yield* raw((client) => client.query(`ALTER ROLE ${quoted(owner)} LOGIN PASSWORD 'open'`))
      const other = new URL(url)
      other.username = encodeURIComponent(owner)
      other.password = "open"
      const granted = yield* rights
      yield* Effect.provide(
        PgLedger.applyRoles({ owner, writer, reader, schema }),
        PgClient.layer({ url: Redacted.make(other.href), maxConnections: 1 })
      )
      assert.deepStrictEqual(yield* rights, granted)
      yield* dropping([writer, reader, owner, powerful])
    }))

  it.effect("with names that cannot be are refused, and the field is named", () =>
    Effect.gen(function*() {
      const good: PgLedger.Roles = { writer: "w", reader: "r" }
      const bad: ReadonlyArray<readonly [string, Partial<Record<keyof PgLedger.Roles, unknown>>]> = [
        ["writer", { writer: "" }],
        ["writer", { writer: undefined, reader: "r" }],
        ["reader", { reader: "é".repeat(32) }],
        ["reader", { reader: "w" }],
        ["writer", { writer: "public" }],
        ["owner", { owner: "pg_monitor" }],
        ["writer", { owner: "w" }],
        ["reader", { reader: "a$$; DROP TABLE x; $$" }],
        ["reader", { reader: "a\\' --" }],
        ["reader", { reader: "a\nb" }],
        ["reader", { reader: 7 }],
        ["prefix", { prefix: "Bad-" }],
        ["schema", { schema: "a\"b" }]
      ]
      for (const [path, over] of bad) {
        const error = yield* Effect.flip(PgLedger.roles({ ...good, ...over } as PgLedger.Roles))
        assert.strictEqual(error._tag, "InvalidQuery")
        assert.strictEqual(error.path, path, JSON.stringify(over))
      }
      assert.include(yield* PgLedger.roles({ ...good, reader: "é".repeat(31) }), "é")
    }))

  it.effect("are in docs/operating.md as they are answered", () =>
    Effect.gen(function*() {
      const doc = Fs.readFileSync("docs/operating.md", "utf8")
      const block = /<!-- roles -->\s*```sql\n([^]*?)```/.exec(doc)?.[1] ?? assert.fail("the block is missing")
      const roles = {
        owner: "ledger_owner",
        writer: "ledger_writer",
        reader: "ledger_reader",
        schema: "ledger"
      }
      for (const [key, value] of Object.entries(roles)) assert.include(doc, `${key}: "${value}"`)
      assert.strictEqual(block, yield* script(roles))
    }))
})

/** Faults of the place, on Postgres: what one gets, what it says, and that the ledger works again when the place does. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Metric, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Client } from "pg"
import { afterAll, beforeAll } from "vitest"
import { Ledger, LedgerMetrics } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import { certificate, key } from "./support/certificate.js"
import { event, fails, fill, folder, needsMount, proxy, smallDisk } from "./support/faults.js"
import { type PostgresServer, startPostgres } from "./support/postgres.js"

let server: PostgresServer
beforeAll(async () => {
  server = await startPostgres({ flags: ["-c", "max_connections=12", "-c", "superuser_reserved_connections=2"] })
})
afterAll(() => server.stop())

const newSchema = () => `f${randomBytes(8).toString("hex")}`
const secret = () => decodeURIComponent(new URL(server.url).password)

const changed = (change: (url: URL) => void): string => {
  const url = new URL(server.url)
  change(url)
  return url.href
}

const open = (options: PgLedger.UrlOptions = {}, url = server.url) =>
  PgLedger.layerUrl(Redacted.make(url), {
    maxConnections: 2,
    connectTimeout: "1 second",
    lockTimeout: "500 millis",
    ...options
  })

/** An open ledger, and its client. */
const opened = (options: PgLedger.UrlOptions = {}, url?: string) =>
  Effect.map(Layer.build(Layer.fresh(open(options, url))), (context) => ({
    ledger: Context.get(context, Ledger.Ledger),
    sql: Context.get(context, PgClient.PgClient),
    append: Effect.flatMap(event(), Context.get(context, Ledger.Ledger).append)
  }))

const events = (count: number, bytes = 0) => Effect.all(Array.from({ length: count }, () => event(bytes)))
const retries = Effect.map(Metric.value(LedgerMetrics.retries), ({ count }) => count)

/** A session of the superuser's own. */
const session = (url = server.url) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Client(url)
      // the server is killed, too
      client.on("error", () => {})
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.end().catch(() => {}))
  )
const run = (...texts: ReadonlyArray<string>) =>
  Effect.scoped(Effect.flatMap(session(), (client) =>
    Effect.promise(async () => {
      for (const text of texts) await client.query(text)
    })))
const until = (client: Client, question: string) =>
  Effect.promise(async () => {
    while ((await client.query(question)).rowCount === 0) await new Promise((resolve) => setImmediate(resolve))
  })

describe("a ledger that cannot be opened", () => {
  const cases: ReadonlyArray<
    readonly [name: string, change: (url: URL) => void, tag: "StoreUnavailable" | "StoreFailure", says: RegExp]
  > = [
    ["a wrong user", (url) => void (url.username = "nobody"), "StoreFailure", /correct user and password/],
    ["no such database", (url) => void (url.pathname = "/none"), "StoreFailure", /create the database/],
    [
      "nobody listens",
      (url) => void (url.port = "1"),
      "StoreUnavailable",
      /start the server, or correct host and port/
    ],
    [
      "no such host",
      (url) => void (url.hostname = "no-such-host.invalid"),
      "StoreUnavailable",
      /correct the host's name/
    ],
    [
      "TLS is asked of a server without it",
      (url) => url.searchParams.set("sslmode", "require"),
      "StoreFailure",
      /turn TLS on in the server/
    ]
  ]
  for (const [name, change, tag, says] of cases) {
    it.scopedLive(name, () => fails(opened({}, changed(change)), tag, says, 5, secret()))
  }

  it.scopedLive("a wrong password", () => {
    const wrong = `wrong-${randomBytes(8).toString("hex")}`
    return fails(
      opened({}, changed((url) => void (url.password = wrong))),
      "StoreFailure",
      /correct user and password/,
      5,
      wrong
    )
  })

  it.scopedLive("a host that accepts and never answers", () =>
    Effect.gen(function*() {
      const way = yield* proxy(server.port)
      const url = changed((url) => void (url.port = String(way.port)))
      way.silent = true
      yield* fails(opened({}, url), "StoreUnavailable", /something accepts and does not answer/, 3, secret())
      way.silent = false
      assert.strictEqual((yield* (yield* opened({ schema: newSchema() }, url)).append)._tag, "Appended")
    }))

  it.scopedLive(
    "a certificate that nobody trusts, until its authority is named",
    () =>
      Effect.gen(function*() {
        const path = yield* folder
        const files = { cert: Path.join(path, "cert.pem"), key: Path.join(path, "key.pem") }
        Fs.writeFileSync(files.cert, certificate)
        Fs.writeFileSync(files.key, key, { mode: 0o600 })
        const { gid, uid } = Fs.statSync(server.dataDir)
        Fs.chownSync(files.key, uid, gid)
        const flags = ["-c", "ssl=on", "-c", `ssl_cert_file=${files.cert}`, "-c", `ssl_key_file=${files.key}`]
        const secure = yield* Effect.acquireRelease(
          Effect.promise(() => startPostgres({ flags })),
          (server) => Effect.promise(server.stop)
        )
        const url = new URL(secure.url)
        const password = decodeURIComponent(url.password)
        url.searchParams.set("sslmode", "verify-full")
        yield* fails(
          opened({}, url.href),
          "StoreFailure",
          /name the authority of the server's certificate/,
          5,
          password
        )
        url.searchParams.set("sslrootcert", files.cert)
        assert.strictEqual((yield* (yield* opened({}, url.href)).append)._tag, "Appended")
      }),
    120_000
  )

  it.scopedLive("a newer set-up, a set-up without its record, parts of one: until they are mended", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      yield* (yield* opened({ schema })).append
      const damage = (spoil: string, tag: "IncompatibleStore" | "StoreFailure", says: RegExp, mend: string) =>
        Effect.gen(function*() {
          yield* run(`SET search_path = ${schema}; ${spoil}`)
          yield* fails(opened({ schema }), tag, says)
          yield* run(`SET search_path = ${schema}; ${mend}`)
          assert.strictEqual((yield* (yield* opened({ schema })).append)._tag, "Appended")
        })
      yield* damage(
        "UPDATE ledger_meta SET version = 99",
        "IncompatibleStore",
        /version 99.*use a release/,
        "UPDATE ledger_meta SET version = 4"
      )
      yield* damage(
        "CREATE TABLE kept AS SELECT * FROM ledger_meta; DELETE FROM ledger_meta",
        "IncompatibleStore",
        /unknown set-up version/,
        "INSERT INTO ledger_meta SELECT * FROM kept; DROP TABLE kept"
      )
      yield* damage(
        "ALTER TABLE ledger_meta RENAME TO gone",
        "StoreFailure",
        /parts of a ledger are there without its set-up record/,
        "ALTER TABLE gone RENAME TO ledger_meta"
      )
    }))
})

describe("an open ledger whose place fails works again when the place does", () => {
  it.scopedLive("a table, a function, the set-up's record taken away", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const { append, ledger } = yield* opened({ schema })
      yield* append
      const here = (text: string) => run(`SET search_path = ${schema}; ${text}`)
      const missing = /does not exist; a part of the ledger is missing: restore/
      yield* here("ALTER TABLE ledger_events RENAME TO gone")
      yield* fails(append, "StoreFailure", missing)
      yield* fails(ledger.events, "StoreFailure", missing)
      yield* here("ALTER TABLE gone RENAME TO ledger_events; ALTER FUNCTION ledger_append_v4_one RENAME TO gone")
      yield* fails(append, "StoreFailure", missing)
      yield* here("ALTER FUNCTION gone RENAME TO ledger_append_v4_one")
      yield* here("CREATE TABLE kept AS SELECT * FROM ledger_meta; DELETE FROM ledger_meta")
      // not that it is empty
      yield* fails(ledger.latestOffset, "StoreFailure", /set-up record is missing; restore/)
      yield* fails(ledger.events, "StoreFailure", /set-up record is missing; restore/)
      yield* here("INSERT INTO ledger_meta SELECT * FROM kept")
      yield* append
      assert.strictEqual(yield* ledger.latestOffset, 2)
    }))

  describe("on a file system of its own", () => {
    // the cases of 53100 below show what becomes of the server's refusal all the same
    needsMount()

    it.scopedLive("a disk without room", () =>
      Effect.gen(function*() {
        const path = yield* smallDisk(2048)
        const { gid, uid } = Fs.statSync(server.dataDir)
        Fs.chownSync(path, uid, gid)
        const place = newSchema()
        const schema = newSchema()
        yield* Effect.acquireRelease(run(`CREATE TABLESPACE ${place} LOCATION '${path}'`), () =>
          run(`DROP SCHEMA ${schema} CASCADE`, `DROP TABLESPACE ${place}`))
        const url = changed((url) =>
          url.searchParams.set("options", `-c default_tablespace=${place}`)
        )
        const { ledger } = yield* opened({ schema }, url)
        const acknowledged: Array<string> = []
        const write = Effect.flatMap(event(1500), (one) =>
          Effect.tap(ledger.append(one), () => Effect.sync(() => acknowledged.push(one.id))))
        yield* write
        const free = fill(path)
        const full = /no room: .*No space left on device.*make room on the disk/
        yield* fails(Effect.forever(write), "StoreUnavailable", full, 10)
        yield* fails(write, "StoreUnavailable", full)
        assert.deepStrictEqual(
          (yield* ledger.events).map(({ id }) =>
            id
          ),
          acknowledged
        )
        free()
        yield* write
        assert.deepStrictEqual((yield* ledger.events).map(({ id }) => id), acknowledged)
      }))
  })

  it.scopedLive("a role without grants", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      yield* (yield* opened({ schema })).append
      const role = newSchema()
      const password = randomBytes(9).toString("hex")
      yield* run(`CREATE ROLE ${role} LOGIN PASSWORD '${password}'`)
      const url = changed((url) => {
        url.username = role
        url.password = password
      })
      const denied = /permission denied.*give the role its rights: PgLedger\.applyRoles/
      yield* fails(opened({ schema }, url), "StoreFailure", denied, 5, password)
      yield* run(
        `GRANT USAGE ON SCHEMA ${schema} TO ${role}`,
        `GRANT SELECT ON ALL TABLES IN SCHEMA ${schema} TO ${role}`
      )
      const { append, ledger } = yield* opened({ schema }, url)
      yield* fails(append, "StoreFailure", denied, 5, password)
      assert.strictEqual((yield* ledger.events).length, 1)
      yield* run(`GRANT EXECUTE ON FUNCTION ${schema}.ledger_append_v4_one TO ${role}`)
      yield* append
      assert.strictEqual(yield* ledger.latestOffset, 2)
    }))

  it.scopedLive("a pool whose connections are all in use", () =>
    Effect.gen(function*() {
      const { append, sql } = yield* opened({ schema: newSchema(), maxConnections: 1 })
      const busy = yield* Effect.makeLatch()
      const done = yield* Effect.makeLatch()
      const holder = yield* Effect.fork(sql.withTransaction(Effect.zipRight(busy.open, done.await)))
      yield* busy.await
      yield* fails(append, "StoreUnavailable", /raise maxConnections/, 3, secret())
      yield* done.open
      yield* Fiber.join(holder)
      assert.strictEqual((yield* append)._tag, "Appended")
    }))

  it.scopedLive("writes that were given up and answer after all leave no connection behind", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const { append, ledger, sql } = yield* opened({
        schema,
        // one for each write, and one for the notification
        maxConnections: 3,
        // without a flush between, so that both answer at nearly the same time
        durability: "relaxed",
        commitTimeout: "500 millis",
        lockTimeout: "5 seconds"
      })
      const other = yield* session()
      yield* Effect.promise(() => other.query(`BEGIN; LOCK TABLE ${schema}.ledger_lock IN EXCLUSIVE MODE`))
      yield* fails(append, "StoreUnavailable", /unknown whether/, 3)
      const second = yield* Effect.fork(append)
      yield* Effect.sleep("200 millis")
      yield* Effect.promise(() => other.query("COMMIT"))
      yield* Fiber.join(second)
      yield* Effect.sleep("100 millis")
      const outside = Effect.mapInputContext((_: Context.Context<never>) => Context.empty())
      const all = sql.withTransaction(outside(sql.withTransaction(outside(ledger.latestOffset))))
      assert.strictEqual(yield* all, 2)
    }))

  it.scopedLive("a server that has no connection left", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const { append, ledger, sql } = yield* opened({ schema, maxConnections: 3 })
      yield* append
      const taken: Array<Client> = []
      yield* Effect.promise(async () => {
        for (;;) {
          const client = new Client(server.url)
          client.on("error", () => {})
          try {
            await client.connect()
            taken.push(client)
          } catch {
            return
          }
        }
      })
      const full = /too many clients.*use smaller pools/
      yield* fails(opened({ schema }), "StoreUnavailable", full, 5, secret())
      // the ledger has the two that it had, an append's and its notification's; another one it cannot get
      const outside = Effect.mapInputContext((_: Context.Context<never>) => Context.empty())
      yield* sql.withTransaction(
        outside(sql.withTransaction(fails(outside(ledger.latestOffset), "StoreUnavailable", full, 5, secret())))
      )
      yield* Effect.promise(() => Promise.all(taken.map((client) => client.end())))
      yield* until(
        yield* session(),
        "SELECT 1 WHERE (SELECT count(*) FROM pg_stat_activity WHERE state IS NOT NULL) < 8"
      )
      assert.strictEqual((yield* (yield* opened({ schema })).append)._tag, "Appended")
      assert.strictEqual((yield* append)._tag, "Appended")
    }))

  it.scopedLive("a lock that is held, and a statement that the server ends: neither is taken for the other", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const { append, ledger } = yield* opened({ schema })
      yield* append
      const before = yield* retries
      const other = yield* session()
      yield* Effect.promise(() => other.query(`BEGIN; LOCK TABLE ${schema}.ledger_lock IN EXCLUSIVE MODE`))
      yield* fails(append, "StoreUnavailable", /another writer holds.*raise lockTimeout/, 3)
      // the lock was waited for already
      assert.strictEqual(yield* retries, before)
      assert.strictEqual(yield* ledger.latestOffset, 1)
      yield* Effect.promise(() => other.query("ROLLBACK"))
      yield* append

      const url = changed((url) => url.searchParams.set("options", "-c statement_timeout=100"))
      const hasty = yield* opened({ schema, lockTimeout: "30 seconds" }, url)
      yield* Effect.promise(() => other.query(`BEGIN; LOCK TABLE ${schema}.ledger_lock IN EXCLUSIVE MODE`))
      yield* fails(hasty.append, "StoreUnavailable", /the server ended the statement.*raise its statement_timeout/, 3)
      yield* Effect.promise(() => other.query("ROLLBACK"))
      yield* hasty.append
      assert.strictEqual(yield* ledger.latestOffset, 3)
    }))

  it.scopedLive("a way to the server that falls silent: in time, and not for longer than it lasts", () =>
    Effect.gen(function*() {
      const way = yield* proxy(server.port)
      const url = changed((url) => void (url.port = String(way.port)))
      const { append, ledger } = yield* opened(
        { schema: newSchema(), commitTimeout: "1 second", maxConnections: 1 },
        url
      )
      yield* append
      // after the notification, on the only connection
      yield* ledger.latestOffset
      way.silent = true
      yield* fails(ledger.latestOffset, "StoreUnavailable", /did not answer a statement within 1500 ms/, 4, secret())
      const lost = yield* event()
      yield* fails(ledger.append(lost), "StoreUnavailable", /it is unknown whether|does not answer/, 4, secret())
      yield* fails(ledger.events, "StoreUnavailable", /does not answer|did not answer/, 4, secret())
      way.silent = false
      // the id says what became of it
      yield* ledger.append(lost)
      yield* append
      assert.deepStrictEqual((yield* ledger.events).map(({ offset }) => offset), [1, 2, 3])
    }))

  it.scopedLive(
    "a server that is gone, that recovers, that is a standby, and that is promoted",
    () =>
      Effect.gen(function*() {
        const own = yield* Effect.acquireRelease(
          Effect.promise(() => startPostgres()),
          (server) => Effect.promise(server.stop)
        )
        const { append, ledger } = yield* opened({}, own.url)
        const password = decodeURIComponent(new URL(own.url).password)
        yield* append
        yield* Effect.promise(() => own.kill())
        yield* fails(append, "StoreUnavailable", /start the server/, 5, password)
        const standby = (hot: "on" | "off") => {
          Fs.writeFileSync(Path.join(own.dataDir, "standby.signal"), "")
          Fs.appendFileSync(Path.join(own.dataDir, "postgresql.auto.conf"), `\nhot_standby = ${hot}\n`)
          const { gid, uid } = Fs.statSync(own.dataDir)
          Fs.chownSync(Path.join(own.dataDir, "standby.signal"), uid, gid)
        }
        const promote = Effect.sync(() => {
          Fs.writeFileSync(Path.join(own.dataDir, "promote"), "")
          process.kill(own.pid(), "SIGUSR1")
        })
        // it recovers, and goes on recovering until it is told to stop
        standby("off")
        const started = own.start()
        const isRecovering = () => {
          const status = Fs.readFileSync(Path.join(own.dataDir, "postmaster.pid"), "utf8").split("\n")[7]?.trim()
          return status === "standby"
        }
        yield* Effect.promise(async () => {
          while (!Fs.existsSync(Path.join(own.dataDir, "postmaster.pid")) || !isRecovering()) {
            await new Promise((resolve) => setTimeout(resolve, 10))
          }
        })
        yield* fails(append, "StoreUnavailable", /wait for the server: it is starting, recovering/, 5, password)
        yield* fails(
          ledger.latestOffset,
          "StoreUnavailable",
          /wait for the server: it is starting, recovering/,
          5,
          password
        )
        yield* promote
        yield* Effect.promise(() => started)
        yield* append
        assert.strictEqual(yield* ledger.latestOffset, 2)

        yield* Effect.promise(() => own.kill("SIGINT"))
        standby("on")
        yield* Effect.promise(() => own.start())
        yield* fails(append, "StoreUnavailable", /can only be read.*connect to the primary/, 5, password)
        assert.strictEqual(yield* ledger.latestOffset, 2)
        yield* promote
        const writes = Effect.retry(append, { while: (error) => error._tag === "StoreUnavailable" })
        yield* Effect.timeout(writes, "30 seconds")
        assert.strictEqual(yield* ledger.latestOffset, 3)
      }),
    120_000
  )

  it.scopedLive(
    "a server that goes away in the middle of a batch: all of it or nothing, and appending it again repairs",
    () =>
      Effect.gen(function*() {
        const own = yield* Effect.acquireRelease(
          Effect.promise(() => startPostgres()),
          (server) => Effect.promise(server.stop)
        )
        const { append, ledger } = yield* opened({}, own.url)
        yield* append
        const batch = yield* events(30_000)
        const watcher = yield* session(own.url)
        const writing = yield* Effect.fork(Effect.either(ledger.appendAll(batch)))
        yield* until(
          watcher,
          "SELECT 1 FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation WHERE c.relname = 'ledger_lock' AND l.granted"
        )
        yield* Effect.promise(() => own.kill())
        yield* fails(
          Effect.flatten(Fiber.join(writing)),
          "StoreUnavailable",
          /start the server/,
          5,
          decodeURIComponent(new URL(own.url).password)
        )
        yield* Effect.promise(() => own.start())
        assert.strictEqual(yield* ledger.latestOffset, 1)
        const receipts = yield* ledger.appendAll(batch)
        assert.isTrue(receipts.every(({ _tag }, index) => _tag === "Appended" && receipts[index]!.offset === index + 2))
      }),
    120_000
  )
})

describe("what is transient", () => {
  it.scopedLive("a lost connection: repeated outside a transaction, TransactionAborted inside one", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const { append, ledger, sql } = yield* opened({ schema })
      yield* append
      const terminate = Effect.flatMap(
        session(),
        (client) =>
          Effect.promise(() =>
            client.query(
              "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE $1 AND pid <> pg_backend_pid()",
              [
                `%${schema}%`
              ]
            )
          )
      )
      const before = yield* retries
      // a read that runs when its connection is lost
      const other = yield* session()
      yield* Effect.promise(() => other.query(`BEGIN; LOCK TABLE ${schema}.ledger_meta IN ACCESS EXCLUSIVE MODE`))
      const reading = yield* Effect.fork(ledger.latestOffset)
      yield* until(
        yield* session(),
        `SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%${schema}%'`
      )
      yield* Effect.promise(async () => {
        const [waiting] = (await other.query(
          "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1",
          [`%${schema}%`]
        )).rows
        await other.query("SELECT pg_terminate_backend($1, 5000)", [waiting.pid])
        await other.query("ROLLBACK")
      })
      assert.strictEqual(yield* Fiber.join(reading), 1)
      assert.isAbove(yield* retries, before)

      const transaction = (between: Effect.Effect<unknown>) =>
        sql.withTransaction(Effect.zipRight(append, Effect.zipRight(between, append)))
      const error = yield* Effect.exit(Effect.timeout(
        sql.withTransaction(Effect.zipRight(
          append,
          Effect.zipRight(
            Effect.scoped(terminate),
            fails(
              append,
              "TransactionAborted",
              /connection was lost, and the transaction with it.*repeat the whole transaction/,
              5
            )
          )
        )),
        "10 seconds"
      ))
      assert.strictEqual(error._tag, "Failure")
      assert.strictEqual(yield* ledger.latestOffset, 1)
      yield* transaction(Effect.void)
      assert.strictEqual(yield* ledger.latestOffset, 3)
    }))

  it.scopedLive("a deadlock: repeated outside a transaction, TransactionAborted inside one", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const { append, ledger, sql } = yield* opened({ schema, lockTimeout: "10 seconds" })
      yield* append
      const other = yield* session()
      const watcher = yield* session()
      // the other side is the more patient one, so that the ledger's is found out
      yield* Effect.promise(() => other.query("SET deadlock_timeout = '1min'"))
      const collide = <A, E>(attempt: Effect.Effect<A, E>) =>
        Effect.gen(function*() {
          yield* Effect.promise(() => other.query(`BEGIN; LOCK TABLE ${schema}.ledger_events IN EXCLUSIVE MODE`))
          const writing = yield* Effect.fork(attempt)
          yield* until(
            watcher,
            `SELECT 1 FROM pg_locks WHERE NOT granted AND relation = '${schema}.ledger_events'::regclass`
          )
          yield* Effect.promise(() => other.query(`LOCK TABLE ${schema}.ledger_lock IN EXCLUSIVE MODE; COMMIT`))
          return yield* Fiber.join(writing)
        })
      const before = yield* retries
      assert.strictEqual((yield* collide(append))._tag, "Appended")
      assert.isAbove(yield* retries, before)
      yield* fails(
        collide(sql.withTransaction(append)),
        "TransactionAborted",
        /deadlock detected; repeat the whole transaction/,
        10
      )
      yield* sql.withTransaction(append)
      assert.strictEqual(yield* ledger.latestOffset, 3)
    }))

  it.scopedLive("a snapshot that is too old: repeated outside a transaction, TransactionAborted inside one", () =>
    Effect.gen(function*() {
      const schema = newSchema()
      const { append, ledger, sql } = yield* opened({ schema, maxConnections: 1 })
      const elsewhere = yield* opened({ schema })
      yield* append
      // after the ledger was opened, so that its appends do not begin transactions of their own
      yield* sql`SET default_transaction_isolation = 'repeatable read'`
      const other = yield* session()
      yield* Effect.promise(() => other.query(`BEGIN; LOCK TABLE ${schema}.ledger_lock IN EXCLUSIVE MODE`))
      yield* Effect.promise(() =>
        other.query(
          `INSERT INTO ${schema}.ledger_events SELECT (jsonb_populate_record(e, '{"offset": 2, "id": "other"}')).*
          FROM ${schema}.ledger_events AS e`
        )
      )
      const before = yield* retries
      const writing = yield* Effect.fork(append)
      yield* until(other, `SELECT 1 FROM pg_locks WHERE NOT granted AND relation = '${schema}.ledger_lock'::regclass`)
      yield* Effect.promise(() => other.query("COMMIT"))
      assert.deepInclude(yield* Fiber.join(writing), { _tag: "Appended", offset: 3 })
      assert.isAbove(yield* retries, before)
      const aborted = sql.withTransaction(
        Effect.zipRight(ledger.latestOffset, Effect.zipRight(elsewhere.append, append))
      )
      yield* fails(aborted, "TransactionAborted", /repeat the whole transaction/)
      assert.strictEqual(yield* ledger.latestOffset, 4)
    }))

  // what the server itself would say, as often as it is told to
  const cases: ReadonlyArray<
    readonly [code: string, outside: "repeated" | RegExp, inside: "StoreUnavailable" | "TransactionAborted"]
  > = [
    ["40001", "repeated", "TransactionAborted"],
    ["40P01", "repeated", "TransactionAborted"],
    ["08006", "repeated", "TransactionAborted"],
    ["55P03", /another writer holds.*raise lockTimeout/, "StoreUnavailable"],
    ["57014", /the server ended the statement/, "StoreUnavailable"],
    ["53100", /no room.*make room on the disk/, "StoreUnavailable"],
    ["53200", /no room/, "StoreUnavailable"]
  ]
  for (const [code, outside, inside] of cases) {
    it.scopedLive(`${code} is ${outside === "repeated" ? "repeated" : "not repeated"}, and within bounds`, () =>
      Effect.gen(function*() {
        const schema = newSchema()
        const { append, ledger, sql } = yield* opened({ schema })
        yield* append
        const refuse = (times: number) =>
          run(
            `CREATE SEQUENCE IF NOT EXISTS ${schema}.refusals; ALTER SEQUENCE ${schema}.refusals RESTART`,
            `CREATE OR REPLACE FUNCTION ${schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF nextval('${schema}.refusals') <= ${times} THEN RAISE EXCEPTION 'told to' USING ERRCODE = '${code}'; END IF;
              RETURN NEW; END $$`,
            `CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON ${schema}.ledger_events FOR EACH ROW EXECUTE FUNCTION ${schema}.refuse()`
          )
        const before = yield* retries
        yield* refuse(2)
        if (outside === "repeated") {
          assert.strictEqual((yield* append)._tag, "Appended")
          assert.strictEqual((yield* retries) - before, 2)
          yield* refuse(1000)
          yield* fails(append, "StoreUnavailable", /told to.*repeating the same call is safe/)
          assert.isAtMost((yield* retries) - before, 2 + 7)
        } else {
          yield* fails(append, "StoreUnavailable", outside)
          assert.strictEqual(yield* retries, before)
        }
        yield* refuse(1)
        yield* fails(sql.withTransaction(append), inside, /told to/)
        yield* sql.withTransaction(append)
        assert.strictEqual(yield* ledger.latestOffset, outside === "repeated" ? 3 : 2)
      }))
  }
})

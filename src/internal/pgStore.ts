/** The store in Postgres. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { SqlClient } from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { createHash, randomUUID } from "node:crypto"
import type { Pool } from "pg"
import { ConsumerStore } from "../ConsumerStore.js"
import { IncompatibleStore, type SetupError, type StoreError, StoreFailure } from "../LedgerError.js"
import * as LedgerMetrics from "../LedgerMetrics.js"
import {
  type AppendGroup,
  type GroupResult,
  type Head,
  LedgerStore,
  type Outcome,
  type Page,
  type StoredRow
} from "../LedgerStore.js"
import * as migrations from "./migrations/postgres.js"
import { inspect, ownTable } from "./pgInspect.js"
import { askOn, unanswered } from "./pgPool.js"
import { pushColumns } from "./row.js"
import * as sqlConsumerStore from "./sqlConsumerStore.js"
import { isPatienceSpent, reasonOf, toStoreError } from "./sqlError.js"
import {
  badName,
  type Call,
  callsOf,
  columns,
  type Dialect,
  hasAppended,
  lineageFrom,
  lineageOf,
  type Names,
  names as makeNames,
  noLedger,
  otherVersion,
  pages as pagesOf,
  resultsOf,
  setUpRow,
  type Statement
} from "./sqlStore.js"
import * as Transaction from "./transaction.js"

export interface Options {
  /** Hints from the notifications on a channel. */
  readonly listen: (channel: string) => Stream.Stream<void>
  readonly prefix: string
  readonly schema: string | undefined
  /** Whether a ledger is made where there is none, true unless told. */
  readonly create?: boolean | undefined
  readonly durability: "full" | "relaxed"
  /** How long an append waits for another's transaction before it fails with `StoreUnavailable`. */
  readonly lockTimeout: Duration.DurationInput
  /** How long the server may take to answer a statement. */
  readonly commitTimeout: Duration.DurationInput
  /** How long the caller's transaction may stand idle once it has appended. */
  readonly maxLockHold?: Duration.DurationInput | undefined
  /** The client's pool, where it is ours: asked directly it takes half the time. */
  readonly pool: Pool | undefined
  /** Whether statements are prepared, which a pooler of transactions does not bear. */
  readonly prepared: boolean
}

/** Milliseconds from a notification to the next. */
const notifyPause = 5

/** A statement that returns rows. */
type Execute = (text: string, params: ReadonlyArray<unknown>) => Effect.Effect<ReadonlyArray<StoredRow>, unknown>

export const make = Effect.fnUntraced(function*(
  client: SqlClient,
  options: Options
): Effect.fn.Return<Context.Context<LedgerStore | ConsumerStore>, SetupError, Scope.Scope> {
  const setupError = (error: unknown): SetupError => {
    if (error instanceof IncompatibleStore) return error
    const failure = toStoreError("setup", error, false)
    return failure._tag === "TransactionAborted" ? new StoreFailure({ method: "setup", cause: failure }) : failure
  }
  // the connections of a client are instances of a class that is its own
  const ownClass = yield* client.reserve.pipe(
    Effect.map((connection) => connection.constructor),
    Effect.scoped,
    Effect.mapError(setupError)
  )
  const lockTimeout = Duration.toMillis(options.lockTimeout)
  const patience = Math.max(Duration.toMillis(options.commitTimeout), lockTimeout + 1000)
  const connections = Transaction.connections(
    (other) => other.constructor === ownClass,
    Effect.map(Transaction.reserveSafely(client), (connection) => patient(connection, patience))
  )
  const { isolated, names } = yield* connections.reserved((connection) => setUp(connection, options)).pipe(
    Effect.mapError(setupError)
  )

  const sql = statements(names, lockTimeout)
  const pages = pagesOf(names, dialect)

  const reserved: Execute = (text, params) =>
    connections.reserved((connection) => connection.executeValues(text, params))
  /** Outside a transaction. */
  const pool = options.pool && (yield* askOn(options.pool, patience, options.prepared))
  const execute: Execute = pool === undefined
    ? reserved
    : (text, params) =>
      Effect.async((resume) =>
        pool.askAgain(
          text,
          params,
          (error, rows) => resume(error === undefined ? Effect.succeed(rows) : Effect.fail(error))
        )
      )

  const read = <A>(
    method: string,
    statement: string,
    params: ReadonlyArray<unknown>,
    decode: (rows: ReadonlyArray<StoredRow>) => A
  ): Effect.Effect<A, StoreError> =>
    Effect.flatMap(connections.joined, (joined) =>
      (joined === undefined
        ? retryTransient(execute(statement, params))
        : joined.executeValues(statement, params)).pipe(
          Effect.flatMap((rows) =>
            Effect.try({ try: () => decode(rows), catch: (error) => toStoreError(method, error, joined !== undefined) })
          ),
          Effect.mapError((error) => toStoreError(method, error, joined !== undefined))
        ))

  /** In the caller's transaction: a savepoint keeps what fails in it from failing the transaction. */
  const inSavepoint = <A>(
    connection: Connection,
    method: string,
    effect: Effect.Effect<A, unknown>
  ): Effect.Effect<A, StoreError> =>
    run(connection, "SAVEPOINT effect_ledger").pipe(
      Effect.zipRight(Effect.tapError(effect, () =>
        Effect.zipRight(
          run(connection, "ROLLBACK TO SAVEPOINT effect_ledger"),
          run(connection, "RELEASE SAVEPOINT effect_ledger")
        ))),
      Effect.zipLeft(run(connection, "RELEASE SAVEPOINT effect_ledger")),
      Effect.mapError((error) => toStoreError(method, error, true)),
      Effect.uninterruptible,
      (effect) => connections.alone(connection, effect)
    )

  /** In the caller's transaction, which has the ledger's lock now. */
  const limitIdle = (connection: Connection): Effect.Effect<unknown, SqlError> =>
    options.maxLockHold === undefined
      ? Effect.void
      : connection.executeRaw(sql.limitIdle, [Duration.toMillis(options.maxLockHold)])

  const channel = `effect_ledger_${createHash("md5").update(names.events).digest("hex")}`
  const notification: (done: () => void) => void = pool === undefined
    ? (done) => void Effect.runFork(reserved(sql.notify, [channel])).addObserver(done)
    : (done) => pool.ask(sql.notify, [channel], done)
  let notifying = false
  let again = false
  let notified = Number.NEGATIVE_INFINITY
  let whenNotified: (() => void) | undefined
  // the first goes at once; the next waits, and speaks for all that come before it is sent
  const notifyNext = (): void => {
    const left = notified + notifyPause - performance.now()
    // by the real clock, also where a program tests with another
    if (left > 0) return void setTimeout(notifyNext, left)
    again = false
    notified = performance.now()
    notification(() => {
      if (again) return notifyNext()
      notifying = false
      whenNotified?.()
    })
  }
  // after the commit and beside the next one: a server commits transactions that notify one at a time
  const notify = (): void => {
    again = true
    if (notifying) return
    notifying = true
    notifyNext()
  }
  yield* Effect.addFinalizer(() =>
    Effect.async<void>((resume) => {
      whenNotified = () => resume(Effect.void)
      if (!notifying) whenNotified()
    }).pipe(Effect.interruptible, Effect.timeoutOption("1 second"))
  )

  // who repeats one event repeats others
  let lookFirst = false
  const hear = (rows: ReadonlyArray<StoredRow>): Answer => {
    const answer = JSON.parse(String(rows[0]![0])) as Answer
    lookFirst = answer.known !== undefined
    return answer
  }
  /** The first of the attempts was made without a fiber. */
  let failedDirectly = false
  const append = (
    groups: NonEmptyReadonlyArray<AppendGroup>
  ): Effect.Effect<ReadonlyArray<GroupResult>, StoreError> => {
    const calls = callsOf(groups, maxCallRows, maxCallLength)
    const full = options.durability === "full"
    const callAll = (execute: Execute, commits: string, channel: string | null) =>
      Effect.map(
        Effect.forEach(calls, (call) =>
          Effect.suspend(() => {
            const { params, text } = appendStatement(sql, call, commits, channel, lookFirst)
            return Effect.map(execute(text, params), hear)
          })),
        (answers) => resultsOf(groups, calls.flatMap((call, index) => outcomesOf(call, answers[index]!)))
      )
    return Effect.flatMap(connections.joined, (joined) => {
      if (joined !== undefined) {
        const call = callAll(on(joined), full ? "on" : "", channel)
        return inSavepoint(joined, "append", Effect.zipLeft(call, limitIdle(joined)))
      }
      const write = (execute: Execute) => callAll(execute, full ? "on" : "off", null)
      const retry = failedDirectly ? repeatTransient : retryTransient
      failedDirectly = false
      return retry(
        calls.length === 1 && !isolated
          ? Effect.uninterruptible(write(execute))
          : connections.reserved((connection) =>
            Effect.uninterruptible(inTransaction(connection, write(on(connection)), sql.maxIdle))
          )
      ).pipe(
        Effect.mapError((error) => toStoreError("append", error, false)),
        Effect.tap((results) => results.some(hasAppended) ? Effect.sync(notify) : Effect.void)
      )
    })
  }
  /** Over a pool of ours, where one statement is enough and goes well. */
  const direct = (
    groups: NonEmptyReadonlyArray<AppendGroup>,
    done: (exit: Exit.Exit<ReadonlyArray<GroupResult>, StoreError> | undefined) => void
  ): void => {
    const [call, next] = callsOf(groups, maxCallRows, maxCallLength)
    if (pool === undefined || isolated || call === undefined || next !== undefined) return done(undefined)
    const { params, text } = appendStatement(sql, call, options.durability === "full" ? "on" : "off", null, lookFirst)
    pool.askAgain(text, params, (error, rows) => {
      try {
        if (error === undefined) {
          const results = resultsOf(groups, outcomesOf(call, hear(rows)))
          done(Exit.succeed(results))
          if (results.some(hasAppended)) notify()
        } else if (isTransient(error)) {
          failedDirectly = true
          done(undefined)
        } else done(Exit.fail(toStoreError("append", error, false)))
      } catch (cause) {
        done(Exit.fail(toStoreError("append", cause, false)))
      }
    })
  }

  /** In the caller's transaction, or in one of its own. */
  const write = <A>(
    method: string,
    work: (connection: Connection) => Effect.Effect<A, SqlError>
  ): Effect.Effect<A, StoreError> =>
    Effect.flatMap(connections.joined, (joined) =>
      joined !== undefined
        ? inSavepoint(joined, method, work(joined))
        : Effect.mapError(
          connections.reserved((connection) => Effect.uninterruptible(inTransaction(connection, work(connection)))),
          (error) => toStoreError(method, error, false)
        ))

  const store: Context.Tag.Service<LedgerStore> = {
    append: Object.assign(append, { direct }),
    page: (request) =>
      Effect.suspend(() => {
        const statements = pages(request)
        const ask = (step: ReturnType<typeof statements.next>): Effect.Effect<Page, StoreError> =>
          step.done === true
            ? Effect.succeed(step.value)
            : Effect.flatMap(
              read("read", step.value.text, step.value.params, (rows) => statements.next(rows.map(withNumbers))),
              ask
            )
        return ask(statements.next())
      }),
    readsAhead: true,
    get: (id) => read("get", sql.byId, [id], (rows) => Option.map(Option.fromNullable(rows[0]), withNumbers)),
    runs: read("runs", sql.runs, [], (rows) => rows.map((row) => String(row[0]))),
    head: read("head", sql.head, [], headOf),
    reset: write("reset", (connection) =>
      Effect.forEach(
        [...sql.reset, [sql.newLineage, [randomUUID(), "[]"]] as const],
        ([text, params]) => connection.executeRaw(text, params),
        { discard: true }
      )),
    lineage: read("lineage", sql.lineage, [], (rows) => lineageOf(setUpRow(rows[0])[0])),
    incarnate: (given) =>
      write(
        "incarnate",
        Effect.fnUntraced(function*(connection): Effect.fn.Return<Head, SqlError> {
          yield* run(connection, sql.lock)
          const before = headOf(yield* connection.executeValues(sql.head, []))
          const lineage = given ??
            lineageFrom(before, lineageOf((yield* connection.executeValues(sql.lineage, []))[0]![0]))
          const incarnation = randomUUID()
          yield* connection.executeRaw(sql.newLineage, [incarnation, JSON.stringify(lineage)])
          return { ...before, incarnation }
        })
      ),
    digests: (after, through) =>
      read(
        "digests",
        sql.digests,
        [after, through],
        (rows) => rows.map(([offset, digest]) => [Number(offset), digest as string | null] as const)
      ),
    inspect: inspect(names, (text, params) => read("inspect", text, params, (rows) => rows)),
    location: read("location", sql.location, [names.schema, `${names.prefix}events`], (rows) => {
      // an incarnation is of one log, or of a copy byte by byte
      const [database, table, incarnation] = setUpRow(rows[0])
      return { key: `postgres ${database} ${table} ${incarnation}`, file: null }
    }),
    changes: options.listen(channel),
    inTransaction: Effect.withFiberRuntime((fiber) => Effect.succeed(connections.joinedBy(fiber) !== undefined)),
    transaction: (effect, { maxIdle } = {}) =>
      Effect.flatMap(connections.joined, (joined) =>
        joined !== undefined ? effect : connections.transaction(effect, {
          begin: step(begin(maxIdle)),
          commit,
          rollback: step("ROLLBACK"),
          toError: transactionError
        }))
  }
  return Context.make(LedgerStore, store).pipe(
    Context.add(
      ConsumerStore,
      sqlConsumerStore.make({
        names,
        query: (method, text, params) => read(method, text, params, (rows) => rows),
        placeholder: dialect.placeholder,
        now: "(extract(epoch FROM clock_timestamp()) * 1000)::int8",
        skipLocked: "FOR UPDATE SKIP LOCKED"
      })
    )
  )
})

/**
 * What a listener asks of its connection: whether it is one to a standby, where nobody can listen, the channel's
 * notifications, and whether it still answers.
 */
export const standbyStatement = "SELECT pg_is_in_recovery()::text AS standby"
export const listenStatement = (channel: string): string => `LISTEN "${channel}"`
export const aliveStatement = "SELECT 1"

const hexOf = (column: string): string => `encode(${column}, 'hex')`

const dialect: Dialect = {
  isPositional: false,
  hex: hexOf,
  placeholder: (number) => `$${number}`,
  oneOf: (column, placeholder) => `${column} = ANY (${placeholder}::text[])`,
  list: (members) => textArray(members),
  // a limit that is not in the text is taken for a tenth of the rows, so that the server would plan each page anew
  limited: (rows, limit, placeholder) => {
    const most = mostRows.find((most) => most >= limit)
    return most === undefined
      ? `${rows} LIMIT ${placeholder}`
      : `SELECT * FROM (${rows} LIMIT ${most}) AS l LIMIT ${placeholder}`
  },
  isLarge: migrations.isLarge
}

const mostRows = [16, 1000]

const transactionError = (error: unknown): StoreError => toStoreError("transaction", error, false)

const step = (text: string) => (connection: Connection): Effect.Effect<void, StoreError> =>
  Effect.mapError(run(connection, text), transactionError)
const on = (connection: Connection): Execute => (text, params) => connection.executeValues(text, params)

/**
 * A statement that the server does not answer in time takes its connection with it: nobody knows when it would be free
 * again, and the pool has only so many.
 */
const patient = (connection: Connection, millis: number): Connection => {
  const bounded = <A>(statement: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> =>
    Effect.suspend(() => {
      let late = false
      const timer = setTimeout(() => {
        late = true
        destroy(connection)
      }, millis)
      return statement.pipe(
        Effect.mapError((error) => late ? new SqlError({ cause: unanswered(millis), message: error.message }) : error),
        Effect.ensuring(Effect.sync(() => clearTimeout(timer)))
      )
    })
  return Object.assign(Object.create(connection) as Connection, {
    executeRaw: (text: string, params: ReadonlyArray<unknown>) => bounded(connection.executeRaw(text, params)),
    executeValues: (text: string, params: ReadonlyArray<unknown>) => bounded(connection.executeValues(text, params))
  })
}

/** A polite end waits for an answer. */
const destroy = (connection: Connection): void => {
  const { pg } = connection as { readonly pg?: { readonly connection?: { readonly stream?: { destroy: () => void } } } }
  pg?.connection?.stream?.destroy()
}

// where a statement failed, and the effect made nothing of it, the server rolls back and calls that a success
const commit = (connection: Connection): Effect.Effect<void, StoreError> =>
  Effect.flatMap(
    Effect.mapError(connection.executeRaw("COMMIT", []), transactionError),
    (result) =>
      (result as { readonly command: string }).command === "COMMIT" ? Effect.void : new StoreFailure({
        method: "transaction",
        cause: new Error("a statement failed in it, so the server has rolled it back")
      })
  )

const run = (connection: Connection, text: string): Effect.Effect<void, SqlError> =>
  Effect.asVoid(connection.executeRaw(text, []))

// whoever falls silent within would hold the locks of the transaction for ever
const begin = (maxIdle: number | undefined): string =>
  "BEGIN ISOLATION LEVEL READ COMMITTED" +
  (maxIdle === undefined ? "" : `; SET LOCAL idle_in_transaction_session_timeout = ${Math.ceil(maxIdle)}`)

const inTransaction = <A, E>(
  connection: Connection,
  effect: Effect.Effect<A, E>,
  maxIdle?: number
): Effect.Effect<A, E | SqlError> =>
  run(connection, begin(maxIdle)).pipe(
    Effect.zipRight(effect),
    Effect.zipLeft(run(connection, "COMMIT")),
    // when even this fails the connection is lost, and the transaction with it
    Effect.tapError(() => Effect.ignore(run(connection, "ROLLBACK")))
  )

/**
 * Outside a transaction every statement of ours may be repeated: ids make appends idempotent. A serialization
 * failure comes where the default isolation was raised after the ledger was opened.
 */
const retryTransient = <A>(effect: Effect.Effect<A, unknown>): Effect.Effect<A, unknown> =>
  // the schedule is made when it is needed
  Effect.catchIf(effect, isTransient, () => repeatTransient(effect))

const repeatTransient = <A>(effect: Effect.Effect<A, unknown>): Effect.Effect<A, unknown> =>
  Effect.retry(Effect.zipRight(Metric.increment(LedgerMetrics.retries), effect), {
    while: isTransient,
    schedule: transient
  })

const isTransient = (error: unknown): boolean => {
  const reason = isPatienceSpent(error) ? undefined : reasonOf(error)
  return reason === "ConnectionError" || reason === "SerializationError"
}

const transient = Schedule.exponential("10 millis").pipe(Schedule.jittered, Schedule.intersect(Schedule.recurs(6)))

const lockStatement = (names: Names): string => `LOCK TABLE ${names.of("lock")} IN EXCLUSIVE MODE`

const headOf = (rows: ReadonlyArray<StoredRow>): Head => {
  const [incarnation, offset, digest] = setUpRow(rows[0])
  return {
    incarnation: String(incarnation),
    offset: Number(offset ?? 0),
    digest: (digest ?? null) as string | null
  }
}

const statements = (names: Names, lockTimeout: number) => ({
  appendOne: `SELECT ${migrations.appendOneFunction(names)}(${
    Array.from({ length: 15 }, (_, n) => `$${n + 1}`).join(", ")
  })`,
  append: `SELECT ${
    migrations.appendFunction(names)
  }($1, $2, $3, $4, $5, pg_catalog.string_to_array($6, E'\\x1f'), $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`,
  head: `SELECT m.incarnation, e."offset", encode(e.digest, 'hex') FROM ${names.meta} AS m LEFT JOIN ` +
    `(SELECT "offset", digest FROM ${names.events} ORDER BY "offset" DESC LIMIT 1) AS e ON true`,
  byId: `SELECT ${columns} FROM ${names.events} WHERE id = $1`,
  // a skip scan: one index probe a run, however many events it has
  runs: `WITH RECURSIVE run(id) AS (
    SELECT min(run_id) FROM ${names.events}
    UNION ALL SELECT (SELECT min(run_id) FROM ${names.events} WHERE run_id > run.id) FROM run WHERE run.id IS NOT NULL
  ) SELECT id FROM run WHERE id IS NOT NULL
    ORDER BY (SELECT min("offset") FROM ${names.events} WHERE run_id = run.id)`,
  // a hint need not be on the disk, where it would be in the way of the next append
  notify: "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, 'appended')",
  newLineage: `UPDATE ${names.meta} SET incarnation = $1, lineage = $2`,
  lineage: `SELECT lineage FROM ${names.meta}`,
  // a setting of 0 is no limit, and the largest is that of int4
  limitIdle:
    `SELECT set_config(s.name, greatest(1, least($1::numeric, 2147483647, nullif(extract(epoch FROM s.now) * 1000, 0)))` +
    `::int4::text, true) FROM (SELECT name, current_setting(name)::interval AS now ` +
    `FROM (VALUES ('idle_in_transaction_session_timeout')) AS s (name)) AS s`,
  lock: lockStatement(names),
  digests: `SELECT "offset", ${
    hexOf("digest")
  } FROM ${names.events} WHERE "offset" > $1 AND "offset" <= $2 ORDER BY "offset"`,
  location:
    `SELECT d.oid::text, c.oid::text, (SELECT incarnation FROM ${names.meta}) FROM pg_catalog.pg_database AS d ` +
    `JOIN ${ownTable("c.oid", "AND d.datname = current_database()")}`,
  reset: [
    [lockStatement(names), []],
    [migrations.disableGuard(names), []],
    [`TRUNCATE ${names.events}, ${names.spans}`, []],
    [migrations.enableGuard(names), []]
  ] as ReadonlyArray<readonly [string, ReadonlyArray<unknown>]>,
  lockTimeout,
  // so that whoever waits for the lock of one that fell silent gets it in time
  maxIdle: lockTimeout / 2
})

type Statements = ReturnType<typeof statements>

/** A pool of ours gives text for what a client gives as numbers. */
const withNumbers = (row: StoredRow): StoredRow => {
  const all = row as Array<unknown>
  for (const index of numbers) if (typeof all[index] === "string") all[index] = Number(all[index])
  return row
}

/** Where a row has its offset, its turn, its time and its schema version. */
const numbers = [0, 3, 7, 8]

interface Answer {
  /** Absent, or null, where every row was known. */
  readonly last?: number | null
  readonly known?: ReadonlyArray<readonly [place: number, offset: number, same: boolean]>
  readonly conflict?: number
}

const maxCallRows = 2000
const maxCallLength = 2 ** 22

const appendStatement = (
  sql: Statements,
  { condition, rows }: Call,
  commits: string,
  channel: string | null,
  lookFirst: boolean
): Statement => {
  const [row, next] = rows
  if (row !== undefined && next === undefined && condition === undefined) {
    const params = pushColumns([], row)
    params.push(`\\x${row.digest}`, commits, sql.lockTimeout, channel)
    return { text: sql.appendOne, params }
  }
  return {
    text: sql.append,
    params: [
      textArray(rows.map((row) => row.id)),
      textArray(rows.map((row) => row.runId)),
      numberArray(rows.map((row) => row.turn)),
      textArray(rows.map((row) => row.kind)),
      textArray(rows.map((row) => row.actor)),
      rows.map((row) => row.payload).join(separator),
      numberArray(rows.map((row) => row.createdAt)),
      numberArray(rows.map((row) => row.schemaVersion)),
      textArray(rows.map((row) => row.sessionId)),
      textArray(rows.map((row) => row.modelProfile)),
      textArray(rows.map((row) => row.modelId)),
      `{${rows.map((row) => `"\\\\x${row.digest}"`).join(",")}}`,
      condition === undefined ? null : JSON.stringify(condition),
      commits,
      sql.lockTimeout,
      channel,
      lookFirst
    ]
  }
}

/** Stands in no JSON text as it is, so that payloads need no quotes of their own: a tenth of what a caller costs. */
const separator = "\u001f"

// array literals, as the server reads them: half the time of the driver's own
const numberArray = (values: ReadonlyArray<number>): string => `{${values.join(",")}}`
const textArray = (values: ReadonlyArray<string | null>): string =>
  `{${values.map((value) => value === null ? "NULL" : `"${value.replace(/["\\]/g, "\\$&")}"`).join(",")}}`

/** An outcome for each row of a call; in their place the offset that refused its condition. */
const outcomesOf = ({ rows }: Call, { conflict, known = [], last }: Answer): ReadonlyArray<Outcome | number> => {
  if (conflict !== undefined) return rows.map(() => conflict)
  const byPlace = new Map(known.map(([place, offset, same]) => [place, { offset, same }]))
  let next = last ?? 0
  return rows.map((_, index) => {
    const recorded = byPlace.get(index + 1)
    return recorded === undefined
      ? { offset: ++next, status: "appended" }
      : { offset: recorded.offset, status: recorded.same ? "identical" : "divergent" }
  })
}

interface SetUp {
  readonly names: Names
  /** A statement alone would be in a transaction that others can make fail: appends begin one of their own. */
  readonly isolated: boolean
}

const minimumVersion = 150000

const setUp = Effect.fnUntraced(function*(
  connection: Connection,
  options: Options
): Effect.fn.Return<SetUp, SqlError | IncompatibleStore | StoreFailure> {
  const [version, versionText, encoding, current, isolation] = (yield* connection.executeValues(
    "SELECT current_setting('server_version_num'), current_setting('server_version'), " +
      "current_setting('server_encoding'), current_schema(), current_setting('default_transaction_isolation')",
    []
  ))[0]!
  if (Number(version) < minimumVersion) {
    return yield* new IncompatibleStore({ found: `Postgres ${versionText}`, supported: "Postgres 15 or later" })
  }
  if (encoding !== "UTF8") {
    return yield* new IncompatibleStore({ found: `a database encoded in ${encoding}`, supported: "UTF8" })
  }
  const names = makeNames(options.prefix, options.schema ?? String(current))
  if (names === undefined || (options.schema ?? current) === null) {
    return yield* new StoreFailure({ method: "setup", cause: new Error(badName) })
  }
  const stored = Effect.flatMap(
    connection.executeValues(
      "SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace " +
        "WHERE n.nspname = $1 AND c.relname = $2",
      [names.schema, `${names.prefix}meta`]
    ),
    (found) =>
      found.length === 0
        ? Effect.succeed(undefined)
        : Effect.map(
          connection.executeValues(`SELECT version FROM ${names.meta}`, []),
          (rows) => Number(rows[0]?.[0])
        )
  )
  const present = yield* stored
  if (present === undefined && options.create === false) return yield* noLedger(names)
  const found = present ?? (yield* inTransaction(
    connection,
    Effect.gen(function*() {
      // one set-up at a time in a database: CREATE … IF NOT EXISTS fails when two run together
      yield* connection.executeRaw(`SELECT pg_advisory_xact_lock(${migrations.setUpLock})`, [])
      const raced = yield* stored
      if (raced !== undefined) return raced
      if (options.schema !== undefined) yield* run(connection, `CREATE SCHEMA IF NOT EXISTS "${options.schema}"`)
      for (const text of migrations.create(names)) yield* run(connection, text)
      yield* connection.executeRaw(
        `INSERT INTO ${names.meta} (one, version, incarnation) VALUES (1, $1, $2)`,
        [migrations.version, randomUUID()]
      )
      return migrations.version
    })
  ))
  if (found !== migrations.version) {
    return yield* otherVersion(found, migrations.version)
  }
  return { names, isolated: isolation !== "read committed" }
})

/** Runs the statements of `pgRoles` in a transaction, the caller's where there is one. */
export const applyRoles = (statements: ReadonlyArray<string>): Effect.Effect<void, StoreError, SqlClient> =>
  Effect.flatMap(
    SqlClient,
    (client) => client.withTransaction(Effect.forEach(statements, (text) => client.unsafe(text).raw, { discard: true }))
  ).pipe(
    // the client dies where it cannot commit or roll back
    Effect.catchAllDefect(Effect.fail),
    Effect.mapError((error) => toStoreError("roles", error, false))
  )

/** The bytes of the events, with their indices: a question of its own, that any role may ask. */
export const size = (
  url: Redacted.Redacted,
  prefix: string,
  schema: string | undefined
): Effect.Effect<number, StoreError> =>
  Effect.flatMap(SqlClient, (client) => client.reserve).pipe(
    Effect.flatMap((connection) =>
      connection.executeValues(
        "SELECT pg_total_relation_size(c.oid)::float8 FROM pg_catalog.pg_class AS c " +
          "JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace " +
          "WHERE n.nspname = coalesce($1, current_schema()) AND c.relname = $2",
        [schema ?? null, `${prefix}events`]
      )
    ),
    Effect.scoped,
    Effect.provide(PgClient.layer({ url, maxConnections: 1 })),
    Effect.map((rows) => Number(rows[0]?.[0])),
    Effect.mapError((error) => toStoreError("size", error, false))
  )

/** The store in Postgres. */
import type { SqlClient } from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { createHash, randomUUID } from "node:crypto"
import type { Socket } from "node:net"
import { IncompatibleStore, type SetupError, type StoreError, StoreFailure } from "../LedgerError.js"
import * as LedgerMetrics from "../LedgerMetrics.js"
import type {
  AppendGroup,
  GroupResult,
  Head,
  LedgerStore,
  Outcome,
  Page,
  Row,
  StoreCondition,
  StoredRow
} from "../LedgerStore.js"
import * as migrations from "./migrations/postgres.js"
import { reasonOf, toStoreError } from "./sqlError.js"
import {
  badName,
  columns,
  cutStatement,
  type Dialect,
  type Names,
  names as makeNames,
  nextOf,
  pageStatement,
  wholeStatement
} from "./sqlStore.js"
import * as Transaction from "./transaction.js"

export interface Options {
  /** Hints from the notifications on a channel. */
  readonly listen: (channel: string) => Stream.Stream<void>
  readonly prefix: string
  readonly schema: string | undefined
  readonly durability: "full" | "relaxed"
  /** How long an append waits for another's transaction before it fails with `StoreUnavailable`. */
  readonly lockTimeout: Duration.DurationInput
  /** How long a connection may be silent when it was asked for something of bounded size. */
  readonly answerTimeout: Duration.DurationInput
}

export const make = Effect.fnUntraced(function*(
  client: SqlClient,
  options: Options
): Effect.fn.Return<Context.Tag.Service<LedgerStore>, SetupError, Scope.Scope> {
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
  const connections = Transaction.connections(
    (other) => other.constructor === ownClass,
    Transaction.reserveSafely(client)
  )
  const names = yield* connections.reserved((connection) => setUp(connection, options)).pipe(
    Effect.mapError(setupError)
  )

  const sql = statements(names, Duration.toMillis(options.lockTimeout))
  const answerMillis = Duration.toMillis(options.answerTimeout)

  const read = <A>(
    method: string,
    statement: string,
    params: ReadonlyArray<unknown>,
    decode: (rows: ReadonlyArray<StoredRow>) => A,
    millis = answerMillis
  ): Effect.Effect<A, StoreError> =>
    Effect.flatMap(connections.joined, (joined) =>
      (joined === undefined
        ? retryTransient(
          connections.reserved((connection) =>
            answering(connection, millis, connection.executeValues(statement, params))
          )
        )
        : joined.executeValues(statement, params)).pipe(
          Effect.map(decode),
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

  const channel = `effect_ledger_${createHash("md5").update(names.events).digest("hex")}`
  let notifying = false
  let again = false
  // after the commit and beside the next one: a server commits transactions that notify one at a time. One that is on
  // its way speaks for all that come before it is sent
  const notify: Effect.Effect<void> = Effect.suspend(() => {
    again = notifying
    if (notifying) return Effect.void
    notifying = true
    return connections.reserved((connection) =>
      answering(connection, answerMillis, connection.executeValues(sql.notify, [channel]))
    ).pipe(
      Effect.ignore,
      Effect.zipRight(Effect.suspend(() => {
        notifying = false
        return again ? notify : Effect.void
      })),
      Effect.forkDaemon
    )
  })

  const append = (
    groups: NonEmptyReadonlyArray<AppendGroup>
  ): Effect.Effect<ReadonlyArray<GroupResult>, StoreError> => {
    const calls = plan(groups)
    const full = options.durability === "full"
    const callAll = (connection: Connection, commits: string, channel: string | null) =>
      Effect.map(
        Effect.forEach(calls, (call) => callAppend(connection, sql, call, commits, channel)),
        (answers) => collect(groups, calls, answers)
      )
    return Effect.flatMap(connections.joined, (joined) => {
      if (joined !== undefined) return inSavepoint(joined, "append", callAll(joined, full ? "on" : "", channel))
      const write = (connection: Connection) => callAll(connection, full ? "on" : "off", null)
      const patience = answerMillis + Duration.toMillis(options.lockTimeout)
      return retryTransient(
        connections.reserved((connection) =>
          Effect.uninterruptible(answering(
            connection,
            patience,
            calls.length === 1 ? write(connection) : inTransaction(connection, write(connection), sql.idleTimeout)
          ))
        )
      ).pipe(
        Effect.mapError((error) => toStoreError("append", error, false)),
        Effect.zipLeft(notify)
      )
    })
  }

  return {
    append,
    page: (request) => {
      const statement = pageStatement(names.events, request, dialect)
      const ask = (rowsText: string) =>
        read("read", `${sql.headRow} UNION ALL SELECT * FROM (${rowsText}) AS page`, statement.params, (all): Page => {
          const rows = all.filter((row) => Number(row[0]) !== 0)
          const [, incarnation, last] = all.find((row) => Number(row[0]) === 0) ?? []
          const head = Number(last ?? 0)
          return { incarnation: String(incarnation), head, rows, next: nextOf(request, statement, rows, head) }
        })
      return statement.merged
        ? ask(cutStatement(statement))
        : Effect.flatMap(
          ask(wholeStatement(statement)),
          (page) =>
            page.rows.length > 0 || request.after >= page.head ? Effect.succeed(page) : ask(cutStatement(statement))
        )
    },
    get: (id) => read("get", sql.byId, [id], (rows) => Option.fromNullable(rows[0])),
    // as many as there are, and nobody knows how long that takes
    runs: read("runs", sql.runs, [], (rows) => rows.map((row) => String(row[0])), unlimited),
    head: read("head", sql.head, [], (rows): Head => {
      const [incarnation, offset, digest] = rows[0] ?? []
      return {
        incarnation: String(incarnation),
        offset: Number(offset ?? 0),
        digest: (digest ?? null) as string | null
      }
    }),
    reset: Effect.flatMap(connections.joined, (joined) => {
      const work = (connection: Connection) =>
        Effect.forEach(
          [...sql.reset, [sql.newIncarnation, [randomUUID()]] as const],
          ([text, params]) => connection.executeRaw(text, params),
          { discard: true }
        )
      return joined !== undefined
        ? inSavepoint(joined, "reset", work(joined))
        : Effect.mapError(
          connections.reserved((connection) =>
            Effect.uninterruptible(inTransaction(connection, work(connection), sql.idleTimeout))
          ),
          (error) => toStoreError("reset", error, false)
        )
    }),
    changes: options.listen(channel),
    inTransaction: Effect.map(connections.joined, (joined) => joined !== undefined)
  }
})

/** What a listener asks of its connection: the channel's notifications, and whether it still answers. */
export const listenStatement = (channel: string): string => `LISTEN "${channel}"`
export const aliveStatement = "SELECT 1"

const dialect: Dialect = {
  placeholder: (number) => `$${number}`,
  oneOf: (column, placeholder) => `${column} = ANY (${placeholder}::text[])`,
  list: (members) => members
}

const run = (connection: Connection, text: string): Effect.Effect<void, SqlError> =>
  Effect.asVoid(connection.executeRaw(text, []))

const inTransaction = <A, E>(
  connection: Connection,
  effect: Effect.Effect<A, E>,
  idleTimeout?: string
): Effect.Effect<A, E | SqlError> =>
  run(connection, "BEGIN ISOLATION LEVEL READ COMMITTED").pipe(
    Effect.zipRight(idleTimeout === undefined ? Effect.void : run(connection, idleTimeout)),
    Effect.zipRight(effect),
    Effect.zipLeft(run(connection, "COMMIT")),
    // when even this fails the connection is lost, and the transaction with it
    Effect.tapError(() => Effect.ignore(run(connection, "ROLLBACK")))
  )

/**
 * Ends a connection that has said nothing for so long, and with it the statement. TCP takes a quarter of an hour to
 * notice that a host is gone, and never notices a server that hangs.
 */
const answering = <A, E>(connection: Connection, millis: number, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    const stream = (connection as PoolConnection).pg?.connection?.stream
    if (stream === undefined || millis === unlimited) return effect
    let read = stream.bytesRead
    const timer = setInterval(() => {
      if (stream.bytesRead === read) stream.destroy()
      read = stream.bytesRead
    }, millis)
    return Effect.ensuring(effect, Effect.sync(() => clearInterval(timer)))
  })

const unlimited = Infinity

/** What the client's connections are made of. */
interface PoolConnection extends Connection {
  readonly pg?: { readonly connection?: { readonly stream?: Socket } }
}

/**
 * Outside a transaction every statement of ours may be repeated: ids make appends idempotent. A serialization
 * failure comes where the server's default isolation is above READ COMMITTED.
 */
const retryTransient = <A>(effect: Effect.Effect<A, unknown>): Effect.Effect<A, unknown> =>
  // the schedule is made when it is needed
  Effect.catchIf(effect, isTransient, () =>
    Effect.retry(Effect.zipRight(Metric.increment(LedgerMetrics.retries), effect), {
      while: isTransient,
      schedule: transient
    }))

const isTransient = (error: unknown): boolean => {
  const reason = reasonOf(error)
  return reason === "ConnectionError" || reason === "SerializationError"
}

const transient = Schedule.exponential("10 millis").pipe(Schedule.jittered, Schedule.intersect(Schedule.recurs(6)))

const statements = (names: Names, lockTimeout: number) => ({
  append: `SELECT ${
    migrations.appendFunction(names)
  }($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
  head: `SELECT m.incarnation, e."offset", encode(e.digest, 'hex') FROM ${names.meta} AS m LEFT JOIN ` +
    `(SELECT "offset", digest FROM ${names.events} ORDER BY "offset" DESC LIMIT 1) AS e ON true`,
  // one row more, so that the head is that of the rows' own snapshot
  headRow: `SELECT 0::int8 AS "offset", incarnation, ` +
    `(SELECT "offset" FROM ${names.events} ORDER BY "offset" DESC LIMIT 1)::text, ` +
    `${Array.from({ length: 9 }, () => "NULL").join(", ")} FROM ${names.meta}`,
  byId: `SELECT ${columns} FROM ${names.events} WHERE id = $1`,
  // a skip scan: one index probe a run, however many events it has
  runs: `WITH RECURSIVE run(id) AS (
    SELECT min(run_id) FROM ${names.events}
    UNION ALL SELECT (SELECT min(run_id) FROM ${names.events} WHERE run_id > run.id) FROM run WHERE run.id IS NOT NULL
  ) SELECT id FROM run WHERE id IS NOT NULL
    ORDER BY (SELECT min("offset") FROM ${names.events} WHERE run_id = run.id)`,
  notify: "SELECT pg_notify($1, 'appended')",
  newIncarnation: `UPDATE ${names.meta} SET incarnation = $1`,
  reset: [
    [`LOCK TABLE ${names.of("lock")} IN EXCLUSIVE MODE`, []],
    [migrations.disableGuard(names), []],
    [`TRUNCATE ${names.events}`, []],
    [migrations.enableGuard(names), []]
  ] as ReadonlyArray<readonly [string, ReadonlyArray<unknown>]>,
  lockTimeout,
  // a client that falls silent between two statements keeps the lock; whoever waits for it must get it in time
  idleTimeout: `SET LOCAL idle_in_transaction_session_timeout = ${Math.ceil(lockTimeout / 2)}`
})

type Statements = ReturnType<typeof statements>

/** One call of the append function: rows with distinct ids, of one or more groups. */
interface Call {
  readonly rows: ReadonlyArray<Row>
  readonly condition: StoreCondition | undefined
}

interface Answer {
  readonly last: number
  readonly known?: ReadonlyArray<readonly [place: number, offset: number, same: boolean]>
  readonly conflict?: number
}

/**
 * Groups without a condition are written together by calls that are bounded in rows and bytes, no id twice in one. A
 * group with a condition is one call, as the condition is about all of its events.
 */
const plan = (groups: NonEmptyReadonlyArray<AppendGroup>): ReadonlyArray<Call> => {
  const calls: Array<Call> = []
  let rows: Array<Row> = []
  let ids = new Set<string>()
  let length = 0
  const flush = () => {
    if (rows.length > 0) calls.push({ rows, condition: undefined })
    rows = []
    ids = new Set()
    length = 0
  }
  for (const group of groups) {
    if (group.condition !== undefined) {
      flush()
      calls.push(group)
      continue
    }
    for (const row of group.rows) {
      if (ids.has(row.id) || rows.length >= maxCallRows || length + row.payload.length > maxCallLength) flush()
      rows.push(row)
      ids.add(row.id)
      length += row.payload.length
    }
  }
  flush()
  return calls
}

const maxCallRows = 2000
const maxCallLength = 2 ** 22

const callAppend = (
  connection: Connection,
  sql: Statements,
  { condition, rows }: Call,
  commits: string,
  channel: string | null
): Effect.Effect<Answer, SqlError> =>
  Effect.map(
    connection.executeValues(sql.append, [
      textArray(rows.map((row) => row.id)),
      textArray(rows.map((row) => row.runId)),
      numberArray(rows.map((row) => row.turn)),
      textArray(rows.map((row) => row.kind)),
      textArray(rows.map((row) => row.actor)),
      textArray(rows.map((row) => row.payload)),
      numberArray(rows.map((row) => row.createdAt)),
      numberArray(rows.map((row) => row.schemaVersion)),
      textArray(rows.map((row) => row.sessionId)),
      textArray(rows.map((row) => row.modelProfile)),
      textArray(rows.map((row) => row.modelId)),
      textArray(rows.map((row) => `\\x${row.digest}`)),
      condition === undefined ? null : JSON.stringify(condition),
      commits,
      sql.lockTimeout,
      channel
    ]),
    (answer) => JSON.parse(String(answer[0]![0])) as Answer
  )

// array literals, as the server reads them: half the time of the driver's own
const numberArray = (values: ReadonlyArray<number>): string => `{${values.join(",")}}`
const textArray = (values: ReadonlyArray<string | null>): string =>
  `{${values.map((value) => value === null ? "NULL" : `"${value.replace(/["\\]/g, "\\$&")}"`).join(",")}}`

/** The results of the groups, from the answers to the calls that wrote their rows. */
const collect = (
  groups: NonEmptyReadonlyArray<AppendGroup>,
  calls: ReadonlyArray<Call>,
  answers: ReadonlyArray<Answer>
): ReadonlyArray<GroupResult> => {
  const outcomes = calls.flatMap((call, index) => outcomesOf(call, answers[index]!))
  let start = 0
  return groups.map((group) => {
    const own = outcomes.slice(start, start += group.rows.length)
    const refused = own[0]!
    return typeof refused === "number"
      ? { _tag: "Refused", offset: refused }
      : { _tag: "Written", outcomes: own as ReadonlyArray<Outcome> }
  })
}

/** An outcome for each row of a call; in their place the offset that refused its condition. */
const outcomesOf = ({ rows }: Call, { conflict, known = [], last }: Answer): ReadonlyArray<Outcome | number> => {
  if (conflict !== undefined) return rows.map(() => conflict)
  const byPlace = new Map(known.map(([place, offset, same]) => [place, { offset, same }]))
  let next = last
  return rows.map((_, index) => {
    const recorded = byPlace.get(index + 1)
    return recorded === undefined
      ? { offset: ++next, status: "appended" }
      : { offset: recorded.offset, status: recorded.same ? "identical" : "divergent" }
  })
}

const minimumVersion = 150000

const setUp = Effect.fnUntraced(function*(
  connection: Connection,
  options: Options
): Effect.fn.Return<Names, SqlError | IncompatibleStore | StoreFailure> {
  const [version, versionText, encoding, current] = (yield* connection.executeValues(
    "SELECT current_setting('server_version_num'), current_setting('server_version'), " +
      "current_setting('server_encoding'), current_schema()",
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
  const found = (yield* stored) ?? (yield* inTransaction(
    connection,
    Effect.gen(function*() {
      // one set-up at a time in a database: CREATE … IF NOT EXISTS fails when two run together
      yield* connection.executeRaw("SELECT pg_advisory_xact_lock(7308906542197)", [])
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
    return yield* new IncompatibleStore({
      found: `a ledger of set-up version ${found}`,
      supported: `set-up version ${migrations.version}`
    })
  }
  return names
})

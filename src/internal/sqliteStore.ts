/** The store in SQLite. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { SqlClient } from "@effect/sql/SqlClient"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import * as Fs from "node:fs"
import { ConsumerStore } from "../ConsumerStore.js"
import {
  IncompatibleStore,
  type SetupError,
  type StoreError,
  StoreFailure,
  TransactionAborted
} from "../LedgerError.js"
import * as LedgerMetrics from "../LedgerMetrics.js"
import {
  type Append,
  type AppendGroup,
  type GroupResult,
  type Head,
  LedgerStore,
  type Outcome,
  type Problem,
  type Row,
  type StoreCondition,
  type StoredRow,
  type StoreFilter
} from "../LedgerStore.js"
import * as migrations from "./migrations/sqlite.js"
import { isRecordOf, pushColumns } from "./row.js"
import * as sqlConsumerStore from "./sqlConsumerStore.js"
import { driverError, reasonOf, toStoreError } from "./sqlError.js"
import {
  breathing,
  ClientDatabase,
  type Database,
  drive,
  driverBusyTimeout,
  finish,
  isBreathless,
  openDatabase
} from "./sqliteDatabase.js"
import { offThread } from "./sqliteThread.js"
import { make as makeWriter } from "./sqliteWriter.js"
import {
  badName,
  callsOf,
  columns,
  type Dialect,
  expand,
  hasAppended,
  lineageFrom,
  lineageOf,
  maxBranches,
  misplacedStatement,
  misspannedStatement,
  type Names,
  names as makeNames,
  noLedger,
  otherVersion,
  pages as pagesOf,
  Params,
  predicate,
  problem,
  resultsOf,
  setUpRow
} from "./sqlStore.js"
import * as Transaction from "./transaction.js"

export interface Options {
  readonly prefix: string
  /** How long a write waits for another process's before it fails with `StoreUnavailable`. */
  readonly busyTimeout: Duration.DurationInput
  /** The client is ours: its durability is set as the option says, otherwise it is only raised. */
  readonly owned: boolean
  /** Where it is, if it is ours and a file. */
  readonly file: string | undefined
  /** Whether a ledger is made where there is none, true unless told. */
  readonly create?: boolean | undefined
  readonly durability: "full" | "relaxed"
  /** Whether the file that is open is no longer the one at its path. */
  readonly isLost: () => boolean
}

export const make = (
  client: SqlClient,
  options: Options
): Effect.Effect<Context.Context<LedgerStore | ConsumerStore>, SetupError, Scope.Scope> =>
  Effect.mapError(
    open(client, options),
    (error) => error._tag === "TransactionAborted" ? new StoreFailure({ method: "setup", cause: error }) : error
  )

const open = Effect.fnUntraced(function*(
  client: SqlClient,
  options: Options
): Effect.fn.Return<Context.Context<LedgerStore | ConsumerStore>, SetupError | StoreError, Scope.Scope> {
  const names = makeNames(options.prefix)
  if (names === undefined) return yield* new StoreFailure({ method: "setup", cause: new Error(badName) })
  const sql = statements(names)
  const pages = pagesOf(names, dialect)
  // a second connection to our own file spares what the client does for a statement
  const ours = options.file === undefined ? undefined : yield* openDatabase(options.file)
  const writer = options.file === undefined || ours === undefined ? undefined : yield* makeWriter({
    file: options.file,
    isLost: options.isLost,
    pragmas: pragmas(options.durability),
    last: sql.last,
    inserts: statementSizes.map((rows) => [rows, sql.insert(rows)])
  })
  const isFree = options.file === undefined ? undefined : watch(client, writer?.idle ?? Effect.void)
  const connection = yield* client.reserve.pipe(
    Effect.scoped,
    Effect.mapError((error) => toStoreError("setup", error, false))
  )
  const connections = Transaction.connections((other) => other === connection, client.reserve)
  const theirs = new ClientDatabase(connection, options.owned ? driverBusyTimeout : undefined)
  const any = ours?.db ?? theirs

  const retryBusy = <A>(effect: Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> =>
    // the schedule costs as much as a statement: it is made when it is needed
    Effect.catchIf(effect, isBusy, () =>
      Effect.retry(Effect.zipRight(Metric.increment(LedgerMetrics.retries), effect), {
        while: isBusy,
        schedule: busySchedule(options.busyTimeout)
      }))

  /** Runs synchronous work, in the caller's transaction or outside of all of them. */
  const exclusively = <A>(
    method: string,
    work: (db: Database, joined: boolean) => Generator<void, A>,
    pauses = false
  ): Effect.Effect<A, StoreError> =>
    Effect.withFiberRuntime((fiber) => {
      const joined = connections.joinedBy(fiber)
      const toError = (error: unknown) => toStoreError(method, error, joined !== undefined)
      if (joined !== undefined) {
        return retryBusy(connections.alone(
          joined,
          Effect.uninterruptible(Effect.mapError(Effect.suspend(() => drive(work(theirs, true))), toError))
        ))
      }
      const reserved = () =>
        retryBusy(Effect.mapError(
          connections.reserved(() =>
            ours === undefined
              ? Effect.uninterruptible(drive(work(theirs, false)))
              : ours.door.through(() => work(ours.patient, false))
          ),
          toError
        ))
      return breathing(() => {
        // a transaction of this program's own that has read could not write any more, nor could one write beside a pause
        if (ours === undefined || pauses || isFree?.() !== true) return reserved()
        return Effect.catchIf(ours.door.open(() => finish(work(ours.db, false)), toError), isBusy, reserved)
      })
    })

  /** In the caller's transaction, or in one of its own that takes the write lock first. */
  const write = <A>(method: string, work: (db: Database) => Generator<void, A>): Effect.Effect<A, StoreError> =>
    exclusively(method, (db, joined) => transact(db, joined, sql.lock, work))

  const read = <A>(method: string, work: (db: Database) => A): Effect.Effect<A, StoreError> =>
    retryBusy(Effect.withFiberRuntime((fiber) => {
      const toError = (error: unknown) => toStoreError(method, error, false)
      if (connections.joinedBy(fiber) !== undefined) return attempt(method, () => work(theirs))
      return breathing(() =>
        ours === undefined
          ? Effect.mapError(connections.reserved(() => attempt(method, () => work(theirs))), toError)
          : ours.door.open(() => work(ours.db), toError)
      )
    }))

  yield* setUp(names, options, read, write)
  if (ours !== undefined) yield* attempt("setup", () => configure(theirs, options.durability))

  // what is written to a file that was removed or emptied is gone when the program ends: it must not be acknowledged
  const stillThere = Effect.suspend(() => options.isLost() ? lost() : Effect.void)

  // a log that grows costs each commit a flush more: 12 MiB of it pay where several are
  // written together, or after many one by one
  let untilLong = ours === undefined || options.durability !== "full" ? 0 : eventsUntilLong
  if (untilLong > 0) yield* attempt("setup", () => ours?.db.run(checkpointAfter(shortLog)))
  const count = (events: number): void => {
    if (untilLong <= 0) return
    untilLong -= events
    if (untilLong <= 0) ours?.db.run(checkpointAfter(longLog))
  }
  const recent: Recent = { duplicates: false }
  const alone = (db: Database, groups: NonEmptyReadonlyArray<AppendGroup>): ReadonlyArray<GroupResult> | undefined => {
    const row = onlyRow(groups)
    const outcome = row && db.briefly(() => appendOne(db, sql, row, recent))
    if (outcome?.status === "appended") count(1)
    return outcome && [{ _tag: "Written", outcomes: [outcome] }]
  }
  const together = (db: Database, joined: boolean, groups: NonEmptyReadonlyArray<AppendGroup>) => {
    count(untilLong)
    return transact(db, joined, sql.lock, (db) => appendAll(db, sql, groups, recent))
  }

  const append = (groups: NonEmptyReadonlyArray<AppendGroup>) =>
    Effect.zipLeft(
      exclusively("append", function*(db, joined) {
        return (joined ? undefined : alone(db, groups)) ?? (yield* together(db, joined, groups))
      }, breathes(groups)),
      stillThere
    )
  let looked = 0
  /** Where nobody is in the way. */
  const atOnce = (
    groups: NonEmptyReadonlyArray<AppendGroup>
  ): Exit.Exit<ReadonlyArray<GroupResult>, StoreError> | undefined => {
    if (ours?.door.isOpen !== true || isFree?.() !== true || breathes(groups) || isBreathless()) return undefined
    try {
      const results = alone(ours.db, groups) ?? finish(together(ours.db, false, groups))
      const now = performance.now()
      // what was recorded before is a read: it is looked after once a millisecond
      if (!results.some(hasAppended) && now - looked < 1) return Exit.succeed(results)
      looked = now
      return options.isLost() ? Exit.fail(lost()) : Exit.succeed(results)
    } catch (cause) {
      const error = toStoreError("append", cause, false)
      return isBusy(error) ? undefined : Exit.fail(error)
    }
  }

  const isForWriter = (groups: ReadonlyArray<AppendGroup>): boolean =>
    ours?.door.isOpen === true && isFree?.() === true && !recent.duplicates && groups.every(isSmall)
  const direct = (
    groups: NonEmptyReadonlyArray<AppendGroup>,
    done: (exit: Exit.Exit<ReadonlyArray<GroupResult>, StoreError> | undefined) => void
  ): void => {
    const isWritten = groups.length >= callersOfWriter && isForWriter(groups) && writer?.write(groups, (last) => {
          if (last === undefined) return done(undefined)
          done(options.isLost() ? Exit.fail(lost()) : Exit.succeed(appendedAfter(groups, last)))
        }) === true
    if (!isWritten) done(writer?.isBusy() === true ? undefined : atOnce(groups))
  }

  const store: Context.Tag.Service<LedgerStore> = {
    append: Object.assign(
      append,
      {
        direct,
        ahead: (groups) => {
          if (isForWriter(groups)) writer?.ahead(groups)
        }
      } satisfies Pick<Append, "direct" | "ahead">
    ),
    page: (request) =>
      read("read", (db) => {
        const statements = pages(request)
        let step = statements.next()
        while (step.done !== true) step = statements.next(db.values(step.value.text, step.value.params))
        return step.value
      }),
    readsAhead: false,
    get: (id) => read("get", (db) => Option.fromNullable(db.first(sql.byId, [id]))),
    runs: read("runs", (db) => db.values(sql.runs).map((row) => String(row[0]))),
    head: read("head", (db) => headOf(db, sql)),
    reset: write("reset", function*(db) {
      for (const text of migrations.dropGuards(names)) db.run(text)
      for (const text of sql.clear) db.run(text)
      for (const text of migrations.guards(names)) db.run(text)
      db.run(sql.newLineage, [randomUUID(), "[]"])
    }),
    lineage: read("lineage", (db) => lineageOf(setUpRow(db.first(sql.lineage))[0])),
    incarnate: (given) =>
      write("incarnate", function*(db): Generator<void, Head> {
        const before = headOf(db, sql)
        const lineage = given ?? lineageFrom(before, lineageOf(db.first(sql.lineage)![0]))
        const incarnation = randomUUID()
        db.run(sql.newLineage, [incarnation, JSON.stringify(lineage)])
        return { ...before, incarnation }
      }),
    digests: (after, through) =>
      read("digests", (db) => {
        const only = through === after + 1
        return db.values(sql.digests(only), only ? [through] : [after, through])
          .map(([offset, digest]) => [Number(offset), digest as string | null] as const)
      }),
    inspect: Effect.flatMap(
      read("inspect", (db): { readonly found: ReadonlyArray<Problem>; readonly large: string | undefined } => {
        const texts = new Set(db.values(schemaStatement).map(([text]) => text))
        const missing = migrations.create(names).filter((text) => !texts.has(text))
          .map((text) =>
            problem(`the ${/^CREATE (\w+ \S+)/.exec(text)?.[1]?.toLowerCase()} is missing, or was changed`)
          )
        const misplaced = [misplacedStatement(names, hexOf), misspannedStatement(names)].flatMap((text) =>
          db.values(text).map(([what]) => problem(what))
        )
        const file = fileOf(db)
        const bytes = Number(db.values("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")[0]![0])
        const large = file !== null && bytes > inlineBytes ? file : undefined
        return { found: [...missing, ...misplaced, ...(large === undefined ? structure(db) : [])], large }
      }),
      ({ found, large }) =>
        large === undefined ? Effect.succeed(found) : Effect.flatMap(
          offThread(large, [[skipChecks, []], [integrityStatement, []]]),
          (answers) =>
            Effect.map(
              // it holds the program up, and is what was asked for
              answers === undefined ? read("inspect", structure) : Effect.succeed(damages(answers[1]!)),
              (damage) => [...found, ...damage]
            )
        )
    ),
    location: read("location", (db) => {
      const file = fileOf(db)
      const stat = file === null ? undefined : Fs.statSync(file, { throwIfNoEntry: false })
      return { key: stat === undefined ? null : `sqlite ${stat.dev} ${stat.ino} ${names.prefix}`, file }
    }),
    changes: Stream.asyncPush<void>(
      (emit) => {
        let seen = ""
        return Effect.sleep(changesMillis).pipe(
          Effect.map(() => {
            const count = changeCount(any)
            if (count !== seen) emit.single(undefined)
            seen = count
          }),
          Effect.forever,
          Effect.forkScoped
        )
      },
      { bufferSize: 1, strategy: "sliding" }
    ),
    inTransaction: Effect.withFiberRuntime((fiber) => Effect.succeed(connections.joinedBy(fiber) !== undefined)),
    transaction: (effect) =>
      Effect.flatMap(connections.joined, (joined) =>
        joined !== undefined ? effect : connections.transaction(effect, {
          begin: () => retryBusy(attempt("transaction", () => theirs.briefly(() => theirs.run("BEGIN IMMEDIATE")))),
          commit: () => Effect.zipRight(attempt("transaction", () => theirs.run("COMMIT")), stillThere),
          rollback: () => Effect.sync(() => void undone(theirs, false, undefined)),
          toError: (error) => toStoreError("transaction", error, false)
        }))
  }
  return Context.make(LedgerStore, store).pipe(
    Context.add(
      ConsumerStore,
      sqlConsumerStore.make({
        names,
        query: (method, text, params) =>
          exclusively(method, function*(db, joined) {
            return joined ? db.values(text, params) : db.briefly(() => db.values(text, params))
          }),
        placeholder: dialect.placeholder,
        now: undefined,
        skipLocked: ""
      })
    )
  )
})

/** Answers whether nobody has the client's connection, nor waits for it or until `idle`. The client is our own. */
const watch = (client: SqlClient, idle: Effect.Effect<void>): () => boolean => {
  let users = 0
  const enter = Effect.suspend(() => {
    users++
    return idle
  })
  const leave = () => Effect.sync(() => void users--)
  const { reserve, withTransaction } = client
  Object.assign(client, {
    reserve: Effect.zipRight(Effect.acquireRelease(enter, leave), reserve),
    withTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.acquireUseRelease(enter, () => withTransaction(effect), leave)
  })
  return () => users === 0
}

const attempt = <A>(method: string, body: () => A): Effect.Effect<A, StoreError> =>
  Effect.try({ try: body, catch: (error) => toStoreError(method, error, false) })

const lost = () =>
  new StoreFailure({
    method: "append",
    cause: new Error("the database file was removed, emptied or replaced while it was open"),
    advice: "put it back or accept the loss, open the ledger again, and append the same event again"
  })

const hexOf = (column: string): string => `lower(hex(${column}))`

const dialect: Dialect = {
  isPositional: true,
  hex: hexOf,
  placeholder: () => "?",
  oneOf: (column, placeholder) => `${column} IN (SELECT value FROM json_each(${placeholder}))`,
  list: (members) => JSON.stringify(members),
  limited: (rows, _, placeholder) => `${rows} LIMIT ${placeholder}`,
  isLarge: migrations.isLarge
}

const busySchedule = (timeout: Duration.DurationInput) =>
  Schedule.exponential("1 millis", 1.5).pipe(
    Schedule.union(Schedule.spaced("25 millis")),
    Schedule.jittered,
    Schedule.upTo(timeout)
  )

const isBusy = (error: StoreError): boolean =>
  error._tag === "StoreUnavailable" && reasonOf(error.cause) === "LockTimeout"

/** Another one after any commit of another connection, and after anything that this one writes. */
const changeCount = (db: Database): string => {
  try {
    return String(db.first("SELECT data_version, total_changes() FROM pragma_data_version"))
  } catch {
    // closed, or out of reach: whoever looks at the log is told why
    return ""
  }
}

/** How often to look for what other processes, and transactions of the caller, have committed. */
const changesMillis = 20

function* transact<A>(
  db: Database,
  joined: boolean,
  lock: string,
  work: (db: Database) => Generator<void, A>
): Generator<void, A> {
  db.briefly(() => {
    // BEGIN alone takes no lock, and a transaction that reads before it writes may find its snapshot outdated
    db.run(joined ? "SAVEPOINT effect_ledger" : "BEGIN IMMEDIATE")
    if (!joined) return
    try {
      db.run(lock)
    } catch (error) {
      throw undone(db, joined, error)
    }
  })
  try {
    const answer = yield* work(db)
    db.run(joined ? "RELEASE effect_ledger" : "COMMIT")
    return answer
  } catch (error) {
    throw undone(db, joined, error)
  }
}

/** Undoes what was done; answers what to fail with. */
const undone = (db: Database, joined: boolean, error: unknown): unknown => {
  try {
    if (joined) db.run("ROLLBACK TO effect_ledger")
    db.run(joined ? "RELEASE effect_ledger" : "ROLLBACK")
    return error
  } catch {
    // SQLite has rolled everything back by itself, as it may where the disk is full: nothing of the caller's is left
    return joined ? abandoned(db, error) : error
  }
}

const abandoned = (db: Database, error: unknown): TransactionAborted => {
  const cause = driverError(error)
  try {
    // for the client to roll back, and so that nothing is committed before it does
    db.run("BEGIN")
  } catch {
    // it tells of it
  }
  return new TransactionAborted({ reason: `the database has undone the whole transaction: ${cause.message}`, cause })
}

const headOf = (db: Database, sql: Statements): Head => {
  const [incarnation, offset, digest] = setUpRow(db.first(sql.head))
  return { incarnation: String(incarnation), offset: Number(offset ?? 0), digest: digest as string | null }
}

/** The path of the file that is open; null for one in memory. */
const fileOf = (db: Database): string | null => {
  const file = String(db.values("SELECT file FROM pragma_database_list WHERE name = 'main'")[0]?.[0] ?? "")
  return file === "" ? null : file
}

const schemaStatement = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
const integrityStatement = "PRAGMA integrity_check(1000)"
// a payload that is not JSON would end the check with an error; the rows are looked at one by one
const skipChecks = "PRAGMA ignore_check_constraints = ON"

/** A larger database is checked by another thread. */
const inlineBytes = 2 ** 22

const structure = (db: Database): ReadonlyArray<Problem> => {
  const before = Number(db.values("PRAGMA ignore_check_constraints")[0]?.[0])
  db.run(skipChecks)
  try {
    return damages(db.values(integrityStatement))
  } finally {
    db.run(`PRAGMA ignore_check_constraints = ${before}`)
  }
}

const damages = (rows: ReadonlyArray<StoredRow>): ReadonlyArray<Problem> =>
  rows.filter(([text]) => text !== "ok").map(([text]) => problem(text))

/** Whether there is nothing in a file but one sound ledger with the prefix. */
export const holdsOnlyLedger = (file: string, prefix: string): Effect.Effect<boolean, StoreError> =>
  onClient((db) => db.values(schemaStatement)).pipe(
    Effect.provide(SqliteClient.layer({ filename: file, readonly: true, disableWAL: true })),
    Effect.catchAllCause((cause) => Effect.fail(toStoreError("snapshot", Cause.squash(cause), false))),
    Effect.map((rows) => {
      const names = makeNames(prefix)
      const texts = new Set(rows.map(([text]) => text))
      const expected = names === undefined ? [] : migrations.create(names)
      return texts.size === expected.length && expected.every((text) => texts.has(text))
    })
  )

/** Copies a file that {@link holdsOnlyLedger}, as of one moment, without what readers keep in it. */
export const copyFile = (file: string, target: string, prefix: string): Effect.Effect<void, StoreError> => {
  const of = makeNames(prefix)!.of
  return Effect.zipRight(
    offThread(file, [["VACUUM INTO ?", [target]]]),
    offThread(target, [
      ["PRAGMA secure_delete = ON", []],
      ...["consumers", "members", "dead_letters", "projections"].map((table) =>
        [`DELETE FROM ${of(table)}`, []] as const
      )
    ])
  )
}

/** Makes a ledger that is being filled one that no release opens, and makes it whole again. */
export const toggleUnfinished = (prefix: string): Effect.Effect<void, StoreError, SqlClient> =>
  onClient((db) => db.run(`UPDATE ${makeNames(prefix)!.meta} SET version = -version`))

const onClient = <A>(body: (db: Database) => A): Effect.Effect<A, StoreError, SqlClient> =>
  Effect.flatMap(SqlClient, ({ reserve }) =>
    Effect.mapError(
      Effect.scoped(
        Effect.flatMap(reserve, (connection) =>
          attempt("snapshot", () => body(new ClientDatabase(connection, driverBusyTimeout))))
      ),
      (error) =>
        toStoreError("snapshot", error, false)
    ))

/** Leaves everything in one file, which can be read where nothing can be written; fails while somebody has it open. */
export const settleFile = (file: string): Effect.Effect<void, StoreError> =>
  Effect.provide(
    onClient((db) => void db.values("PRAGMA journal_mode = DELETE")),
    Layer.orDie(SqliteClient.layer({ filename: file, disableWAL: true }))
  )

const statements = (names: Names) => ({
  lock: `UPDATE ${names.meta} SET version = version WHERE false`,
  newLineage: `UPDATE ${names.meta} SET incarnation = ?, lineage = ?`,
  lineage: `SELECT lineage FROM ${names.meta}`,
  // one alone by itself: a range looks at its neighbours, which may be what cannot be read
  digests: (only: boolean) =>
    `SELECT "offset", CASE typeof(digest) WHEN 'blob' THEN ${hexOf("digest")} END FROM ${names.events} ` +
    (only ? `WHERE "offset" = ?` : `WHERE "offset" > ? AND "offset" <= ? ORDER BY "offset"`),
  clear: [names.events, names.spans].map((table) => `DELETE FROM ${table}`),
  head:
    `SELECT m.incarnation, e."offset", nullif(lower(hex(e.digest)), '') FROM ${names.meta} AS m LEFT JOIN ${names.events} AS e ` +
    `ON e."offset" = (SELECT max("offset") FROM ${names.events})`,
  last: `SELECT max("offset") FROM ${names.events}`,
  byId: `SELECT ${columns} FROM ${names.events} WHERE id = ?`,
  known: memoize((count) => `SELECT ${columns} FROM ${names.events} WHERE id IN (${list("?", count)})`),
  insertOne:
    `INSERT INTO ${names.events} (${columns}, digest) VALUES ((SELECT coalesce(max("offset"), 0) + 1 FROM ${names.events}), ${
      list("?", 12)
    }) RETURNING "offset"`,
  insert: memoize((count) =>
    `INSERT INTO ${names.events} (${columns}, digest) VALUES ${list(`(${list("?", 13)})`, count)}`
  ),
  // a skip scan: one index probe a run, however many events it has
  runs: `WITH RECURSIVE run(id) AS (
    SELECT min(run_id) FROM ${names.events}
    UNION ALL SELECT (SELECT min(run_id) FROM ${names.events} WHERE run_id > run.id) FROM run WHERE run.id IS NOT NULL
  ) SELECT id FROM run WHERE id IS NOT NULL
    ORDER BY (SELECT min("offset") FROM ${names.events} WHERE run_id = run.id)`,
  conflict: (filters: ReadonlyArray<StoreFilter>, after: number, repeated: string) => {
    const params = new Params(dialect)
    const branches = filters.map((filter) =>
      `SELECT min("offset") AS "offset" FROM ${names.events} WHERE ${predicate(filter, params)} AND "offset" > ${
        params.bind(after)
      } ` +
      `AND "offset" NOT IN (SELECT value FROM json_each(${params.bind(repeated)}))`
    )
    return { text: `SELECT min("offset") FROM (${branches.join(" UNION ALL ")})`, params: params.values }
  }
})

type Statements = ReturnType<typeof statements>

/** The texts for a few counts are asked for again and again. */
const memoize = (text: (count: number) => string): (count: number) => string => {
  const texts = new Map<number, string>()
  return (count) => {
    const known = texts.get(count) ?? text(count)
    texts.set(count, known)
    return known
  }
}

const list = (text: string, count: number): string => Array.from({ length: count }, () => text).join(", ")

function* appendAll(
  db: Database,
  sql: Statements,
  groups: NonEmptyReadonlyArray<AppendGroup>,
  recent: Recent
): Generator<void, ReadonlyArray<GroupResult>> {
  let last = Number(db.first(sql.last)![0] ?? 0)
  const outcomes: Array<Outcome | number> = []
  for (const { condition, rows } of callsOf(groups)) {
    const conflict = condition === undefined ? undefined : conflictOf(db, sql, condition, rows, last)
    if (conflict !== undefined) {
      for (let n = 0; n < rows.length; n++) outcomes.push(conflict)
      continue
    }
    for (let start = 0; start < rows.length;) {
      const chunk = rows.slice(start, start + statementRows(rows.length - start))
      const known = appendChunk(db, sql, chunk, last, recent.duplicates)
      for (const outcome of known) outcomes.push(outcome ?? { offset: ++last, status: "appended" })
      recent.duplicates = known.some((outcome) => outcome !== undefined)
      start += chunk.length
      if (start % breatheRows === 0) yield
    }
  }
  return resultsOf(groups, outcomes)
}

/** Writes the rows that are not recorded yet, and answers what became of those that are. */
const appendChunk = (
  db: Database,
  sql: Statements,
  rows: ReadonlyArray<Row>,
  last: number,
  lookFirst: boolean
): ReadonlyArray<Outcome | undefined> => {
  if (!lookFirst) {
    try {
      // nearly always nothing is known, and the insert finds that out by itself
      insert(db, sql, rows, last)
      return rows.map(() => undefined)
    } catch (error) {
      if (reasonOf(error) !== "UniqueViolation") throw error
    }
  }
  const known = knownOf(db, sql, rows)
  const fresh = rows.filter((_, index) => known[index] === undefined)
  for (let start = 0; start < fresh.length;) {
    const chunk = fresh.slice(start, start + statementRows(fresh.length - start))
    insert(db, sql, chunk, last + start)
    start += chunk.length
  }
  return known
}

/** How many rows a statement takes: few different numbers, so that they stay prepared. */
const statementSizes = [64, 16, 4, 1]

const statementRows = (left: number): number => statementSizes.find((rows) => rows <= left) ?? 1

/** A large batch lets the program breathe every so many rows. */
const breatheRows = 512

const breathes = (groups: ReadonlyArray<AppendGroup>): boolean => groups.some(({ rows }) => rows.length >= breatheRows)

/** The thread takes the events of so many callers at least, as it costs two turns. */
const callersOfWriter = 16

/** What is sent to the thread is copied. */
const isSmall = ({ condition, rows }: AppendGroup): boolean =>
  condition === undefined && rows.length <= 8 && rows.every(({ payload }) => payload.length <= 8192)

const appendedAfter = (groups: ReadonlyArray<AppendGroup>, last: number): ReadonlyArray<GroupResult> => {
  let offset = last
  return groups.map(({ rows }) => ({
    _tag: "Written",
    outcomes: rows.map(() => ({ offset: ++offset, status: "appended" }))
  }))
}

/** Who repeats one event repeats others: after a duplicate it is worth looking before the insert. */
interface Recent {
  duplicates: boolean
}

/** Nearly every append is one row, and one statement is a transaction of its own. `undefined`: it was there, and is gone. */
const appendOne = (db: Database, sql: Statements, row: Row, recent: Recent): Outcome | undefined => {
  const known = recent.duplicates ? knownAlone(db, sql, row) : undefined
  recent.duplicates = known !== undefined
  if (known !== undefined) return known
  try {
    return { offset: Number(db.values(sql.insertOne, bind([], row))[0]?.[0]), status: "appended" }
  } catch (error) {
    if (reasonOf(error) !== "UniqueViolation") throw error
    recent.duplicates = true
    return knownAlone(db, sql, row)
  }
}

const onlyRow = ([group, next]: NonEmptyReadonlyArray<AppendGroup>): Row | undefined =>
  next === undefined && group.condition === undefined && group.rows.length === 1 ? group.rows[0] : undefined

const insert = (db: Database, sql: Statements, rows: ReadonlyArray<Row>, last: number): void => {
  const params: Array<unknown> = []
  for (const [index, row] of rows.entries()) {
    params.push(last + 1 + index)
    bind(params, row)
  }
  db.run(sql.insert(rows.length), params)
}

/** A row's columns but its offset. */
const bind = (params: Array<unknown>, row: Row): ReadonlyArray<unknown> => {
  pushColumns(params, row).push(Buffer.from(row.digest, "hex"))
  return params
}

/** What became of those rows that are recorded. */
const knownOf = (db: Database, sql: Statements, rows: ReadonlyArray<Row>): ReadonlyArray<Outcome | undefined> => {
  const found = new Map<unknown, StoredRow>()
  for (let start = 0; start < rows.length;) {
    const ids = rows.slice(start, start + statementRows(rows.length - start)).map((row) => row.id)
    for (const row of db.values(sql.known(ids.length), ids)) found.set(row[1], row)
    start += ids.length
  }
  return rows.map((row) => outcomeOf(found.get(row.id), row))
}

/** The same for one row alone. */
const knownAlone = (db: Database, sql: Statements, row: Row): Outcome | undefined =>
  outcomeOf(db.first(sql.byId, [row.id]), row)

const outcomeOf = (stored: StoredRow | undefined, row: Row): Outcome | undefined =>
  stored && { offset: Number(stored[0]), status: isRecordOf(stored, row) ? "identical" : "divergent" }

const conflictOf = (
  db: Database,
  sql: Statements,
  condition: StoreCondition,
  rows: ReadonlyArray<Row>,
  last: number
): number | undefined => {
  const known = knownOf(db, sql, rows)
  if (!known.includes(undefined)) return undefined
  if (condition.after > last) return last
  const repeated = JSON.stringify(
    known.flatMap((outcome) => outcome?.status === "identical" ? [outcome.offset] : [])
  )
  const branches = condition.noneMatch.flatMap(expand)
  let conflict: number | undefined
  for (let start = 0; start < branches.length; start += maxBranches) {
    const { params, text } = sql.conflict(branches.slice(start, start + maxBranches), condition.after, repeated)
    const found = db.first(text, params)?.[0] as number | null
    if (found !== null) conflict = Math.min(found, conflict ?? found)
  }
  return conflict
}

const setUp = (
  names: Names,
  options: Options,
  read: <A>(method: string, work: (db: Database) => A) => Effect.Effect<A, StoreError>,
  write: <A>(method: string, work: (db: Database) => Generator<void, A>) => Effect.Effect<A, StoreError>
): Effect.Effect<void, SetupError | StoreError> =>
  Effect.gen(function*() {
    const found = yield* read("setup", (db) =>
      db.briefly(() => {
        // what holds no ledger is left as it is
        if (options.create === false && storedVersion(db, names) === undefined) return undefined
        if (options.owned) {
          db.values("PRAGMA journal_mode = WAL")
          configure(db, options.durability)
        } else if (options.durability === "full" && Number(db.values("PRAGMA synchronous")[0]![0]) < fullSynchronous) {
          db.run("PRAGMA synchronous = FULL")
        }
        return { library: String(db.values("SELECT sqlite_version()")[0]![0]), version: storedVersion(db, names) }
      }))
    if (found === undefined) return yield* noLedger(names)
    if (!isSafeLibrary(found.library)) {
      return yield* new IncompatibleStore({
        found: `SQLite ${found.library}`,
        supported: "SQLite 3.51.3 or later, 3.50.7, or 3.44.6: others can corrupt a database in WAL mode"
      })
    }
    const version = found.version ?? (yield* write("setup", function*(db) {
      const raced = storedVersion(db, names)
      if (raced !== undefined) return raced
      for (const text of migrations.create(names)) db.run(text)
      db.run(`INSERT INTO ${names.meta} (one, version, incarnation) VALUES (1, ?, ?)`, [
        migrations.version,
        randomUUID()
      ])
      return migrations.version
    }))
    if (version !== migrations.version) {
      return yield* otherVersion(version, migrations.version)
    }
  })

const configure = (db: Database, durability: Options["durability"]): void => {
  for (const text of pragmas(durability)) db.values(text)
}

const pragmas = (durability: Options["durability"]): ReadonlyArray<string> => [
  checkpointAfter(longLog),
  // what a long reader made it grow beyond that is given back when the reader is gone
  `PRAGMA journal_size_limit = ${2 ** 24}`,
  `PRAGMA synchronous = ${durability === "full" ? "FULL" : "NORMAL"}`,
  ...(process.platform === "darwin" && durability === "full" ? ["PRAGMA fullfsync = ON"] : [])
]

/** When the pages of the write-ahead log are carried into the database: one that is written again and again, once. */
const checkpointAfter = (pages: number): string => `PRAGMA wal_autocheckpoint = ${pages}`

/** How long the write-ahead log becomes: SQLite's own 4 MiB, or 12, with which batches are a tenth faster. */
const shortLog = 1000
const longLog = 3072

/** To grow from the one to the other takes what is gained by the longer one in so many events. */
const eventsUntilLong = 10_000

const fullSynchronous = 2

const storedVersion = (db: Database, names: Names): number | undefined =>
  db.values("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [`${names.prefix}meta`]).length === 0
    ? undefined
    : Number(db.values(`SELECT version FROM ${names.meta}`)[0]?.[0])

const isSafeLibrary = (version: string): boolean => {
  const [major = 0, minor = 0, patch = 0] = version.split(".").map(Number)
  const number = major * 1_000_000 + minor * 1000 + patch
  return number >= 3_051_003 || (minor === 50 && patch >= 7) || (minor === 44 && patch >= 6)
}

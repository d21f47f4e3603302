/** How SQLite is asked: over the client's connection, or over one of our own to the same file. */
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { StoredRow } from "../LedgerStore.js"
import { toStoreError } from "./sqlError.js"
import { type Driver, openDriver, type Statement } from "./sqliteDriver.js"

/**
 * A connection, synchronously: the driver works on this thread, so a transaction that runs in one go lets no other
 * fiber's statement in between.
 */
export interface Database {
  readonly run: (text: string, params?: ReadonlyArray<unknown>) => void
  readonly values: (text: string, params?: ReadonlyArray<unknown>) => ReadonlyArray<StoredRow>
  /** The first row of a statement that only reads: what a commit that follows it says is not heard. */
  readonly first: (text: string, params?: ReadonlyArray<unknown>) => StoredRow | undefined
  /** Runs what may meet another process's lock. SQLite waits for it on this thread: the rest of the wait is ours. */
  readonly briefly: <A>(work: () => A) => A
}

/** The client's. `busyTimeout` is the connection's setting, where it is known. */
export class ClientDatabase implements Database {
  constructor(private readonly connection: Connection, private readonly busyTimeout: number | undefined) {}
  run(text: string, params: ReadonlyArray<unknown> = []): void {
    now(this.connection, text, (text) => this.connection.executeRaw(text, params))
  }
  values(text: string, params: ReadonlyArray<unknown> = []): ReadonlyArray<StoredRow> {
    return now(this.connection, text, (text) => this.connection.executeValues(text, params))
  }
  first(text: string, params?: ReadonlyArray<unknown>): StoredRow | undefined {
    return this.values(text, params)[0]
  }
  briefly<A>(work: () => A): A {
    const before = this.busyTimeout ?? Number(this.values("PRAGMA busy_timeout")[0]?.[0])
    this.run(`PRAGMA busy_timeout = ${blockingMillis}`)
    try {
      return work()
    } finally {
      this.run(`PRAGMA busy_timeout = ${before}`)
    }
  }
}

/** One of our own. It waits for no lock unless it is `patient`, which costs two statements. */
class DriverDatabase implements Database {
  constructor(
    private readonly driver: Driver,
    private readonly statements: Map<string, Statement>,
    private readonly patient: boolean
  ) {}
  run(text: string, params: ReadonlyArray<unknown> = []): void {
    this.values(text, params)
  }
  values(text: string, params: ReadonlyArray<unknown> = []): ReadonlyArray<StoredRow> {
    const statement = this.prepared(text)
    if (statement.reader) return statement.all(params)
    statement.run(params)
    return []
  }
  first(text: string, params: ReadonlyArray<unknown> = []): StoredRow | undefined {
    return this.prepared(text).get(params)
  }
  private prepared(text: string): Statement {
    let statement = this.statements.get(text)
    if (statement === undefined) {
      statement = this.driver.prepare(text)
      if (statement.reader) statement.raw()
      if (this.statements.size >= preparedStatements) this.statements.clear()
      this.statements.set(text, statement)
    }
    return statement
  }
  briefly<A>(work: () => A): A {
    if (!this.patient) return work()
    this.run(`PRAGMA busy_timeout = ${blockingMillis}`)
    try {
      return work()
    } finally {
      this.run("PRAGMA busy_timeout = 0")
    }
  }
}

const preparedStatements = 200

/** `undefined`: the driver cannot be found, as in a program that is one file. */
export const openDatabase = (file: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.try({ try: () => openDriver(file), catch: (error) => toStoreError("open", error, false) }),
      (driver) => Effect.sync(() => driver?.close())
    ),
    (driver) => {
      if (driver === undefined) return undefined
      const statements = new Map<string, Statement>()
      return {
        db: new DriverDatabase(driver, statements, false),
        patient: new DriverDatabase(driver, statements, true),
        door: new Door()
      }
    }
  )

/** Closed while somebody is in the middle of something on a connection. */
class Door {
  private waiting: Array<() => void> | undefined

  get isOpen(): boolean {
    return this.waiting === undefined
  }

  /** What does not pause: at once where the door is open, in the calling fiber's own step. */
  open<A, E>(work: () => A, toError: (error: unknown) => E): Effect.Effect<A, E> {
    if (this.waiting !== undefined) return Effect.flatMap(this.wait, () => this.open(work, toError))
    try {
      return Effect.succeed(work())
    } catch (error) {
      return Effect.fail(toError(error))
    }
  }

  /** What may pause, and closes the door meanwhile. */
  through<A>(work: () => Generator<void, A>): Effect.Effect<A, unknown> {
    return Effect.uninterruptibleMask((restore) => {
      if (this.waiting !== undefined) return Effect.zipRight(restore(this.wait), this.through(work))
      const run = work()
      try {
        const step = run.next()
        if (step.done === true) return Effect.succeed(step.value)
      } catch (error) {
        return Effect.fail(error)
      }
      const waiting: Array<() => void> = []
      this.waiting = waiting
      return Effect.ensuring(
        Effect.zipRight(turn, drive(run)),
        Effect.sync(() => {
          this.waiting = undefined
          for (const proceed of waiting) proceed()
        })
      )
    })
  }

  private readonly wait = Effect.async<void>((resume) => {
    if (this.waiting === undefined) resume(Effect.void)
    else this.waiting.push(() => resume(Effect.void))
  })
}

const now = <A>(connection: Connection, text: string, execute: (text: string) => Effect.Effect<A, SqlError>): A => {
  const failures = unprepared.get(connection)?.get(text)
  const exit = Effect.runSyncExit(execute(failures === undefined ? text : `${text} -- ${failures}`))
  if (Exit.isSuccess(exit)) return exit.value
  const error = Cause.squash(exit.cause)
  if (error instanceof SqlError && error.message.startsWith("Failed to prepare")) {
    const texts = unprepared.get(connection) ?? new Map<string, number>()
    unprepared.set(connection, texts.set(text, (failures ?? 0) + 1))
  }
  throw error
}

/**
 * The client keeps a failure to prepare a statement, a lock in the way for example, as it keeps the statement, and
 * answers it for ten minutes: the next attempt is under another text.
 */
const unprepared = new WeakMap<Connection, Map<string, number>>()

/** Runs the work to its end without a pause. */
export const finish = <A>(work: Generator<void, A>): A => {
  for (;;) {
    const step = work.next()
    if (step.done === true) return step.value
  }
}

/** Runs the work to its end and lets the program breathe wherever it yields. */
export const drive = <A>(work: Generator<void, A>): Effect.Effect<A, unknown> =>
  Effect.suspend(() => {
    try {
      const step = work.next()
      return step.done === true ? Effect.succeed(step.value) : Effect.zipRight(turn, drive(work))
    } catch (error) {
      return Effect.fail(error)
    }
  })

/** A turn of the event loop, which all wait for who want one meanwhile. */
const turn = Effect.async<void>((resume) => {
  if (turning === undefined) {
    const waiting = turning = [] as Array<() => void>
    setImmediate(() => {
      turning = undefined
      turned = performance.now()
      for (const proceed of waiting) proceed()
    })
  }
  turning.push(() => resume(Effect.void))
})

let turning: Array<() => void> | undefined
let turned = performance.now()

/**
 * Begins the work in the calling fiber's own step. The driver answers at once, and a program that always has something to
 * ask it would hold up its own sockets: now and then a statement waits for a turn of the event loop first.
 */
export const breathing = <A, E>(work: () => Effect.Effect<A, E>): Effect.Effect<A, E> =>
  isBreathless() ? Effect.flatMap(turn, work) : work()

/** Whether it is time for a turn of the event loop. */
export const isBreathless = (): boolean => turning !== undefined || performance.now() - turned >= breatheMillis

const breatheMillis = 20

/** How long SQLite itself may wait for a lock, on the event loop's thread. */
const blockingMillis = 5

/** What the driver sets when it opens a file. */
export const driverBusyTimeout = 5000

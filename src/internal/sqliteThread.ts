/** Statements on a SQLite file that take long, on another thread: the driver would hold the program up meanwhile. */
import * as Effect from "effect/Effect"
import { Worker } from "node:worker_threads"
import type { StoreError } from "../LedgerError.js"
import type { StoredRow } from "../LedgerStore.js"
import { toStoreError } from "./sqlError.js"
import { findDriver } from "./sqliteDriver.js"

/**
 * Runs the statements one after the other on a connection of their own, and answers the rows of each. `undefined`: the
 * driver cannot be found, as in a program that is one file. An interruption waits for the statement that is running.
 */
export const offThread = (
  file: string,
  statements: ReadonlyArray<readonly [text: string, params: ReadonlyArray<unknown>]>
): Effect.Effect<ReadonlyArray<ReadonlyArray<StoredRow>> | undefined, StoreError> =>
  Effect.suspend(() => {
    const driver = findDriver()
    return driver === undefined ? Effect.succeed(undefined) : Effect.async((resume) => {
      const worker = new Worker(code, { eval: true, workerData: { driver, file, statements } })
      const fail = (error: unknown) => resume(Effect.fail(toStoreError("snapshot", error, false)))
      worker.once("message", ({ code, message, rows }: Answer) =>
        rows === undefined ? fail(Object.assign(new Error(message), { code })) : resume(Effect.succeed(rows)))
      worker.once("error", fail)
      // comes last, and says something only where nothing else did
      worker.once("exit", () =>
        fail(new Error("the thread ended without an answer")))
      return Effect.promise(() =>
        worker.terminate()
      )
    })
  })

interface Answer {
  readonly rows?: ReadonlyArray<ReadonlyArray<StoredRow>>
  readonly code?: string
  readonly message?: string
}

// errors of the driver lose their code on the way to another thread
const code = `
const { parentPort, workerData: { driver, file, statements } } = require("node:worker_threads")
try {
  const db = new (require(driver))(file, { fileMustExist: true, timeout: 10000 })
  try {
    const rows = statements.map(([text, params]) => {
      const statement = db.prepare(text)
      if (statement.reader) return statement.raw().all(...params)
      statement.run(...params)
      return []
    })
    db.close()
    parentPort.postMessage({ rows })
  } finally {
    db.close()
  }
} catch ({ code, message }) {
  parentPort.postMessage({ code, message })
}`

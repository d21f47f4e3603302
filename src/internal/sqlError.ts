/** What the drivers' errors mean. The names are those that later versions of Effect's SQL packages use. */
import type { StoreError } from "../LedgerError.js"
import { StoreFailure, StoreUnavailable, TransactionAborted } from "../LedgerError.js"

export type Reason =
  /** Cannot reach the database, or lost the connection. */
  | "ConnectionError"
  /** Somebody else holds the lock. */
  | "LockTimeout"
  /** The disk, a quota or a connection limit is exhausted. */
  | "ResourceExhausted"
  /** The transaction cannot go on. */
  | "SerializationError"
  | "UniqueViolation"
  | "Unknown"

/** The error that the driver raised, beneath whatever Effect's client wrapped it in. */
export const driverError = (error: unknown): { readonly code?: unknown; readonly message: string } => {
  let current = error
  while (
    typeof current === "object" && current !== null && "_tag" in current && current._tag === "SqlError" &&
    "cause" in current && current.cause !== undefined
  ) {
    current = current.cause
  }
  return current instanceof Error ? current : { message: String(current) }
}

export const reasonOf = (error: unknown): Reason => {
  const { code, message } = driverError(error)
  if (typeof code === "string") {
    const known = exact[code] ?? classes.find(([start]) => code.startsWith(start))?.[1]
    if (known !== undefined) return known
  }
  return connectionMessage.test(message) ? "ConnectionError" : "Unknown"
}

/** The error of the port for an error of the driver. `joined`: it happened inside the caller's transaction. */
export const toStoreError = (method: string, error: unknown, joined: boolean): StoreError => {
  if (isStoreError(error)) return error
  const cause = driverError(error)
  switch (reasonOf(error)) {
    case "ConnectionError":
      return new StoreUnavailable({ reason: `${method}: the database cannot be reached: ${cause.message}`, cause })
    case "LockTimeout":
      return new StoreUnavailable({
        reason: `${method}: another writer holds the ledger's lock: ${cause.message}`,
        cause
      })
    case "ResourceExhausted":
      return new StoreUnavailable({ reason: `${method}: the database has no room: ${cause.message}`, cause })
    case "SerializationError":
      return joined
        ? new TransactionAborted({ reason: `${method}: the transaction cannot go on: ${cause.message}`, cause })
        : new StoreUnavailable({
          reason: `${method}: a concurrent transaction was in the way: ${cause.message}`,
          cause
        })
  }
  return new StoreFailure({ method, cause })
}

const isStoreError = (error: unknown): error is StoreError =>
  error instanceof StoreUnavailable || error instanceof TransactionAborted || error instanceof StoreFailure

const exact: Readonly<Record<string, Reason>> = {
  "40001": "SerializationError",
  "40P01": "SerializationError",
  "25P02": "SerializationError",
  "55P03": "LockTimeout",
  "57014": "LockTimeout",
  // known ids are sorted out under the lock, so only a snapshot older than the lock can run into one
  "23505": "SerializationError",
  "57P01": "ConnectionError",
  "57P02": "ConnectionError",
  "57P03": "ConnectionError",
  "57P05": "ConnectionError",
  "25P03": "ConnectionError",
  ECONNREFUSED: "ConnectionError",
  ECONNRESET: "ConnectionError",
  EPIPE: "ConnectionError",
  ETIMEDOUT: "ConnectionError",
  EHOSTUNREACH: "ConnectionError",
  ENETUNREACH: "ConnectionError",
  ENOTFOUND: "ConnectionError",
  EAI_AGAIN: "ConnectionError",
  SQLITE_BUSY: "LockTimeout",
  SQLITE_BUSY_RECOVERY: "LockTimeout",
  SQLITE_BUSY_SNAPSHOT: "SerializationError",
  SQLITE_LOCKED: "LockTimeout",
  SQLITE_CANTOPEN: "ConnectionError",
  SQLITE_CONSTRAINT_PRIMARYKEY: "UniqueViolation",
  SQLITE_CONSTRAINT_UNIQUE: "UniqueViolation",
  SQLITE_CONSTRAINT_TRIGGER: "UniqueViolation",
  SQLITE_FULL: "ResourceExhausted"
}

const classes: ReadonlyArray<readonly [string, Reason]> = [
  ["08", "ConnectionError"],
  ["53", "ResourceExhausted"],
  ["SQLITE_IOERR", "ConnectionError"]
]

const connectionMessage =
  /Connection terminated|connection timeout|timeout expired|timeout exceeded|not queryable|Connection error|after calling end|database connection is not open|server closed the connection/i

/** What the drivers' errors mean. The names are those that later versions of Effect's SQL packages use. */
import type { StoreError } from "../LedgerError.js"
import { StoreFailure, StoreUnavailable, TransactionAborted } from "../LedgerError.js"

export type Reason =
  /** Cannot reach the database, or lost the connection. */
  | "ConnectionError"
  /** Somebody else holds the lock. */
  | "LockTimeout"
  /** The server ended the statement: it took too long, or an administrator said so. */
  | "StatementTimeout"
  /** A standby, a session that may only read, or a file that may not be written. */
  | "ReadOnly"
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
  if (isStoreError(cause)) return cause
  const advice = adviceOn(cause)
  const because = (what: string): string =>
    `${method}: ${what}: ${cause.message}${advice === undefined ? "" : `; ${advice}`}`
  const unavailable = (what: string) => new StoreUnavailable({ reason: because(what), cause })
  const aborted = (what: string) => new TransactionAborted({ reason: because(what), cause })
  switch (reasonOf(error)) {
    case "ConnectionError":
      // a SQLite transaction that can still be rolled back is there
      return joined && !String(cause.code).startsWith("SQLITE_")
        ? aborted("the connection was lost, and the transaction with it")
        : unavailable("the database cannot be reached")
    case "LockTimeout":
      return unavailable("another writer holds the ledger's lock")
    case "StatementTimeout":
      return unavailable("the server ended the statement")
    case "ReadOnly":
      return unavailable("the database can only be read")
    case "ResourceExhausted":
      return unavailable("the database has no room")
    case "SerializationError":
      return joined
        ? aborted("the transaction cannot go on")
        : unavailable("a concurrent transaction was in the way")
  }
  return new StoreFailure({ method, cause, advice })
}

const isStoreError = (error: unknown): error is StoreError =>
  error instanceof StoreUnavailable || error instanceof TransactionAborted || error instanceof StoreFailure

const exact: Readonly<Record<string, Reason>> = {
  "40001": "SerializationError",
  "40P01": "SerializationError",
  "25P02": "SerializationError",
  "55P03": "LockTimeout",
  "57014": "StatementTimeout",
  "25006": "ReadOnly",
  EACCES: "ReadOnly",
  EPERM: "ReadOnly",
  EROFS: "ReadOnly",
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
  ["SQLITE_IOERR", "ConnectionError"],
  ["SQLITE_READONLY", "ReadOnly"]
]

const connectionMessage =
  /Connection terminated|connection timeout|timeout expired|timeout exceeded|not queryable|Connection error|after calling end|database connection is not open|server closed the connection/i

/** The server or the pool was given its time already: asking again would take as long once more. */
export const isPatienceSpent = (error: unknown): boolean => {
  const cause = driverError(error)
  return isStoreError(cause) || patienceMessage.test(cause.message)
}

const patienceMessage = /timeout exceeded when trying to connect|connection timeout/i

/** What somebody can do about it. */
const adviceOn = ({ code, message }: { readonly code?: unknown; readonly message: string }): string | undefined => {
  const key = typeof code === "string" ? code : ""
  return advices.find(([pattern]) => pattern.test(key) || pattern.test(message))?.[1]
}

const advices: ReadonlyArray<readonly [codeOrMessage: RegExp, advice: string]> = [
  [/^ECONNREFUSED$/, "start the server, or correct host and port"],
  [/^(ENOTFOUND|EAI_AGAIN)$/, "correct the host's name"],
  [
    /^timeout exceeded when trying to connect$/,
    "the server does not answer, or the pool's connections are all in use: " +
    "end transactions sooner, or raise maxConnections"
  ],
  [/connection timeout/i, "check host, port and firewall: something accepts and does not answer"],
  [/^57P03$/, "wait for the server: it is starting, recovering, or a standby that takes no connections"],
  [/^53300$/, "give the server's connections back: use smaller pools, or raise its max_connections"],
  [/^(53100|SQLITE_FULL)$/, "make room on the disk"],
  [/^25006$/, "connect to the primary, as a role that may write"],
  [/^55P03$/, "end transactions that append sooner, or raise lockTimeout"],
  [/^SQLITE_(BUSY|LOCKED)$/, "end transactions that write sooner, or raise busyTimeout"],
  [/^57014$/, "raise its statement_timeout, if that was why"],
  [/^(28000|28P01)$/, "correct user and password"],
  [/^3D000$/, "create the database, or correct its name"],
  [/^42501$/, "let the ledger's owner give the role its rights: PgLedger.applyRoles"],
  [/^(42P01|42883|3F000)$|^no such table/, "a part of the ledger is missing: restore it from a backup"],
  [
    /^42P07$|^(table|index|view|trigger) \S+ already exists$/,
    "parts of a ledger are there without its set-up record: " +
    "restore them from a backup, or use another prefix or schema"
  ],
  [/^SQLITE_CORRUPT/, "the file is damaged: restore it from a backup"],
  [/^SQLITE_NOTADB$/, "correct the path, or restore the file from a backup"],
  [/^SQLITE_READONLY/, "make the file and its folder writable, then open the ledger again"],
  [/^SQLITE_CANTOPEN/, "correct the path, or make its folder writable"],
  [/^(EACCES|EPERM|EROFS)$/, "make the file and its folder writable"],
  [/^SQLITE_IOERR/, "look at the disk"],
  [/does not support SSL/, "turn TLS on in the server, or leave sslmode out where the network is trusted"],
  [
    /CERT|_LEAF_SIGNATURE$/,
    "name the authority of the server's certificate with sslrootcert, and the host as the " +
    "certificate does"
  ]
]

/** The database that a URL names, and its driver, which is imported when it is selected and not before. */
import * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import { fileURLToPath } from "node:url"
import { DriverMissing, StoreFailure } from "../LedgerError.js"

/** Where a ledger lives. */
export type Backend =
  | { readonly _tag: "Memory" }
  | { readonly _tag: "Sqlite"; readonly filename: string }
  | { readonly _tag: "Postgres"; readonly url: Redacted.Redacted }

/** Any form that `DATABASE_URL` may have. */
export const parseUrl = (redacted: Redacted.Redacted): Either.Either<Backend, ConfigError.ConfigError> => {
  const url = Redacted.value(redacted).trim()
  if (url === "" || url === "memory:") return Either.right(memory)
  if (url === ":memory:") return Either.right(sqlite(":memory:"))
  // one letter is a drive of Windows
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(url)?.[1]?.toLowerCase()
  switch (scheme?.replace(/\+.*$/, "")) {
    case undefined:
      // a file of that name would put a password into a listing of its folder
      return /\/\/[^/]*@/.test(url) ? invalid("a URL needs a scheme and a colon") : Either.right(sqlite(url))
    case "postgres":
    case "postgresql":
      return Either.right({ _tag: "Postgres", url: Redacted.make(`postgresql:${url.slice(url.indexOf(":") + 1)}`) })
    case "sqlite":
      return parseSqlite(url.slice(url.indexOf(":") + 1))
    case "file":
      return parseFile(url)
    default:
      return invalid(`the scheme "${scheme}" is not supported: use postgresql, sqlite, file, memory, or a path`)
  }
}

/** Imports a module that needs a driver. */
export const load = <A>(
  module: () => Promise<A>,
  driver: string
): Effect.Effect<A, DriverMissing | StoreFailure> =>
  Effect.tryPromise({
    try: module,
    catch: (cause) =>
      cause instanceof Error && "code" in cause && cause.code === "ERR_MODULE_NOT_FOUND"
        // which brings what it needs itself
        ? new DriverMissing({ package: driver })
        : new StoreFailure({ method: "import", cause })
  })

const memory: Backend = { _tag: "Memory" }
const sqlite = (filename: string): Backend => ({ _tag: "Sqlite", filename })

// as SQLAlchemy writes them: three slashes and a relative path, four and an absolute one
const parseSqlite = (rest: string): Either.Either<Backend, ConfigError.ConfigError> => {
  if (rest.includes("?")) return invalid("a sqlite URL takes no parameters")
  const path = decode(/^\/\/(?:\/(.*))?$/.exec(rest)?.[1] ?? (rest === "//" ? "" : rest))
  if (path === undefined || path.startsWith("//")) {
    return invalid("a sqlite URL has three slashes before a relative path and four before an absolute one")
  }
  return Either.right(sqlite(path === "" || path === ":memory:" ? ":memory:" : path))
}

const parseFile = (url: string): Either.Either<Backend, ConfigError.ConfigError> => {
  try {
    const path = url.startsWith("file:/") ? fileURLToPath(url) : decode(url.slice("file:".length))
    if (path !== undefined && path !== "") return Either.right(sqlite(path))
  } catch {
    // said below
  }
  return invalid("a file URL is file:relative/path or file:///absolute/path")
}

const decode = (path: string): string | undefined => {
  try {
    return decodeURIComponent(path)
  } catch {
    return undefined
  }
}

const invalid = (message: string) => Either.left(ConfigError.InvalidData(["DATABASE_URL"], message))

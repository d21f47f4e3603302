/** What the ancestor's databases have in common: one table, and rows that are read in pages. */
import type * as Effect from "effect/Effect"
import { IncompatibleStore, type StoreError } from "../LedgerError.js"

/** A row as the driver gives it: the columns in the order of {@link columns}, times as ISO text. */
export type AncestorRow = ReadonlyArray<unknown>

export interface Source {
  /** The last offset; 0 when there is no row. */
  readonly head: Effect.Effect<number, StoreError>
  /** The offsets after one, and how many bytes the payloads have there: up to {@link pageRows} of them. */
  readonly sizes: (after: number) => Effect.Effect<ReadonlyArray<readonly [offset: number, bytes: number]>, StoreError>
  /** The rows after one offset, up to another. */
  readonly rows: (after: number, through: number) => Effect.Effect<ReadonlyArray<AncestorRow>, StoreError>
}

export const table = "events"

const required = ["offset", "id", "run_id", "turn", "kind", "actor", "payload", "created_at"] as const

/** Those that came later: older databases have none of them. */
const later = ["schema_version", "session_id", "model_profile", "model_id"] as const

export const columns = [...required, ...later] as const

export type Column = (typeof columns)[number]

/** For each column whether the table has it, or why it is not the ancestor's. */
export const known = (found: ReadonlyArray<string>): ReadonlySet<string> | IncompatibleStore => {
  const missing = required.filter((column) => !found.includes(column))
  const unknown = found.filter((column) => !(columns as ReadonlyArray<string>).includes(column))
  if (found.length > 0 && missing.length === 0 && unknown.length === 0) return new Set(found)
  return new IncompatibleStore({
    found: found.length === 0
      ? `no table "${table}"`
      : `a table "${table}" ${
        missing.length > 0 ? `without ${missing.join(", ")}` : `with the unknown ${unknown.join(", ")}`
      }`,
    supported: "a database that SqlAlchemyLedger or SQLiteLedger wrote"
  })
}

/** A column, or what stands for one that is not there. */
export const select = (present: ReadonlySet<string>, write: (column: Column) => string): string =>
  columns.map((column) => present.has(column) ? write(column) : column === "schema_version" ? "1" : "NULL").join(", ")

export const pageRows = 1000

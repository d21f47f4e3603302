/** The driver that the client of SQLite is built on: two builds of SQLite in one process undo each other's locks. */
import * as Module from "node:module"

export interface Driver {
  readonly prepare: (text: string) => Statement
  readonly close: () => void
}

export interface Statement {
  /** Whether it answers rows. */
  readonly reader: boolean
  /** From now on rows are arrays. */
  readonly raw: () => Statement
  readonly all: (params: ReadonlyArray<unknown>) => ReadonlyArray<ReadonlyArray<unknown>>
  readonly get: (params: ReadonlyArray<unknown>) => ReadonlyArray<unknown> | undefined
  readonly run: (params: ReadonlyArray<unknown>) => unknown
}

/** A connection that waits for no lock. `undefined`: the driver cannot be found, as in a program that is one file. */
export const openDriver = (file: string): Driver | undefined => {
  const path = findDriver()
  if (path === undefined) return undefined
  const Sqlite: new(file: string, options: { readonly timeout: number }) => Driver = require(path)
  return new Sqlite(file, { timeout: 0 })
}

const require = Module.createRequire(import.meta.url)

/** The path of the driver. */
export const findDriver = (): string | undefined => {
  for (const from of ["@effect/sql-sqlite-node/SqliteClient", undefined]) {
    try {
      return (from === undefined ? require : Module.createRequire(require.resolve(from))).resolve("better-sqlite3")
    } catch {
      // perhaps from the other
    }
  }
  return undefined
}

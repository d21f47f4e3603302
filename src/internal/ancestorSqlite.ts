/** The ancestor's database in a SQLite file. It is opened to read only, and no page holds a lock on it for longer than its read. */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import { IncompatibleStore, type StoreError } from "../LedgerError.js"
import { known, pageRows, select, type Source, table } from "./ancestor.js"
import { toStoreError } from "./sqlError.js"
import { assertShutsNobodyOut } from "./sqliteGuests.js"

export const open = (filename: string): Effect.Effect<Source, StoreError | IncompatibleStore, Scope.Scope> =>
  Effect.gen(function*() {
    // a driver that cannot open says little of why
    yield* attempt("open", () => Fs.accessSync(filename, Fs.constants.R_OK))
    yield* attempt("open", () => assertShutsNobodyOut(filename))
    const client = yield* SqliteClient.make({ filename, readonly: true, disableWAL: true }).pipe(
      Effect.provide(Reactivity.layer),
      Effect.catchAllDefect((defect) => Effect.fail(toStoreError("open", defect, false)))
    )
    const query = (text: string, ...params: ReadonlyArray<number>) =>
      Effect.mapError(
        Effect.scoped(Effect.flatMap(client.reserve, (connection) => connection.executeValues(text, params))),
        (error) => toStoreError("ancestor", error, false)
      )
    const present = known(
      (yield* query(`SELECT name FROM pragma_table_info('${table}')`)).map(([name]) => String(name))
    )
    if (present instanceof IncompatibleStore) return yield* present
    const selected = select(present, (column) => `"${column}"`)
    return {
      head: Effect.map(
        query(`SELECT coalesce(max("offset"), 0) FROM ${table}`),
        ([row]) => Number(row?.[0])
      ),
      sizes: (after) =>
        Effect.map(
          query(
            `SELECT "offset", octet_length(payload) FROM ${table} WHERE "offset" > ? ORDER BY "offset" LIMIT ${pageRows}`,
            after
          ),
          (rows) => rows.map(([offset, bytes]) => [Number(offset), Number(bytes)] as const)
        ),
      rows: (after, through) =>
        query(`SELECT ${selected} FROM ${table} WHERE "offset" > ? AND "offset" <= ? ORDER BY "offset"`, after, through)
    }
  })

const attempt = (method: string, body: () => void): Effect.Effect<void, StoreError> =>
  Effect.try({ try: body, catch: (error) => toStoreError(method, error, false) })

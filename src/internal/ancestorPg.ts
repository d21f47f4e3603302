/** The ancestor's database in Postgres: one connection, one read-only transaction, one snapshot. */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { Client } from "pg"
import * as ConnectionString from "pg-connection-string"
import { IncompatibleStore, type StoreError, StoreFailure } from "../LedgerError.js"
import { type Column, known, pageRows, select, type Source, table } from "./ancestor.js"
import { destroy } from "./pgListen.js"
import { toStoreError } from "./sqlError.js"

export const open = (url: Redacted.Redacted): Effect.Effect<Source, StoreError | IncompatibleStore, Scope.Scope> =>
  Effect.gen(function*() {
    const client = yield* connection(url)
    const query = (
      text: string,
      ...values: Array<number>
    ): Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, StoreError> =>
      Effect.map(
        Effect.tryPromise({
          try: () => client.query<Array<unknown>>({ text, values, rowMode: "array" }),
          catch: (error) => toStoreError("ancestor", error, false)
        }),
        ({ rows }) => rows
      )
    yield* query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    // so that every time is written as ISO 8601 in UTC, whatever its column is
    yield* query("SET LOCAL DateStyle = 'ISO, YMD'")
    yield* query("SET LOCAL TimeZone = 'UTC'")
    const present = known(
      (yield* query(
        `SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass('${table}') AND attnum > 0 AND NOT attisdropped`
      )).map(([name]) => String(name))
    )
    if (present instanceof IncompatibleStore) return yield* present
    const selected = select(present, write)
    return {
      head: Effect.map(query(`SELECT coalesce(max("offset"), 0)::float8 FROM ${table}`), ([row]) => Number(row?.[0])),
      sizes: (after) =>
        Effect.map(
          query(
            `SELECT "offset"::float8, octet_length(payload::text) FROM ${table} WHERE "offset" > $1::int8 ORDER BY "offset" LIMIT ${pageRows}`,
            after
          ),
          (rows) => rows.map(([offset, bytes]) => [Number(offset), Number(bytes)] as const)
        ),
      rows: (after, through) =>
        query(
          `SELECT ${selected} FROM ${table} WHERE "offset" > $1::int8 AND "offset" <= $2::int8 ORDER BY "offset"`,
          after,
          through
        )
    }
  })

const write = (column: Column): string =>
  column === "offset" || column === "turn" || column === "schema_version" ? `"${column}"::float8` : `${column}::text`

const connection = (url: Redacted.Redacted): Effect.Effect<Client, StoreError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.flatMap(
      Effect.try({
        try: () => {
          const client = new Client({
            ...ConnectionString.parseIntoClientConfig(Redacted.value(url)),
            connectionTimeoutMillis: 5000,
            // a silent server would be waited for without end
            query_timeout: 60_000,
            keepAlive: true,
            application_name: "effect-ledger ancestor"
          })
          // the query that is running, or the next, tells of it
          client.on("error", () => {})
          return client
        },
        // what the parser throws may quote the URL
        catch: () => new StoreFailure({ method: "connect", cause: new Error("the connection URL cannot be read") })
      }),
      (client) =>
        Effect.as(
          Effect.tryPromise({
            try: () => client.connect(),
            catch: (error) => toStoreError("connect", error, false)
          }),
          client
        )
    ),
    (client) =>
      Effect.promise(() => client.end()).pipe(
        Effect.interruptible,
        Effect.timeoutOption("1 second"),
        Effect.ensuring(Effect.sync(() => destroy(client)))
      )
  )

import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Client } from "../contract/index.js"

/** The contract's view of a database: `lift` takes the events table's guards and constraints away. */
export const contractClient = (options: {
  readonly events: string
  readonly notes: string
  readonly order: string
  readonly lift: ReadonlyArray<string>
}): Layer.Layer<Client, unknown, SqlClient.SqlClient> =>
  Layer.effect(
    Client,
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const run = (text: string, params: ReadonlyArray<unknown> = []) => Effect.asVoid(sql.unsafe(text, params))
      yield* run(`CREATE TABLE ${options.notes} (${options.order}, body text NOT NULL)`)
      const lift = Effect.forEach(options.lift, (text) => run(text), { discard: true })
      return {
        transaction: sql.withTransaction,
        note: (text) => Effect.asVoid(sql`INSERT INTO ${sql.literal(options.notes)} (body) VALUES (${text})`),
        notes: Effect.map(
          sql.unsafe<{ readonly body: string }>(`SELECT body FROM ${options.notes} ORDER BY place`),
          (rows) => rows.map((row) => row.body)
        ),
        damage: (offset, column, value) =>
          Effect.zipRight(
            lift,
            Effect.asVoid(sql`UPDATE ${sql.literal(options.events)} SET ${sql.literal(column)} = ${value}
              WHERE "offset" = ${offset}`)
          ),
        remove: (offset) =>
          Effect.zipRight(
            lift,
            Effect.asVoid(sql`DELETE FROM ${sql.literal(options.events)} WHERE "offset" = ${offset}`)
          )
      }
    })
  )

/** Notifications of Postgres, on a connection of their own that is replaced when it dies or falls silent. */
import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { Client, type QueryResult } from "pg"
import { aliveStatement, listenStatement, standbyStatement } from "./pgStore.js"

/** How often to look where there is no connection. */
const withoutConnection = "250 millis"

/**
 * A hint for each notification on the channel, after each new connection, and regularly while there is none. The
 * heartbeat is how often the connection must answer, and how long it may take to.
 */
export const listen = (
  config: PgClientConfig,
  channel: string,
  heartbeat: Duration.DurationInput = "5 seconds"
): Stream.Stream<void> =>
  Stream.asyncPush<void>(
    (emit) => {
      let connected = false
      let worked = false
      let told = false
      const hint = (): void => void emit.single(undefined)
      const tell = (reason: string): Effect.Effect<void> => {
        if (told) return Effect.void
        told = true
        return Effect.logWarning("cannot listen for notifications; looking regularly until it works", reason)
      }
      const session = Effect.flatMap(connection(config), (client) =>
        Effect.gen(function*() {
          client.on("notification", hint)
          // a connection that is dead without saying so answers nothing
          const ask = (text: string) =>
            Effect.timeoutFail(query(client, text), {
              duration: heartbeat,
              onTimeout: () => new Lost({ reason: "the connection does not answer" })
            })
          // it is asked until it is promoted, as each refusal would be an error in the server's log
          while ((yield* ask(standbyStatement)).rows[0]?.standby === "true") {
            yield* tell("the server is a standby")
            yield* Effect.sleep(heartbeat)
          }
          yield* ask(listenStatement(channel))
          connected = true
          worked = true
          told = false
          hint()
          return yield* Effect.forever(Effect.zipRight(Effect.sleep(heartbeat), ask(aliveStatement)))
        }).pipe(Effect.raceFirst(lost(client))))
      const sessions = Effect.scoped(session).pipe(
        Effect.ensuring(Effect.sync(() => {
          connected = false
        })),
        Effect.tapError((error) => tell(error.reason)),
        Effect.retry(
          Schedule.exponential("100 millis").pipe(
            Schedule.union(Schedule.spaced(heartbeat)),
            Schedule.jittered,
            // a connection that worked is missed at once, however many there were before it
            Schedule.resetWhen(() => {
              const again = worked
              worked = false
              return again
            })
          )
        )
      )
      const looks = Effect.forever(Effect.zipRight(
        Effect.sleep(withoutConnection),
        Effect.sync(() => {
          if (!connected) hint()
        })
      ))
      return Effect.forkScoped(Effect.all([sessions, looks], { concurrency: "unbounded", discard: true }))
    },
    { bufferSize: 1, strategy: "sliding" }
  )

const connection = (config: PgClientConfig) =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const client = new Client({
        ...(config.url === undefined ? {} : { connectionString: Redacted.value(config.url) }),
        ...(config.host === undefined ? {} : { host: config.host }),
        ...(config.port === undefined ? {} : { port: config.port }),
        ...(config.database === undefined ? {} : { database: config.database }),
        ...(config.username === undefined ? {} : { user: config.username }),
        ...(config.password === undefined ? {} : { password: Redacted.value(config.password) }),
        ...(config.ssl === undefined ? {} : { ssl: config.ssl }),
        ...(config.stream === undefined ? {} : { stream: config.stream }),
        connectionTimeoutMillis: 5000,
        keepAlive: true,
        application_name: "effect-ledger listener"
      })
      // without a listener an error of the socket would end the program; `lost` tells of it
      client.on("error", () => {})
      return Effect.as(attempt(() => client.connect()), client)
    }),
    (client) => Effect.sync(() => destroy(client))
  )

class Lost extends Data.TaggedError("Lost")<{ readonly reason: string }> {}

const attempt = <A>(body: () => Promise<A>): Effect.Effect<A, Lost> =>
  Effect.tryPromise({
    try: body,
    catch: (error) => new Lost({ reason: error instanceof Error ? error.message : String(error) })
  })

const query = (client: Client, text: string): Effect.Effect<QueryResult, Lost> => attempt(() => client.query(text))

const lost = (client: Client): Effect.Effect<never, Lost> =>
  Effect.async((resume) => {
    const end = () => resume(Effect.fail(new Lost({ reason: "the connection ended" })))
    client.once("end", end)
    client.once("error", end)
  })

/** A polite end waits for an answer, which a silent connection never gives. */
export const destroy = (client: Client): void => {
  const { connection } = client as unknown as { readonly connection: { readonly stream: { destroy: () => void } } }
  connection.stream.destroy()
}

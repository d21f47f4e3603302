/** What the programs have in common: which ledger they are on, and what they say when they cannot go on. */
import { Cause, ConfigProvider, Console, Effect, Match } from "effect"
import { LedgerConfig } from "../src/index.js"

export const describeLedger = Effect.map(LedgerConfig.config, ({ backend }) =>
  Match.valueTags(backend, {
    Memory: () => "a ledger in memory, which ends with the program",
    Sqlite: ({ filename }) => `the ledger in ${filename}`,
    Postgres: () => "the ledger in Postgres"
  }))

/** Reads the environment; what it does not say is as in `defaults`, and `DATABASE_URL` is the file that both share. */
export const withSetting =
  (defaults: Readonly<Record<string, string>> = {}) =>
  <A, E extends { readonly message: string }, R>(program: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    program.pipe(
      Effect.tapError((error) => Console.error(`This cannot go on: ${error.message}`)),
      Effect.tapDefect((cause) => Console.error(Cause.pretty(cause))),
      Effect.withConfigProvider(
        ConfigProvider.fromEnv().pipe(
          ConfigProvider.orElse(() =>
            ConfigProvider.fromMap(new Map(Object.entries({ DATABASE_URL: "sqlite:///runs/agents.db", ...defaults })))
          )
        )
      )
    )

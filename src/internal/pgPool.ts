/** How a pool of ours is asked: directly, prepared, and without a fiber. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Pool, PoolClient, QueryArrayConfig } from "pg"
import { StoreUnavailable } from "../LedgerError.js"
import type { StoredRow } from "../LedgerStore.js"

/** Asks for rows; calls back once, with an error or with them. */
export type Ask = (
  text: string,
  params: ReadonlyArray<unknown>,
  done: (error: Error | undefined, rows: ReadonlyArray<StoredRow>) => void
) => void

export interface Asking {
  readonly ask: Ask
  /** For one question after another: it keeps its connection for a moment, while nobody else waits for one. */
  readonly askAgain: Ask
}

/** A statement that is not answered within `millis` ends its connection. Poolers do not bear `prepared` statements. */
export const askOn = (pool: Pool, millis: number, prepared: boolean): Effect.Effect<Asking, never, Scope.Scope> => {
  const named = new Map<string, string>()
  const nameOf = (text: string): string | undefined => {
    const known = named.get(text)
    if (known !== undefined || !prepared || named.size >= maxNamed) return known
    const name = `effect_ledger_${named.size}`
    named.set(text, name)
    return name
  }
  const query = (
    taken: Taken,
    text: string,
    params: ReadonlyArray<unknown>,
    done: Parameters<Ask>[2],
    keep: boolean
  ): void => {
    const config: QueryArrayConfig & { readonly query_timeout: number } = {
      text,
      values: params as Array<unknown>,
      rowMode: "array",
      query_timeout: millis
    }
    const name = nameOf(text)
    if (name !== undefined) config.name = name
    taken.client.query<Array<unknown>>(config, (error: Error | null, result) => {
      if (error !== null) {
        // what the server refuses leaves the connection as it was; anything else ends it
        taken.release(!("severity" in error && error.severity === "ERROR"))
        return done(error.message === "Query read timeout" ? unanswered(millis) : error, [])
      }
      // one is kept: another comes where a write was given up, and answers after all
      if (keep && kept === undefined && pool.waitingCount === 0) {
        kept = taken
        letGo.refresh()
      } else taken.release()
      done(undefined, result.rows)
    })
  }
  const take = (done: Parameters<Ask>[2], use: (taken: Taken) => void): void =>
    pool.connect((error, client, release) => {
      if (client === undefined) return done(error ?? new Error("the pool gave no connection"), [])
      const taken: Taken = {
        client,
        release: (destroy) => {
          client.off("error", lost)
          release(destroy)
        }
      }
      // a query is told as well
      const lost = () => {
        if (kept !== taken) return
        kept = undefined
        taken.release(true)
      }
      client.on("error", lost)
      use(taken)
    })
  let kept: Taken | undefined
  const releaseKept = (): void => {
    kept?.release()
    kept = undefined
  }
  const letGo = setTimeout(releaseKept, keepMillis)
  return Effect.as(
    Effect.addFinalizer(() =>
      Effect.sync(() => {
        clearTimeout(letGo)
        releaseKept()
      })
    ),
    {
      ask: (text, params, done) => take(done, (taken) => query(taken, text, params, done, false)),
      askAgain: (text, params, done) => {
        if (kept === undefined) return take(done, (taken) => query(taken, text, params, done, pool.options.max > 1))
        const taken = kept
        kept = undefined
        query(taken, text, params, done, true)
      }
    }
  )
}

interface Taken {
  readonly client: PoolClient
  readonly release: (destroy?: boolean) => void
}

/** How long a connection is kept for the next question. */
const keepMillis = 5

/** Each connection keeps them; queries of many shapes are not worth it. */
const maxNamed = 32

export const unanswered = (millis: number): StoreUnavailable =>
  new StoreUnavailable({
    reason: `the server did not answer a statement within ${millis} ms; look whether it is stuck`
  })

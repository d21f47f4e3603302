/** How a pool of ours is asked: directly, prepared, in text, and without a fiber. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Connection, Pool, PoolClient, Submittable } from "pg"
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
  const nameOf = (text: string): string => {
    const known = named.get(text)
    if (known !== undefined || !prepared || named.size >= maxNamed) return known ?? unnamed
    const name = `effect_ledger_${named.size}`
    named.set(text, name)
    return name
  }
  const plans: Plans = new WeakMap()
  const query = (
    taken: Taken,
    text: string,
    params: ReadonlyArray<unknown>,
    done: Parameters<Ask>[2],
    keep: boolean
  ): void => {
    const question = new Question(text, nameOf(text), params, plans, (error, rows) => {
      asked.delete(question)
      if (error !== undefined) {
        // what the server refuses leaves the connection as it was; anything else ends it
        taken.release(!("severity" in error && error.severity === "ERROR"))
        return done(error, [])
      }
      // one is kept: another comes where a write was given up, and answers after all
      if (keep && kept === undefined && !closed && pool.waitingCount === 0) {
        kept = taken
        letGo.refresh()
      } else taken.release()
      done(undefined, rows)
    })
    asked.add(question)
    if (!isWatched) watch(millis)
    taken.client.query(question)
  }
  /** The oldest first. */
  const asked = new Set<Question>()
  let isWatched = false
  // with the driver's own timer, one for each query, a page takes half as long again: the collector takes its rows for alive
  const watch = (left: number): void => {
    isWatched = true
    setTimeout(() => {
      for (const question of asked) {
        const left = question.askedAt + millis - performance.now()
        if (left > 0) return watch(left)
        question.giveUp(unanswered(millis))
      }
      isWatched = false
    }, left).unref()
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
  let closed = false
  const releaseKept = (): void => {
    kept?.release()
    kept = undefined
  }
  const letGo = setTimeout(releaseKept, keepMillis)
  return Effect.as(
    Effect.addFinalizer(() =>
      Effect.sync(() => {
        closed = true
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

/**
 * A statement as `pg` submits it. The values of its rows stay the text that the server sent, and the server is not asked
 * for the names and types of their columns.
 */
class Question implements Submittable {
  readonly askedAt = performance.now()
  private readonly rows: Array<StoredRow> = []
  private plans: Map<string, number> | undefined
  constructor(
    private readonly text: string,
    private readonly name: string,
    private readonly params: ReadonlyArray<unknown>,
    private readonly allPlans: Plans,
    /** The client looks for it by this name. */
    public callback: (error: Error | undefined, rows: ReadonlyArray<StoredRow>) => void
  ) {}
  submit(connection: Connection): void {
    const { name, text } = this
    connection.stream.cork()
    if (!this.isPlanned(connection)) {
      // of one that is not there this is no error
      if (name !== unnamed) connection.close({ type: "S", name }, true)
      connection.parse({ name, text, types: [] }, true)
    }
    connection.bind({ statement: name, values: this.params.map(textOf) }, true)
    connection.execute(null, true)
    connection.sync()
    connection.stream.uncork()
  }
  private isPlanned(connection: Connection): boolean {
    if (this.name === unnamed) return false
    const plans = this.allPlans.get(connection) ?? new Map<string, number>()
    if (this.askedAt - (plans.get(this.name) ?? Number.NEGATIVE_INFINITY) < planMillis) return true
    this.allPlans.set(connection, plans.set(this.name, this.askedAt))
    this.plans = plans
    return false
  }
  handleDataRow(message: { readonly fields: StoredRow }): void {
    this.rows.push(message.fields)
  }
  handleCommandComplete(): void {}
  handleReadyForQuery(): void {
    this.callback(undefined, this.rows)
  }
  handleError(error: Error): void {
    this.plans?.delete(this.name)
    this.callback(error, [])
  }
  giveUp(error: Error): void {
    const { callback } = this
    // the client tells it that its connection has ended
    this.callback = () => {}
    callback(error, [])
  }
}

/** When each statement of a connection was planned, by its name. */
type Plans = WeakMap<Connection, Map<string, number>>

const unnamed = ""

/** How long a plan is good for: what was planned for a few events scans all of them when they have become many. */
const planMillis = 1000

const textOf = (value: unknown): string | null =>
  typeof value === "string" ? value : value === null ? null : String(value)

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

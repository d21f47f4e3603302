/**
 * What the contract suite needs to know of a backend.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type { ConsumerStore } from "../../src/ConsumerStore.js"
import type { Ledger, LedgerAdmin } from "../../src/Ledger.js"
import type { LedgerStore } from "../../src/LedgerStore.js"

/**
 * What the suite needs of a ledger.
 *
 * @since 0.1.0
 * @category models
 */
export type Services = Ledger | LedgerAdmin | LedgerStore

/**
 * How the suite makes ledgers. It calls these once or more for each test, so that no test sees another's events.
 *
 * - `layer`: a new, empty ledger each call
 * - `stored`: a new, empty ledger each call, which outlives its Layer: every build of the Layer is another handle on the
 *   same events, at the same time or later. Left out where a ledger ends with its Layer
 * - `client`: a new, empty ledger each call, together with the caller's own connection to the database that it stands
 *   on. Left out where there is no such thing
 * - `consumers`: as `layer`, with the store that consumers and projections keep their checkpoints in; where it is given,
 *   the ledgers of `stored` and `client` have one too
 *
 * @since 0.1.0
 * @category models
 */
export interface Backend {
  readonly layer: () => Layer.Layer<Services, unknown>
  readonly stored?: (() => Layer.Layer<Services, unknown>) | undefined
  readonly client?: (() => Layer.Layer<Services | Client, unknown>) | undefined
  readonly consumers?: (() => Layer.Layer<Services | ConsumerStore, unknown>) | undefined
}

/**
 * The caller's side of a database that holds a ledger: a transaction on the same client, a table of the caller's own,
 * and a way to damage what is stored.
 *
 * @since 0.1.0
 * @category tags
 */
export class Client extends Context.Tag("effect-ledger/testing/Client")<Client, {
  /** Runs the effect in a transaction of the client's: a success commits, anything else rolls back. May be nested. */
  readonly transaction: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, unknown, R>
  /** Writes a row into the caller's own table. */
  readonly note: (text: string) => Effect.Effect<void, unknown>
  /** The caller's own rows, in the order written. */
  readonly notes: Effect.Effect<ReadonlyArray<string>, unknown>
  /**
   * Overwrites one column of the stored event with what cannot be there, past every trigger and constraint: `column` as
   * the database names it.
   */
  readonly damage: (offset: number, column: string, value: string | number) => Effect.Effect<void, unknown>
  /** Removes a stored event, past every trigger. */
  readonly remove: (offset: number) => Effect.Effect<void, unknown>
}>() {}

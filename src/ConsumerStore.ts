/**
 * The port for what readers of the log keep beside it: the checkpoints, leases and dead letters of consumers, and the saved
 * states of projections. `Consumer` and `Projection` are built on it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { StoreError } from "./LedgerError.js"

/**
 * Where a reader stands in one log: everything up to `offset` is dealt with, and the event there has this digest (null at
 * offset 0). The three together tell the log from one that was reset, restored or changed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Position {
  readonly incarnation: string
  readonly offset: number
  readonly digest: string | null
}

/**
 * The right to act for one partition of a consumer. `token` is the fencing token: it grows with every acquisition, and
 * what a holder of an older one writes is refused.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lease {
  readonly name: string
  readonly partition: number
  readonly token: number
}

/**
 * What {@link ConsumerStore} answers to who wants a lease: the lease with the consumer's last position (none yet, for a new
 * one); that another has it; or that the consumer is divided into another number of partitions.
 *
 * @since 0.1.0
 * @category models
 */
export type Acquisition =
  | { readonly _tag: "Acquired"; readonly lease: Lease; readonly position: Position | null }
  | { readonly _tag: "Held" }
  | { readonly _tag: "Divided"; readonly partitions: number }

/**
 * One partition of a consumer as it is stored: its last position (null before the first), and who holds it (null when
 * nobody has a valid lease).
 *
 * @since 0.1.0
 * @category models
 */
export interface StoredConsumer {
  readonly name: string
  readonly partition: number
  readonly partitions: number
  readonly position: Position | null
  readonly holder: string | null
}

/**
 * An event that a consumer gave up on: its offset, the last failure, how often it was given up on, and when (milliseconds
 * since 1970 UTC).
 *
 * @since 0.1.0
 * @category models
 */
export interface DeadLetter {
  readonly offset: number
  readonly reason: string
  readonly attempts: number
  readonly failedAt: number
}

/**
 * The state of a projection as it is stored: `state` is JSON text; `complete` says whether this version has once caught up
 * with the log.
 *
 * @since 0.1.0
 * @category models
 */
export interface SavedState {
  readonly version: number
  readonly complete: boolean
  readonly position: Position
  readonly state: string
}

/**
 * The port. Calls join the transaction of the calling fiber when it is one of this store's own client. Durations are
 * milliseconds, measured by the clock of the database server, where there is one.
 *
 * @since 0.1.0
 * @category tags
 */
export class ConsumerStore extends Context.Tag("effect-ledger/ConsumerStore")<ConsumerStore, {
  /** Says that this member of the consumer is alive for so long, and answers all that are, sorted. */
  readonly join: (name: string, member: string, millis: number) => Effect.Effect<ReadonlyArray<string>, StoreError>
  readonly leave: (name: string, member: string) => Effect.Effect<void, StoreError>
  /** A lease that expired, or that the same holder has, is given with a new token. Waits for nobody. */
  readonly acquire: (request: {
    readonly name: string
    readonly partition: number
    readonly partitions: number
    readonly holder: string
    readonly millis: number
  }) => Effect.Effect<Acquisition, StoreError>
  /** Extends the lease; false when it is lost. */
  readonly renew: (lease: Lease, millis: number) => Effect.Effect<boolean, StoreError>
  /** Gives the lease back, if it is still held. */
  readonly release: (lease: Lease) => Effect.Effect<void, StoreError>
  /** Stores the position and extends the lease; false, and nothing is written, when the lease is lost. */
  readonly save: (lease: Lease, position: Position, millis: number) => Effect.Effect<boolean, StoreError>
  /** Records a dead letter; false, and nothing is written, when the lease is lost. */
  readonly bury: (lease: Lease, offset: number, reason: string) => Effect.Effect<boolean, StoreError>
  /** The dead letters of a consumer after an offset, in offset order, at most 1,000. */
  readonly deadLetters: (name: string, after: number) => Effect.Effect<ReadonlyArray<DeadLetter>, StoreError>
  /** Counts one more failure of a dead letter, if it is still there. */
  readonly failAgain: (name: string, offset: number, reason: string) => Effect.Effect<void, StoreError>
  /** Removes a dead letter; false when there is none. */
  readonly settle: (name: string, offset: number) => Effect.Effect<boolean, StoreError>
  /** All partitions of all consumers, by name. */
  readonly consumers: Effect.Effect<ReadonlyArray<StoredConsumer>, StoreError>
  /** Removes a consumer with its dead letters; false, and nothing is removed, while somebody holds a lease of it. */
  readonly forget: (name: string) => Effect.Effect<boolean, StoreError>
  /** The saved state of one version of a projection. */
  readonly load: (projection: string, version: number) => Effect.Effect<Option.Option<SavedState>, StoreError>
  /** The saved states of a projection, by version. */
  readonly versions: (projection: string) => Effect.Effect<ReadonlyArray<Omit<SavedState, "state">>, StoreError>
  /**
   * Saves a state, unless one with a larger offset of the same version is there. With `complete`, older versions are
   * removed; false, and nothing is written, when a newer version is complete.
   */
  readonly store: (projection: string, saved: SavedState) => Effect.Effect<boolean, StoreError>
  /** Removes every version of a projection. */
  readonly discard: (projection: string) => Effect.Effect<void, StoreError>
}>() {}

/**
 * The port under the ledger that a backend implements. A store is small and speaks rows; whatever a user can observe
 * beyond it is written once above it, by `StoreLedger`.
 *
 * @since 0.1.0
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import type { StoreError } from "./LedgerError.js"

/**
 * An event as it is stored, checked: `payload` is its canonical JSON text, `createdAt` milliseconds since 1970 UTC,
 * `digest` 64 hexadecimal digits.
 *
 * @since 0.1.0
 * @category models
 */
export interface Row {
  readonly id: string
  readonly runId: string
  readonly turn: number
  readonly kind: string
  readonly actor: string
  readonly payload: string
  readonly createdAt: number
  readonly schemaVersion: number
  readonly sessionId: string | null
  readonly modelProfile: string | null
  readonly modelId: string | null
  readonly digest: string
}

/**
 * A stored row as the driver gives it, unchecked: offset, id, run_id, turn, kind, actor, payload, created_at,
 * schema_version, session_id, model_profile, model_id.
 *
 * @since 0.1.0
 * @category models
 */
export type StoredRow = ReadonlyArray<unknown>

/**
 * A checked filter: members of an array are alternatives, times are milliseconds since 1970 UTC.
 *
 * @since 0.1.0
 * @category models
 */
export interface StoreFilter {
  readonly runId?: string
  readonly kinds?: NonEmptyReadonlyArray<string>
  readonly actors?: NonEmptyReadonlyArray<string>
  readonly sessionIds?: NonEmptyReadonlyArray<string>
  readonly modelIds?: NonEmptyReadonlyArray<string>
  readonly createdFrom?: number
  readonly createdUntil?: number
}

/**
 * No event after `after` matches any of the filters. Events that the same group records again, identically, do not
 * count, and a group whose ids are all recorded is not asked: its first attempt succeeded.
 *
 * @since 0.1.0
 * @category models
 */
export interface StoreCondition {
  readonly noneMatch: NonEmptyReadonlyArray<StoreFilter>
  readonly after: number
}

/**
 * What one caller appends: all of it or none. Ids are distinct within a group.
 *
 * @since 0.1.0
 * @category models
 */
export interface AppendGroup {
  readonly rows: NonEmptyReadonlyArray<Row>
  readonly condition: StoreCondition | undefined
}

/**
 * What became of one row: its offset, and whether it is new, was recorded before with the same content (every column
 * but `createdAt` and `digest`), or with another.
 *
 * @since 0.1.0
 * @category models
 */
export interface Outcome {
  readonly offset: number
  readonly status: "appended" | "identical" | "divergent"
}

/**
 * What became of a group: an outcome for each row in the order given, or a refused condition with the offset of the
 * first event that matches it (the head, when the condition's `after` lies beyond it).
 *
 * @since 0.1.0
 * @category models
 */
export type GroupResult =
  | { readonly _tag: "Written"; readonly outcomes: ReadonlyArray<Outcome> }
  | { readonly _tag: "Refused"; readonly offset: number }

/**
 * Where the log ends: the last offset, the digest there (null when empty), and the log's incarnation, read together.
 *
 * @since 0.1.0
 * @category models
 */
export interface Head {
  readonly incarnation: string
  readonly offset: number
  readonly digest: string | null
}

/**
 * Rows with `after < offset <= through`, up to the head, that match any of the filters (all rows, when there are none), in the direction
 * asked for, at most `limit`.
 *
 * @since 0.1.0
 * @category models
 */
export interface PageRequest {
  readonly filters: ReadonlyArray<StoreFilter>
  readonly after: number
  readonly through: number
  readonly backward: boolean
  readonly limit: number
}

/**
 * Some of the rows asked for, at least one if there is one before `next`; a store may give fewer than the limit to bound
 * the page's bytes or the work of one statement. `next` is where to go on: the rows not looked at are those above it
 * (below it, backwards); null when there is nothing more. `incarnation` and `head` are those of the log at the moment that
 * the rows were read, and `digest` is that of the event at the request's `after`, null when there is none.
 *
 * @since 0.1.0
 * @category models
 */
export interface Page {
  readonly incarnation: string
  readonly head: number
  readonly digest: string | null
  readonly rows: ReadonlyArray<StoredRow>
  readonly next: number | null
}

/**
 * Something that is wrong in a store, and at which offset, where it is at one.
 *
 * @since 0.1.0
 * @category models
 */
export interface Problem {
  readonly offset: number | null
  readonly what: string
}

/**
 * Where a log is kept. `key` is equal for every handle on one log, and differs between two logs; null where no other
 * process can reach it. `file` is the SQLite file that holds it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Location {
  readonly key: string | null
  readonly file: string | null
}

/**
 * Writes the groups in order, in one transaction, and answers one result a group; a later group sees the earlier ones.
 * Offsets are the next ones after the head, taken under a lock that is held until the commit is visible. When the effect
 * fails nothing was written, except that after `StoreUnavailable` the outcome may be unknown.
 *
 * `direct` does the same outside of every transaction, without a fiber: it calls `done` once, at once or later. Told
 * `undefined`, its caller runs the effect instead, as something has to wait or to be tried again.
 *
 * `ahead` says what the next call of `direct` will probably begin with, after what it said since the last one: a store
 * may begin to write that, and undoes it where the call is another.
 *
 * @since 0.1.0
 * @category models
 */
export interface Append {
  (groups: NonEmptyReadonlyArray<AppendGroup>): Effect.Effect<ReadonlyArray<GroupResult>, StoreError>
  readonly direct?: (
    groups: NonEmptyReadonlyArray<AppendGroup>,
    done: (exit: Exit.Exit<ReadonlyArray<GroupResult>, StoreError> | undefined) => void
  ) => void
  readonly ahead?: (groups: ReadonlyArray<AppendGroup>) => void
}

/**
 * The port. Calls join the transaction of the calling fiber when, and only when, it is one of this store's own client.
 *
 * @since 0.1.0
 * @category tags
 */
export class LedgerStore extends Context.Tag("effect-ledger/LedgerStore")<LedgerStore, {
  readonly append: Append
  readonly page: (request: PageRequest) => Effect.Effect<Page, StoreError>
  /** Whether another process makes a page ready, so that the next one is worth asking for while one is handled. */
  readonly readsAhead: boolean
  readonly get: (id: string) => Effect.Effect<Option.Option<StoredRow>, StoreError>
  /** Distinct run ids by their first offset. */
  readonly runs: Effect.Effect<ReadonlyArray<string>, StoreError>
  readonly head: Effect.Effect<Head, StoreError>
  /** Deletes every event and begins a new incarnation, which goes on from none. */
  readonly reset: Effect.Effect<void, StoreError>
  /** Where the logs ended that this one goes on from, the nearest first. */
  readonly lineage: Effect.Effect<ReadonlyArray<Head>, StoreError>
  /**
   * Begins a new incarnation with this lineage; unless told, it goes on from the log as it is. Events stay. Takes the
   * lock that appends take, and answers the new head.
   */
  readonly incarnate: (lineage?: ReadonlyArray<Head>) => Effect.Effect<Head, StoreError>
  /** The stored digests of the rows with `after < offset <= through`, by offset; null where there is something else. */
  readonly digests: (
    after: number,
    through: number
  ) => Effect.Effect<ReadonlyArray<readonly [offset: number, digest: string | null]>, StoreError>
  /**
   * What is wrong with all that stands round the rows: what makes the log append-only, constraints, indices, functions,
   * the database's own structure, and checkpoints at events that are not there. Costs a pass over the indices.
   */
  readonly inspect: Effect.Effect<ReadonlyArray<Problem>, StoreError>
  readonly location: Effect.Effect<Location, StoreError>
  /**
   * Hints that the log may have changed, also by other processes. They may come late, for nothing, or never: the log is
   * looked at every second all the same.
   */
  readonly changes: Stream.Stream<void>
  /** Whether the calling fiber is in a transaction of this store's own client. */
  readonly inTransaction: Effect.Effect<boolean>
  /**
   * Runs the effect in a transaction of this store's own client, which the effect's statements on that client join: a
   * success commits, anything else rolls back. In a transaction of the caller's it is a part of that. When the connection
   * is lost this fails with `StoreUnavailable`, whatever the effect made of it, and the outcome may be unknown. A server
   * ends a transaction that stands idle for `maxIdle` milliseconds.
   */
  readonly transaction: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: { readonly maxIdle?: number | undefined }
  ) => Effect.Effect<A, E | StoreError, R>
}>() {}

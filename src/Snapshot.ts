/**
 * Copies of a ledger, whole or not at all, in any backend.
 *
 * @since 0.1.0
 */
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Backend from "./internal/backend.js"
import * as internal from "./internal/snapshot.js"
import type { CorruptEvent, LedgerReplaced, SetupError, SnapshotRefused, StoreError } from "./LedgerError.js"
import { type Head, LedgerStore } from "./LedgerStore.js"

/**
 * - `prefix`, `schema`: of the ledger that the copy becomes, as in `LedgerConfig.layerUrl`
 * - `replace`: the destination may hold anything else, which is lost. Without it a SQLite file is replaced only by a
 *   later snapshot of the same ledger, and a ledger in Postgres only where it is empty
 * - `onProgress`: done after each page, with the events that are copied and how many there are to copy
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  readonly prefix?: string | undefined
  readonly schema?: string | undefined
  readonly replace?: boolean | undefined
  readonly onProgress?:
    | ((progress: { readonly copied: number; readonly total: number }) => Effect.Effect<void>)
    | undefined
}

/**
 * A copy. `head` is its last offset, `count` the number of its events (the same number), `bytes` the size of their
 * canonical JSON, `digest` the SHA-256 of their digests (32 bytes each, one after the other in the order of the
 * offsets), as 64 hexadecimal digits. It has an `incarnation` of its own, as what is appended to it later is another
 * history, and goes on from `parent`: the log that it was copied from, up to the offset and the digest there.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  readonly head: number
  readonly count: number
  readonly bytes: number
  readonly digest: string
  readonly incarnation: string
  readonly parent: Head
}

/**
 * Why there is no snapshot; what was at the destination is still there.
 *
 * @since 0.1.0
 * @category errors
 */
export type SnapshotError =
  | ConfigError.ConfigError
  | SetupError
  | StoreError
  | SnapshotRefused
  | LedgerReplaced
  | CorruptEvent

/**
 * Copies the ledger up to one head to a destination, in any form that `DATABASE_URL` may have: the same events with the
 * same offsets and digests. Writers go on meanwhile. What readers keep beside the log (checkpoints, leases, dead letters,
 * projections) does not come along. Every event is compared with its digest on the way: one that differs fails with
 * `CorruptEvent`. Constant memory.
 *
 * A SQLite file is written beside its place, checked, and renamed when it is whole; nobody may have the file that it
 * replaces open. From a SQLite file with nothing else in it, SQLite itself copies, off the program's thread. A ledger in
 * Postgres is filled in one transaction, for which it is locked.
 *
 * Fails with `SnapshotRefused` where the destination is the ledger itself, by whatever name, is in memory, or holds what
 * `replace` was not asked for.
 *
 * @example
 * ```ts
 * import { LedgerConfig, Snapshot } from "effect-ledger"
 * import { Console, Effect } from "effect"
 *
 * export const backup = Snapshot.to("backup/agents.db", {
 *   onProgress: ({ copied, total }) => Console.log(`${copied} of ${total}`)
 * }).pipe(Effect.provide(LedgerConfig.layer))
 * ```
 *
 * @since 0.1.0
 * @category snapshot
 */
export const to: (
  destination: string | Redacted.Redacted,
  options?: Options
) => Effect.Effect<Snapshot, SnapshotError, LedgerStore> = Effect.fn("Snapshot.to")(
  function*(destination: string | Redacted.Redacted, options: Options = {}) {
    const store = yield* LedgerStore
    const url = typeof destination === "string" ? Redacted.make(destination) : destination
    return yield* internal.to(store, yield* Backend.parseUrl(url), options)
  }
)

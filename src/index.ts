/**
 * The import of a database that the ancestor wrote, the Python `SqlAlchemyLedger` or `SQLiteLedger`.
 *
 * @since 0.1.0
 */
export * as Ancestor from "./Ancestor.js"

/**
 * A named, durable reader with checkpoints, a lease and dead letters.
 *
 * @since 0.1.0
 */
export * as Consumer from "./Consumer.js"

/**
 * The port for what readers of the log keep beside it.
 *
 * @since 0.1.0
 */
export * as ConsumerStore from "./ConsumerStore.js"

/**
 * The event: an immutable envelope round a JSON payload.
 *
 * @since 0.1.0
 */
export * as Event from "./Event.js"

/**
 * The append-only log of events, as a service.
 *
 * @since 0.1.0
 */
export * as Ledger from "./Ledger.js"

/**
 * The Layer selected from config: `DATABASE_URL` decides where the log lives.
 *
 * @since 0.1.0
 */
export * as LedgerConfig from "./LedgerConfig.js"

/**
 * Everything that can go wrong, as values.
 *
 * @since 0.1.0
 */
export * as LedgerError from "./LedgerError.js"

/**
 * What a ledger counts.
 *
 * @since 0.1.0
 */
export * as LedgerMetrics from "./LedgerMetrics.js"

/**
 * The port under the ledger that a backend implements.
 *
 * @since 0.1.0
 */
export * as LedgerStore from "./LedgerStore.js"

/**
 * The ledger in memory.
 *
 * @since 0.1.0
 */
export * as MemoryLedger from "./MemoryLedger.js"

/**
 * A fold over the log with a name and a version, in memory or persisted.
 *
 * @since 0.1.0
 */
export * as Projection from "./Projection.js"

/**
 * What to read, as data.
 *
 * @since 0.1.0
 */
export * as Query from "./Query.js"

/**
 * Copies of a ledger, whole or not at all, in any backend.
 *
 * @since 0.1.0
 */
export * as Snapshot from "./Snapshot.js"

/**
 * The ledger over any store.
 *
 * @since 0.1.0
 */
export * as StoreLedger from "./StoreLedger.js"

/**
 * Traces: events as JSON Lines, to keep, to hand on, and to read back into any ledger.
 *
 * @since 0.1.0
 */
export * as Trace from "./Trace.js"

/**
 * Whether a ledger still holds what was written, and is still guarded.
 *
 * @since 0.1.0
 */
export * as Verify from "./Verify.js"

/**
 * Everything that can go wrong, as values. No message ever contains a password.
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

/**
 * An event was refused, and nothing was written. `index` is its place in the batch (0 for a single append), `path` the
 * field (`payload.tools[2].args`), `reason` what was expected.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidEvent extends Schema.TaggedError<InvalidEvent>("effect-ledger/InvalidEvent")("InvalidEvent", {
  index: Schema.Number,
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `event ${this.index}: ${this.path}: ${this.reason}`
  }
}

/**
 * A query, a filter, a cursor or a name was refused, and nothing was read. `path` is the field.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidQuery extends Schema.TaggedError<InvalidQuery>("effect-ledger/InvalidQuery")("InvalidQuery", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

/**
 * The condition of `appendIf` did not hold, and nothing was written: the event at `offset` matches its filter. When the
 * condition's `after` lies beyond the head, the decision was made on another log; `offset` is then the head.
 *
 * @since 0.1.0
 * @category errors
 */
export class AppendConditionFailed
  extends Schema.TaggedError<AppendConditionFailed>("effect-ledger/AppendConditionFailed")("AppendConditionFailed", {
    offset: Schema.Number
  })
{
  override get message(): string {
    return `the append condition does not hold: see the event at offset ${this.offset}; read on from there and decide again`
  }
}

/**
 * The id is already recorded, at `offset`, with other content; the first write stands.
 *
 * @since 0.1.0
 * @category errors
 */
export class DivergentDuplicate
  extends Schema.TaggedError<DivergentDuplicate>("effect-ledger/DivergentDuplicate")("DivergentDuplicate", {
    id: Schema.String,
    offset: Schema.Number
  })
{
  override get message(): string {
    return `the id ${JSON.stringify(this.id)} is already recorded at offset ${this.offset}, with other content`
  }
}

/**
 * What is stored at `offset` cannot be an event. Nothing is guessed and nothing is skipped.
 *
 * @since 0.1.0
 * @category errors
 */
export class CorruptEvent extends Schema.TaggedError<CorruptEvent>("effect-ledger/CorruptEvent")("CorruptEvent", {
  offset: Schema.Number,
  reason: Schema.String
}) {
  override get message(): string {
    return `the row at offset ${this.offset} is not an event: ${this.reason}`
  }
}

/**
 * The cursor belongs to another log: its incarnation differs from the one `found` (the ledger was reset or restored), or
 * it lies beyond the `head`, or the event there is another. `expected` is null when the cursor was a bare offset.
 *
 * @since 0.1.0
 * @category errors
 */
export class LedgerReplaced
  extends Schema.TaggedError<LedgerReplaced>("effect-ledger/LedgerReplaced")("LedgerReplaced", {
    expected: Schema.NullOr(Schema.String),
    found: Schema.String,
    head: Schema.Number
  })
{
  override get message(): string {
    return (this.expected === null
      ? `the cursor lies beyond the head, ${this.head}, of incarnation ${this.found}`
      : this.expected === this.found
      ? `the cursor does not lie in this log, incarnation ${this.found} with head ${this.head}: it ends before the cursor, or was restored and has other events now`
      : `the cursor belongs to incarnation ${this.expected}, the ledger is incarnation ${this.found} with head ${this.head}`) +
      "; read again from the start"
  }
}

/**
 * The store cannot be reached, is busy, has no room, can only be read, or is closed. Repeating the same call is safe.
 *
 * @since 0.1.0
 * @category errors
 */
export class StoreUnavailable
  extends Schema.TaggedError<StoreUnavailable>("effect-ledger/StoreUnavailable")("StoreUnavailable", {
    reason: Schema.String,
    cause: Schema.optional(Schema.Defect)
  })
{
  override get message(): string {
    return `${this.reason}; repeating the same call is safe`
  }
}

/**
 * The transaction that the call ran in is lost (serialization failure, deadlock, a stale snapshot, or it had failed
 * before). Repeat the whole transaction.
 *
 * @since 0.1.0
 * @category errors
 */
export class TransactionAborted
  extends Schema.TaggedError<TransactionAborted>("effect-ledger/TransactionAborted")("TransactionAborted", {
    reason: Schema.String,
    cause: Schema.optional(Schema.Defect)
  })
{
  override get message(): string {
    return `${this.reason}; repeat the whole transaction`
  }
}

/**
 * The store refused or failed in a way that repeating will not mend. `advice` says what may, where that is known.
 *
 * @since 0.1.0
 * @category errors
 */
export class StoreFailure extends Schema.TaggedError<StoreFailure>("effect-ledger/StoreFailure")("StoreFailure", {
  method: Schema.String,
  cause: Schema.Defect,
  advice: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return `${this.method}: ${
      Predicate.hasProperty(this.cause, "message") ? String(this.cause.message) : String(this.cause)
    }${this.advice === undefined ? "" : `; ${this.advice}`}`
  }
}

/**
 * The database holds, or is, something that this version of the library does not work with.
 *
 * @since 0.1.0
 * @category errors
 */
export class IncompatibleStore
  extends Schema.TaggedError<IncompatibleStore>("effect-ledger/IncompatibleStore")("IncompatibleStore", {
    found: Schema.String,
    supported: Schema.String
  })
{
  override get message(): string {
    return `found ${this.found}, supported is ${this.supported}`
  }
}

/**
 * The consumer cannot be reset while a process runs it, or until the lease of one that died has expired.
 *
 * @since 0.1.0
 * @category errors
 */
export class ConsumerActive
  extends Schema.TaggedError<ConsumerActive>("effect-ledger/ConsumerActive")("ConsumerActive", {
    name: Schema.String
  })
{
  override get message(): string {
    return `the consumer ${
      JSON.stringify(this.name)
    } is running: stop it first, or wait until the lease of one that died has expired`
  }
}

/**
 * A projection cannot go on: its `apply` threw at the event with this offset, or its state there cannot be encoded or
 * decoded by its schema.
 *
 * @since 0.1.0
 * @category errors
 */
export class ProjectionFailed
  extends Schema.TaggedError<ProjectionFailed>("effect-ledger/ProjectionFailed")("ProjectionFailed", {
    name: Schema.String,
    version: Schema.Number,
    offset: Schema.Number,
    cause: Schema.Defect
  })
{
  override get message(): string {
    return `the projection ${JSON.stringify(this.name)} (version ${this.version}) fails at offset ${this.offset}: ${
      Predicate.hasProperty(this.cause, "message") ? String(this.cause.message) : String(this.cause)
    }; correct it, and raise its version if its state has changed`
  }
}

/**
 * The driver of the selected backend is not installed.
 *
 * @since 0.1.0
 * @category errors
 */
export class DriverMissing extends Schema.TaggedError<DriverMissing>("effect-ledger/DriverMissing")("DriverMissing", {
  package: Schema.String
}) {
  override get message(): string {
    return `the selected backend needs a package that is not installed: npm install ${
      withVersions[this.package] ?? this.package
    }`
  }
}

/** Without them npm would install those of another line of Effect. */
const withVersions: Readonly<Record<string, string>> = {
  "@effect/sql-pg": "@effect/sql-pg@0.53 pg@8",
  "@effect/sql-sqlite-node": "@effect/sql-sqlite-node@0.53"
}

/**
 * A line of a trace is damaged. `line` counts from 1, `reason` names the field and what was expected. The lines before it
 * are recorded.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidTrace extends Schema.TaggedError<InvalidTrace>("effect-ledger/InvalidTrace")("InvalidTrace", {
  line: Schema.Number,
  reason: Schema.String
}) {
  override get message(): string {
    return `line ${this.line}: ${this.reason}`
  }
}

/**
 * A trace file could not be read or written. When it was to be written, what stood at `path` before is untouched; when it
 * was read, what came before the damage is recorded.
 *
 * @since 0.1.0
 * @category errors
 */
export class TraceFailure extends Schema.TaggedError<TraceFailure>("effect-ledger/TraceFailure")("TraceFailure", {
  path: Schema.String,
  cause: Schema.Defect
}) {
  override get message(): string {
    return `${this.path}: ${
      Predicate.hasProperty(this.cause, "message") ? String(this.cause.message) : String(this.cause)
    }`
  }
}

/**
 * An event cannot be a CloudEvent, or a CloudEvent cannot be an event. `id` is the event's, null when it has none to name
 * it by, `attribute` the CloudEvent's attribute or the path in its `data`.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidCloudEvent
  extends Schema.TaggedError<InvalidCloudEvent>("effect-ledger/InvalidCloudEvent")("InvalidCloudEvent", {
    id: Schema.NullOr(Schema.String),
    attribute: Schema.String,
    reason: Schema.String
  })
{
  override get message(): string {
    return `${this.id === null ? "" : `event ${JSON.stringify(this.id)}: `}${this.attribute}: ${this.reason}`
  }
}

/**
 * The destination cannot take a snapshot, and is untouched: it is the ledger itself, it would not outlive the program, or
 * it holds something that `replace` was not asked for.
 *
 * @since 0.1.0
 * @category errors
 */
export class SnapshotRefused
  extends Schema.TaggedError<SnapshotRefused>("effect-ledger/SnapshotRefused")("SnapshotRefused", {
    reason: Schema.String
  })
{
  override get message(): string {
    return `the destination ${this.reason}`
  }
}

/**
 * What a store answers when it cannot do what was asked.
 *
 * @since 0.1.0
 * @category errors
 */
export const StoreError = Schema.Union(StoreUnavailable, TransactionAborted, StoreFailure)

/**
 * The type of the schema of the same name.
 *
 * @since 0.1.0
 * @category errors
 */
export type StoreError = typeof StoreError.Type

/**
 * Why an append failed. In every case nothing of it was written, except after a {@link StoreUnavailable} that says the
 * outcome is unknown: then append the same event again.
 *
 * @since 0.1.0
 * @category errors
 */
export const AppendError = Schema.Union(InvalidEvent, StoreUnavailable, TransactionAborted, StoreFailure)

/**
 * The type of the schema of the same name.
 *
 * @since 0.1.0
 * @category errors
 */
export type AppendError = typeof AppendError.Type

/**
 * Why a read failed.
 *
 * @since 0.1.0
 * @category errors
 */
export const ReadError = Schema.Union(
  InvalidQuery,
  LedgerReplaced,
  CorruptEvent,
  StoreUnavailable,
  TransactionAborted,
  StoreFailure
)

/**
 * The type of the schema of the same name.
 *
 * @since 0.1.0
 * @category errors
 */
export type ReadError = typeof ReadError.Type

/**
 * Why a subscription ended. While the store is away it waits.
 *
 * @since 0.1.0
 * @category errors
 */
export const SubscribeError = Schema.Union(InvalidQuery, LedgerReplaced, CorruptEvent, TransactionAborted, StoreFailure)

/**
 * The type of the schema of the same name.
 *
 * @since 0.1.0
 * @category errors
 */
export type SubscribeError = typeof SubscribeError.Type

/**
 * Why a ledger could not be opened.
 *
 * @since 0.1.0
 * @category errors
 */
export const SetupError = Schema.Union(StoreUnavailable, StoreFailure, IncompatibleStore, DriverMissing)

/**
 * The type of the schema of the same name.
 *
 * @since 0.1.0
 * @category errors
 */
export type SetupError = typeof SetupError.Type

/**
 * Why a projection ended. While the store is away it waits.
 *
 * @since 0.1.0
 * @category errors
 */
export const ProjectionError = Schema.Union(
  InvalidQuery,
  LedgerReplaced,
  CorruptEvent,
  TransactionAborted,
  StoreFailure,
  ProjectionFailed
)

/**
 * The type of the schema of the same name.
 *
 * @since 0.1.0
 * @category errors
 */
export type ProjectionError = typeof ProjectionError.Type

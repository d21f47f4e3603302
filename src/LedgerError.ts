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
 * A query, a filter or a cursor was refused, and nothing was read. `path` is the field.
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
 * it lies beyond the `head`. `expected` is null when the cursor was a bare offset.
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
    return (this.expected === null || this.expected === this.found
      ? `the cursor lies beyond the head, ${this.head}, of incarnation ${this.found}`
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
 * The driver of the selected backend is not installed.
 *
 * @since 0.1.0
 * @category errors
 */
export class DriverMissing extends Schema.TaggedError<DriverMissing>("effect-ledger/DriverMissing")("DriverMissing", {
  package: Schema.String
}) {
  override get message(): string {
    return `the selected backend needs a package that is not installed: npm install ${this.package}`
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

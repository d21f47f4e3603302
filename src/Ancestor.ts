/**
 * The import of a database that the ancestor wrote, the Python `SqlAlchemyLedger` or `SQLiteLedger`.
 *
 * @since 0.1.0
 */
import * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { Event } from "./Event.js"
import { type AncestorRow, columns, type Source } from "./internal/ancestor.js"
import * as Backend from "./internal/backend.js"
import * as Importer from "./internal/importer.js"
import { JsonRefusal, parseJson } from "./internal/jsonText.js"
import { FieldIssue } from "./internal/row.js"
import { eventOf } from "./internal/traceLine.js"
import { Ledger } from "./Ledger.js"
import { CorruptEvent, type DriverMissing, type IncompatibleStore, type StoreError } from "./LedgerError.js"

/**
 * - `after`: the ancestor's offset to go on after; from its first row, wherever that stands, unless told
 * - `onInvalid`: whether a row that is no event fails the import (unless told), or is skipped and reported
 * - `batchSize`: events in one append, 1,000 unless told; fewer where they are large
 * - `maxPayloadBytes`: a larger payload is invalid and not even read, 16 MiB unless told; the ledger has its own limit too
 * - `onProgress`: done after each batch
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  readonly after?: number | undefined
  readonly onInvalid?: "fail" | "skip" | undefined
  readonly batchSize?: number | undefined
  readonly maxPayloadBytes?: number | undefined
  readonly onProgress?: ((progress: Imported) => Effect.Effect<void>) | undefined
}

/**
 * What was imported, so far or in all. Each row is counted once: `appended`, as `duplicates` (the id was recorded with the
 * same content), as `divergent` (with other content, which stands) or as `invalid`. The counts are exact; the lists hold
 * the first 100. `offset` is the last of the ancestor's offsets that was dealt with, `head` the last that there was when
 * the import began; they may have holes, and the ledger gives its own.
 *
 * @since 0.1.0
 * @category models
 */
export interface Imported {
  readonly offset: number
  readonly head: number
  readonly appended: number
  readonly duplicates: number
  readonly divergent: number
  readonly invalid: number
  readonly divergentIds: ReadonlyArray<string>
  readonly invalidRows: ReadonlyArray<{ readonly offset: number; readonly reason: string }>
}

/**
 * Appends the events of the ancestor's database to the ledger, in the order of their offsets, in batches. The URL has any
 * form that `DATABASE_URL` may have. The database is only read: a SQLite file is never created, Postgres is asked in a
 * READ ONLY transaction.
 *
 * An id that is recorded already is counted and not written, so an import that was cut off is repeated as it is. A row
 * that is no event fails with `CorruptEvent`, its offset and the column, once the rows before it are recorded, or is
 * skipped and reported. Times become milliseconds; one without a zone is UTC. Constant memory.
 *
 * Fails with `IncompatibleStore` when the table `events` is not the ancestor's.
 *
 * @example
 * ```ts
 * import { Ancestor, LedgerConfig } from "effect-ledger"
 * import { Console, Effect, Redacted } from "effect"
 *
 * export const migrate = Ancestor.importFrom(Redacted.make("sqlite:///runs/old.db"), {
 *   onProgress: ({ head, offset }) => Console.log(`${offset} of ${head}`)
 * }).pipe(Effect.provide(LedgerConfig.layer))
 * ```
 *
 * @since 0.1.0
 * @category import
 */
export const importFrom: (
  url: Redacted.Redacted,
  options?: Options
) => Effect.Effect<
  Imported,
  ConfigError.ConfigError | DriverMissing | IncompatibleStore | CorruptEvent | StoreError,
  Ledger
> = Effect.fn("Ancestor.importFrom")(
  function*(url: Redacted.Redacted, options: Options = {}) {
    const ledger = yield* Ledger
    const backend = yield* Backend.parseUrl(url)
    return yield* Effect.scoped(Effect.flatMap(open(backend), (source) => importAll(ledger, source, options)))
  }
)

const open = (
  backend: Backend.Backend
): Effect.Effect<
  Source,
  ConfigError.ConfigError | DriverMissing | IncompatibleStore | StoreError,
  Scope.Scope
> => {
  if (backend._tag === "Postgres") {
    return Effect.flatMap(
      Backend.load(() => import("./internal/ancestorPg.js"), "@effect/sql-pg"),
      (module) => module.open(backend.url)
    )
  }
  if (backend._tag === "Memory" || backend.filename === ":memory:") {
    return Either.left(
      ConfigError.InvalidData([], "what is in memory holds no ancestor's events: name a file or a server")
    )
  }
  const { filename } = backend
  return Effect.flatMap(
    Backend.load(() => import("./internal/ancestorSqlite.js"), "@effect/sql-sqlite-node"),
    (module) => module.open(filename)
  )
}

const importAll = Effect.fnUntraced(function*(
  ledger: Parameters<typeof Importer.make>[0]["ledger"],
  source: Source,
  options: Options
): Effect.fn.Return<Imported, CorruptEvent | StoreError> {
  const { maxPayloadBytes = 2 ** 24, onProgress } = options
  const head = yield* source.head
  const importer = Importer.make({
    ledger,
    batchSize: options.batchSize,
    refuse: options.onInvalid === "skip" ? undefined : (offset, reason) => new CorruptEvent({ offset, reason }),
    progress: (tally) => onProgress === undefined ? Effect.void : onProgress(toImported(tally, head))
  })
  const pages = Effect.gen(function*() {
    // a row of the ancestor's may stand at any offset; those that are written meanwhile are for the next import
    let after = options.after ?? Number.MIN_SAFE_INTEGER
    const next = () => Effect.map(source.sizes(after), (sizes) => sizes.filter(([offset]) => offset <= head))
    for (let sizes = yield* next(); sizes.length > 0; sizes = yield* next()) {
      for (const page of cut(sizes, maxPayloadBytes)) {
        yield* importer.add(
          page.bytes > maxPayloadBytes
            ? [{ place: page.through, reason: `payload: is larger than ${maxPayloadBytes} bytes` }]
            : items(yield* source.rows(after, page.through), page.bytes)
        )
        after = page.through
      }
    }
  })
  yield* pages.pipe(
    Effect.zipRight(importer.flush),
    // what came before the damage
    Effect.tapError(() => importer.flush)
  )
  return toImported(importer.tally(), head)
})

interface Page {
  readonly through: number
  readonly bytes: number
}

/** Pages of a bounded size; a row that is over the limit has one to itself. */
function* cut(sizes: ReadonlyArray<readonly [number, number]>, maxBytes: number): Generator<Page> {
  let page: Page | undefined
  for (const [offset, bytes] of sizes) {
    if (page !== undefined && page.bytes + bytes > Math.min(pageBytes, maxBytes)) {
      yield page
      page = undefined
    }
    page = { through: offset, bytes: (page?.bytes ?? 0) + bytes }
  }
  if (page !== undefined) yield page
}

const pageBytes = 2 ** 22

function* items(rows: ReadonlyArray<AncestorRow>, bytes: number): Generator<Importer.Item> {
  const size = bytes / rows.length
  for (const row of rows) {
    const place = Number(row[0])
    const event = decode(row)
    yield typeof event === "string" ? { place, reason: event } : { place, event, size }
  }
}

const decode = (row: AncestorRow): Event | string => {
  const { offset: _, payload, ...fields } = Object.fromEntries(columns.map((column, index) => [column, row[index]]))
  const object = typeof payload === "string" ? parseJson(payload) : new JsonRefusal("expected JSON text")
  if (object instanceof JsonRefusal) return `payload: ${object.reason}`
  const event = eventOf({ ...fields, payload: object }, undefined)
  return event instanceof FieldIssue ? `${event.path}: ${event.reason}` : event
}

const toImported = ({ place, refused, ...counts }: Importer.Tally, head: number): Imported => ({
  offset: place,
  head,
  ...counts,
  invalidRows: refused.map(({ place, reason }) => ({ offset: place, reason }))
})

/** The store in memory. It keeps the same rows as the databases do, so that nothing can come back but what was checked. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import { ConsumerStore } from "../ConsumerStore.js"
import {
  type AppendGroup,
  type GroupResult,
  type Head,
  LedgerStore,
  type Outcome,
  type Row,
  type StoredRow
} from "../LedgerStore.js"
import { matches } from "./filter.js"
import * as memoryConsumerStore from "./memoryConsumerStore.js"
import { pushColumns, sameContent } from "./row.js"

/** The store whose transaction the fiber is in. */
class Transaction extends Context.Tag("effect-ledger/internal/Transaction")<Transaction, object>() {}

export const make = (): Context.Context<LedgerStore | ConsumerStore> => {
  let incarnation = randomUUID() as string
  let lineage: ReadonlyArray<Head> = []
  let rows: Array<Row> = []
  let offsets = new Map<string, number>()
  let runs = new Map<string, Array<number>>()

  const outcome = (row: Row): Outcome | undefined => {
    const offset = offsets.get(row.id)
    return offset === undefined
      ? undefined
      : { offset, status: sameContent(rows[offset - 1]!, row) ? "identical" : "divergent" }
  }

  const append = ({ condition, rows: group }: AppendGroup): GroupResult => {
    const known = group.map(outcome)
    if (condition !== undefined && known.includes(undefined)) {
      if (condition.after > rows.length) return { _tag: "Refused", offset: rows.length }
      const repeated = new Set(known.map((one) => one?.status === "identical" ? one.offset : undefined))
      for (let offset = condition.after + 1; offset <= rows.length; offset++) {
        if (!repeated.has(offset) && condition.noneMatch.some((filter) => matches(filter, rows[offset - 1]!))) {
          return { _tag: "Refused", offset }
        }
      }
    }
    return {
      _tag: "Written",
      outcomes: group.map((row, index) => {
        if (known[index] !== undefined) return known[index]
        const offset = rows.push(row)
        offsets.set(row.id, offset)
        const run = runs.get(row.runId)
        if (run === undefined) runs.set(row.runId, [offset])
        else run.push(offset)
        return { offset, status: "appended" }
      })
    }
  }

  /** What everybody but the open transaction sees of the log. */
  let committed: View | undefined
  const settles: Array<(committed: boolean) => void> = []
  const turns = Effect.unsafeMakeSemaphore(1)
  const self = {}

  const isInside = (context: Context.Context<never>): boolean => context.unsafeMap.get(Transaction.key) === self
  const view = <A>(body: (view: View) => A): Effect.Effect<A> =>
    Effect.withFiberRuntime((fiber) =>
      Effect.sync(() =>
        body(
          committed === undefined || isInside(fiber.currentContext)
            ? { incarnation, lineage, rows, offsets, runs, length: rows.length }
            : committed
        )
      )
    )
  /** At once where no transaction is open, and after it elsewhere. */
  const change = <A>(body: () => A): Effect.Effect<A> =>
    Effect.withFiberRuntime((fiber) =>
      committed === undefined || isInside(fiber.currentContext)
        ? Effect.sync(body)
        : turns.withPermits(1)(Effect.sync(body))
    )
  const rollBack = ({ length, ...before }: View): void => {
    incarnation = before.incarnation
    lineage = before.lineage
    rows = before.rows
    offsets = before.offsets
    runs = before.runs
    for (const { id, runId } of rows.splice(length).toReversed()) {
      offsets.delete(id)
      const run = runs.get(runId)!
      run.pop()
      if (run.length === 0) runs.delete(runId)
    }
  }

  const store: Context.Tag.Service<LedgerStore> = {
    append: Object.assign(
      (groups: ReadonlyArray<AppendGroup>) => change(() => groups.map(append)),
      {
        direct: (
          groups: ReadonlyArray<AppendGroup>,
          done: (exit: Exit.Exit<ReadonlyArray<GroupResult>> | undefined) => void
        ) => done(committed === undefined ? Exit.succeed(groups.map(append)) : undefined)
      }
    ),
    page: ({ after, backward, filters, limit, through }) =>
      view(({ incarnation, length, rows, runs }) => {
        const page: Array<StoredRow> = []
        const last = Math.min(through, length)
        const run = filters.length === 1 && filters[0]!.runId !== undefined
          ? runs.get(filters[0]!.runId) ?? []
          : undefined
        const low = run === undefined ? after : search(run, after)
        const high = run === undefined ? last : search(run, last)
        for (let n = 0; n < high - low && page.length < limit; n++) {
          const place = backward ? high - 1 - n : low + n
          const offset = run === undefined ? place + 1 : run[place]!
          const row = rows[offset - 1]!
          if (filters.length === 0 || filters.some((filter) => matches(filter, row))) page.push(stored(offset, row))
        }
        return {
          incarnation,
          head: length,
          digest: after <= length ? rows[after - 1]?.digest ?? null : null,
          rows: page,
          next: page.length < limit ? null : page[page.length - 1]![0] as number
        }
      }),
    readsAhead: false,
    get: (id) =>
      view(({ length, offsets, rows }) => {
        const offset = offsets.get(id)
        return offset === undefined || offset > length
          ? Option.none()
          : Option.some(stored(offset, rows[offset - 1]!))
      }),
    runs: view(({ length, runs }) => Array.from(runs).flatMap(([id, own]) => own[0]! <= length ? [id] : [])),
    head: view(({ incarnation, length, rows }) => ({
      incarnation,
      offset: length,
      digest: rows[length - 1]?.digest ?? null
    })),
    reset: change(() => {
      incarnation = randomUUID()
      lineage = []
      rows = []
      offsets = new Map()
      runs = new Map()
    }),
    lineage: view(({ lineage }) => lineage),
    incarnate: (given) =>
      change((): Head => {
        const end = { offset: rows.length, digest: rows[rows.length - 1]?.digest ?? null }
        lineage = given ?? [{ incarnation, ...end }, ...lineage]
        incarnation = randomUUID()
        return { incarnation, ...end }
      }),
    digests: (after, through) =>
      view(({ length, rows }) =>
        rows.slice(after, Math.min(through, length)).map((row, index) => [after + index + 1, row.digest] as const)
      ),
    inspect: Effect.succeed([]),
    location: Effect.succeed({ key: null, file: null }),
    // its only writer is the ledger above it, which knows
    changes: Stream.never,
    inTransaction: Effect.withFiberRuntime((fiber) => Effect.succeed(isInside(fiber.currentContext))),
    transaction: (effect) =>
      Effect.withFiberRuntime((fiber) =>
        isInside(fiber.currentContext) ? effect : turns.withPermits(1)(Effect.acquireUseRelease(
          Effect.sync(() => committed = { incarnation, lineage, rows, offsets, runs, length: rows.length }),
          () => Effect.provideService(effect, Transaction, self),
          (before, exit) =>
            Effect.sync(() => {
              const isCommitted = Exit.isSuccess(exit)
              if (!isCommitted) rollBack(before)
              committed = undefined
              for (const settle of settles.splice(0).toReversed()) settle(isCommitted)
            })
        ))
      )
  }
  const consumers = memoryConsumerStore.make((settle) =>
    Effect.withFiberRuntime((fiber) =>
      Effect.sync(() => {
        if (isInside(fiber.currentContext)) settles.push(settle)
        else settle(true)
      })
    )
  )
  return Context.make(LedgerStore, store).pipe(Context.add(ConsumerStore, consumers))
}

interface View {
  readonly incarnation: string
  readonly lineage: ReadonlyArray<Head>
  readonly rows: Array<Row>
  readonly offsets: Map<string, number>
  readonly runs: Map<string, Array<number>>
  readonly length: number
}

/** How many of the sorted offsets are at or below `offset`. */
const search = (sorted: ReadonlyArray<number>, offset: number): number => {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (sorted[middle]! <= offset) low = middle + 1
    else high = middle
  }
  return low
}

const stored = (offset: number, row: Row): StoredRow => pushColumns([offset], row)

/** The store in memory. It keeps the same rows as the databases do, so that nothing can come back but what was checked. */
import type { Context } from "effect"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import type { AppendGroup, GroupResult, LedgerStore, Outcome, Row, StoredRow } from "../LedgerStore.js"
import { matches } from "./filter.js"
import { columnsOf, sameContent } from "./row.js"

export const make = (): Context.Tag.Service<LedgerStore> => {
  let incarnation = randomUUID() as string
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

  return {
    append: (groups) => Effect.sync(() => groups.map(append)),
    page: ({ after, backward, filters, limit, through }) =>
      Effect.sync(() => {
        const page: Array<StoredRow> = []
        const last = Math.min(through, rows.length)
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
          head: rows.length,
          rows: page,
          next: page.length < limit ? null : page[page.length - 1]![0] as number
        }
      }),
    get: (id) =>
      Effect.sync(() => {
        const offset = offsets.get(id)
        return offset === undefined ? Option.none() : Option.some(stored(offset, rows[offset - 1]!))
      }),
    runs: Effect.sync(() => Array.from(runs.keys())),
    head: Effect.sync(() => ({ incarnation, offset: rows.length, digest: rows[rows.length - 1]?.digest ?? null })),
    reset: Effect.sync(() => {
      incarnation = randomUUID()
      rows = []
      offsets = new Map()
      runs = new Map()
    }),
    // its only writer is the ledger above it, which knows
    changes: Stream.never,
    inTransaction: Effect.succeed(false)
  }
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

const stored = (offset: number, row: Row): StoredRow => [offset, ...columnsOf(row)]

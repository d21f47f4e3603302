/** Writes what is imported to a ledger, in batches, in order, and counts what became of it. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Event } from "../Event.js"
import type { Ledger } from "../Ledger.js"
import type { StoreError } from "../LedgerError.js"

/** An event with its place in what is imported, or why there is none at that place. `size` is what it weighs. */
export type Item =
  | { readonly place: number; readonly event: Event; readonly size: number }
  | { readonly place: number; readonly reason: string }

export interface Tally {
  /** The last place that was dealt with. */
  readonly place: number
  readonly appended: number
  readonly duplicates: number
  readonly divergent: number
  readonly invalid: number
  readonly divergentIds: ReadonlyArray<string>
  readonly refused: ReadonlyArray<{ readonly place: number; readonly reason: string }>
}

export interface Options<E> {
  readonly ledger: Context.Tag.Service<Ledger>
  readonly batchSize: number | undefined
  /** What to fail with at a place where there is no event; `undefined` counts it and goes on. */
  readonly refuse: ((place: number, reason: string) => E) | undefined
  /** After each batch. */
  readonly progress: (tally: Tally) => Effect.Effect<void>
}

export interface Importer<E> {
  /** What came before an item that is refused is still to be flushed then, as it is when whatever gives the items fails. */
  readonly add: (items: Iterable<Item>) => Effect.Effect<void, StoreError | E>
  /** Writes what is not yet written. */
  readonly flush: Effect.Effect<void, StoreError | E>
  readonly tally: () => Tally
}

export const make = <E>({ batchSize = 1000, ledger, progress, refuse }: Options<E>): Importer<E> => {
  const divergentIds: Array<string> = []
  const refused: Array<{ readonly place: number; readonly reason: string }> = []
  const counts = { place: 0, appended: 0, duplicates: 0, divergent: 0, invalid: 0 }
  const tally = (): Tally => ({ ...counts, divergentIds: divergentIds.slice(), refused: refused.slice() })
  let pending: Array<Item> = []
  let size = 0

  const count = (items: ReadonlyArray<Item>): void => {
    for (const item of items) {
      counts.place = item.place
      if ("event" in item) continue
      counts.invalid++
      if (refused.length < maxListed) refused.push(item)
    }
  }

  const write = (items: ReadonlyArray<Item>): Effect.Effect<void, StoreError | E> => {
    const places: Array<number> = []
    const events = items.flatMap((item, place) => {
      if (!("event" in item)) return []
      places.push(place)
      return [item.event]
    })
    return Effect.matchEffect(events.length === 0 ? Effect.succeed([]) : ledger.appendAll(events), {
      onSuccess: (receipts) => {
        for (const receipt of receipts) {
          if (receipt._tag === "Appended") counts.appended++
          else if (receipt.identical) counts.duplicates++
          else {
            counts.divergent++
            if (divergentIds.length < maxListed) divergentIds.push(receipt.id)
          }
        }
        count(items)
        return Effect.void
      },
      onFailure: (error): Effect.Effect<void, StoreError | E> => {
        if (error._tag !== "InvalidEvent") return Effect.fail(error)
        // the ledger has limits of its own, such as that of its payloads; nothing of the batch was written
        const at = places[error.index] as number
        const { place } = items[at] as Item
        const item = { place, reason: `${error.path}: ${error.reason}` }
        return refuse === undefined
          ? write(items.with(at, item))
          : Effect.zipRight(write(items.slice(0, at)), Effect.fail(refuse(place, item.reason)))
      }
    })
  }

  const flush = Effect.suspend((): Effect.Effect<void, StoreError | E> => {
    if (pending.length === 0) return Effect.void
    const items = pending
    pending = []
    size = 0
    return Effect.zipRight(write(items), Effect.suspend(() => progress(tally())))
  })

  const add = Effect.fnUntraced(function*(items: Iterable<Item>): Effect.fn.Return<void, StoreError | E> {
    for (const item of items) {
      if (!("event" in item) && refuse !== undefined) return yield* Effect.fail(refuse(item.place, item.reason))
      pending.push(item)
      size += "event" in item ? item.size : 0
      if (pending.length >= batchSize || size >= maxBatchLength) yield* flush
    }
  })

  return { add, flush, tally }
}

/** How many divergent ids and invalid places are listed; all are counted. */
const maxListed = 100

// what one write may weigh, in bytes or characters of what it came from
const maxBatchLength = 2 ** 22

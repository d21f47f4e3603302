/**
 * The last events of the log, as far as they were read, kept at hand. Whoever reads them asks the store in the same call
 * whether they are still what it holds, so they are never stale.
 */
import type { Json, JsonObject, RecordedEvent } from "../Event.js"
import type { Page, StoredRow } from "../LedgerStore.js"
import { digestOf, eventOf, offsetOf } from "./row.js"

export interface Suffix {
  /** Whether it can give the next event after the offset. */
  readonly covers: (after: number) => boolean
  readonly end: () => number
  /** Whether the page, asked for after the end, is of the same log. */
  readonly continues: (page: Page) => boolean
  /** Keeps the first rows of a page, those that are events, one after the other without a hole, if the head is near. */
  readonly keep: (incarnation: string, head: number, rows: ReadonlyArray<StoredRow>, count: number) => void
  /** The events after an offset, up to another, made anew for each who asks. */
  readonly slice: (after: number, through: number) => Array<RecordedEvent>
  readonly drop: () => void
}

interface Kept {
  readonly row: StoredRow
  /** Parsed when it is first asked for, and never given away. */
  payload: JsonObject | undefined
}

export const make = (maxBytes: number): Suffix => {
  let incarnation = ""
  /** The offset before the first. */
  let base = 0
  let kept: Array<Kept> = []
  let bytes = 0
  let digest: string | undefined

  const drop = (): void => {
    kept = []
    bytes = 0
    digest = undefined
  }

  return {
    covers: (after) => after >= base && after < base + kept.length,
    end: () => base + kept.length,
    continues: (page) => {
      const last = kept[kept.length - 1]
      if (last === undefined || page.incarnation !== incarnation) return false
      digest ??= digestOf(last.row)
      return page.digest === digest
    },
    keep: (of, head, rows, count) => {
      if (count === 0 || maxBytes === 0) return
      const first = offsetOf(rows[0] as StoredRow)
      // who reads a long log would keep and drop all of it on the way
      if (head - first - count > maxBytes / leastSize) return
      const end = base + kept.length
      if (of !== incarnation || first > end + 1) {
        // what lies nearer to the head is worth more
        if (of === incarnation && first + count <= end) return
        drop()
        incarnation = of
        base = first - 1
      } else if (first <= base) return
      for (let index = base + kept.length + 1 - first; index < count; index++) {
        const row = rows[index] as StoredRow
        kept.push({ row, payload: undefined })
        bytes += sizeOf(row)
        digest = undefined
      }
      if (bytes <= maxBytes) return
      // to half, so that it is not done for every page
      let from = 0
      for (; bytes > maxBytes / 2; from++) bytes -= sizeOf((kept[from] as Kept).row)
      kept = kept.slice(from)
      base += from
    },
    slice: (after, through) =>
      kept.slice(after - base, Math.max(after, through) - base).map((one) =>
        eventOf(one.row, copy(one.payload ??= JSON.parse(one.row[6] as string) as JsonObject) as JsonObject)
      ),
    drop
  }
}

/** About what an event takes in memory, with its columns, its payload as text, and as an object. */
const sizeOf = (row: StoredRow): number => leastSize + String(row[6]).length * 3

const leastSize = 600

/** Faster than parsing the text again. */
const copy = (value: Json): Json => {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map(copy)
  const object: Record<string, Json> = {}
  for (const key in value) object[key] = copy((value as JsonObject)[key] as Json)
  return object
}

/** Reads a whole log and compares it with its digests. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { createHash } from "node:crypto"
import { LedgerReplaced, type StoreError, StoreFailure } from "../LedgerError.js"
import type { Head, LedgerStore, Page, PageRequest, Problem, Row } from "../LedgerStore.js"
import { canonicalEvent, sha256 } from "./digest.js"
import { contentOf, decode, offsetOf } from "./row.js"

type Store = Context.Tag.Service<LedgerStore>

export interface Options {
  readonly onProgress?:
    | ((progress: { readonly checked: number; readonly total: number }) => Effect.Effect<void>)
    | undefined
}

export interface Report extends Seen {
  readonly head: number
  readonly count: number
  readonly problems: ReadonlyArray<Problem>
}

/** What a scan saw. */
export interface Seen {
  readonly checked: number
  readonly bytes: number
  readonly digest: string
}

export interface ScanOptions<E> {
  /** Up to where. */
  readonly head: Head
  /** After each page, with its rows that are events and have their digest. `after` is the last offset that was dealt with. */
  readonly onPage: (rows: ReadonlyArray<Row>, after: number) => Effect.Effect<void, E>
  readonly onProblem: (offset: number, what: string) => Effect.Effect<void, E>
}

/** Every row up to the head, page by page. What cannot be read is narrowed down to its rows, and the rest goes on. */
export const scan = Effect.fnUntraced(function*<E>(
  store: Store,
  { head, onPage, onProblem }: ScanOptions<E>
): Effect.fn.Return<Seen, E | LedgerReplaced | StoreError> {
  const all = createHash("sha256")
  let checked = 0
  let bytes = 0
  let after = 0
  /** The last offset that could be read: pages begin there, as a page also asks for the digest at its beginning. */
  let readable = 0
  let unreadable = 0
  let limit = pageRows
  while (after < head.offset) {
    const single = readable < after
    const read = yield* Effect.either(pageOf(
      store,
      single
        ? { filters: [], after: readable, through: after + 1, backward: true, limit: 1 }
        : { filters: [], after, through: head.offset, backward: false, limit }
    ))
    if (Either.isLeft(read)) {
      if (!(read.left instanceof StoreFailure)) return yield* read.left
      if (!single && limit > 1) {
        limit = limit >> 1
        continue
      }
      yield* onProblem(after + 1, read.left.message)
      after++
      limit = 1
      if (++unreadable === maxUnreadable) {
        yield* onProblem(after + 1, "nothing is read from here on: too much before it cannot be")
        break
      }
      continue
    }
    const { digests, page } = read.right
    if (page.incarnation !== head.incarnation) {
      return yield* new LedgerReplaced({ expected: head.incarnation, found: page.incarnation, head: page.head })
    }
    unreadable = 0
    const sound: Array<Row> = []
    let expected = after + 1
    const problems: Array<readonly [number, string]> = []
    for (const row of page.rows) {
      const offset = offsetOf(row)
      if (offset < expected) continue
      if (offset > expected) problems.push(missing(expected, offset - 1))
      expected = offset + 1
      checked++
      const event = decode(row)
      if (typeof event === "string") {
        problems.push([offset, event])
        continue
      }
      const content = contentOf(row)
      const json = canonicalEvent(content)
      const digest = sha256(json)
      bytes += Buffer.byteLength(json)
      all.update(digest, "hex")
      if (digests.get(offset) === digest) sound.push({ ...content, digest })
      else problems.push([offset, "is not what its digest was made of"])
    }
    const through = single ? after + 1 : page.next ?? head.offset
    if (expected <= through) problems.push(missing(expected, through))
    if (problems.length > 0) {
      // between a page and its digests the log may have been reset
      const { incarnation, offset } = yield* store.head
      if (incarnation !== head.incarnation) {
        return yield* new LedgerReplaced({ expected: head.incarnation, found: incarnation, head: offset })
      }
      for (const [offset, what] of problems) yield* onProblem(offset, what)
    }
    after = through
    readable = after
    limit = Math.min(pageRows, limit * 2)
    yield* onPage(sound, after)
    // SQLite answers at once: others have their turn
    yield* breathe
  }
  return { checked, bytes, digest: all.digest("hex") }
})

export const run = Effect.fnUntraced(function*(
  store: Store,
  { onProgress }: Options
): Effect.fn.Return<Report, LedgerReplaced | StoreError> {
  const problems: Array<Problem> = []
  let count = 0
  const report = (problem: Problem): void => {
    if (count++ < maxListed) problems.push(problem)
  }
  const orReport = <A>(effect: Effect.Effect<A, StoreError>, fallback: A): Effect.Effect<A, StoreError> =>
    Effect.catchTag(effect, "StoreFailure", (failure) =>
      Effect.sync(() => {
        report({ offset: null, what: failure.message })
        return fallback
      }))
  const head = yield* orReport(store.head, { incarnation: "", offset: 0, digest: null })
  const seen = yield* scan(store, {
    head,
    onPage: (_, after) => onProgress === undefined ? Effect.void : onProgress({ checked: after, total: head.offset }),
    onProblem: (offset, what) => Effect.sync(() => report({ offset, what }))
  })
  for (const problem of yield* orReport(store.inspect, [])) report(problem)
  return { head: head.offset, ...seen, count, problems }
})

interface Read {
  readonly page: Page
  readonly digests: ReadonlyMap<number, string | null>
}

/** A page, and the stored digests of its rows. */
const pageOf = (store: Store, request: PageRequest): Effect.Effect<Read, StoreError> =>
  Effect.flatMap(store.page(request), (page) => {
    const [first, last] = [page.rows[0], page.rows[page.rows.length - 1]]
    return first === undefined || last === undefined
      ? Effect.succeed({ page, digests: new Map<number, string | null>() })
      : Effect.map(
        store.digests(offsetOf(first) - 1, offsetOf(last)),
        (digests) => ({ page, digests: new Map(digests) })
      )
  })

const missing = (first: number, last: number): readonly [number, string] => [
  first,
  first === last ? "the row is missing" : `the rows up to ${last} are missing`
]

const breathe = Effect.async<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

const pageRows = 1000
/** In a row, before no more is tried. */
const maxUnreadable = 10_000
const maxListed = 1000

/** How long somebody waited, and for what. */

/** From when on, and how long, in microseconds. */
export type Wait = readonly [at: number, wait: number]

/** A time in which something else than the ledger made others wait. */
export type Span = readonly [from: number, to: number]

/** The longest, in milliseconds, each without the parts of it that lie in one of the spans. */
export const longest = (waits: ReadonlyArray<Wait>, spans: ReadonlyArray<Span> = []): number => {
  const apart = merged(spans)
  const own = ([at, wait]: Wait): number =>
    apart.reduce((left, [from, to]) => left - Math.max(0, Math.min(at + wait, to) - Math.max(at, from)), wait)
  return Math.round(waits.reduce((most, wait) => Math.max(most, wait[1] > most ? own(wait) : 0), 0) / 1000)
}

/** What overlaps is one. */
const merged = (spans: ReadonlyArray<Span>): ReadonlyArray<Span> => {
  const apart: Array<Span> = []
  for (const [from, to] of spans.toSorted((a, b) => a[0] - b[0])) {
    const last = apart.at(-1)
    if (last === undefined || from > last[1]) apart.push([from, to])
    else apart[apart.length - 1] = [last[0], Math.max(last[1], to)]
  }
  return apart
}

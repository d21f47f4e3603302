/** How long calls took, kept for as long as nobody has asked. */

/** Milliseconds. */
export interface Took {
  readonly count: number
  readonly median: number
  readonly p99: number
  readonly longest: number
}

export interface Times {
  readonly note: (what: string, millis: number) => void
  /** What was noted since the last time, of each kind. */
  readonly take: () => Readonly<Record<string, Took>>
}

export const make = (): Times => {
  const noted = new Map<string, Array<number>>()
  return {
    note: (what, millis) => {
      const times = noted.get(what)
      if (times === undefined) noted.set(what, [millis])
      else times.push(millis)
    },
    take: () => {
      const took = Object.fromEntries(Array.from(noted, ([what, times]) => [what, tookOf(times)]))
      noted.clear()
      return took
    }
  }
}

const tookOf = (times: ReadonlyArray<number>): Took => {
  const sorted = times.toSorted((a, b) => a - b)
  const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? 0
  return { count: sorted.length, median: at(0.5), p99: at(0.99), longest: at(1) }
}

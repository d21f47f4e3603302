/** Times, and what is said of several. */

/** What several rounds gave. */
export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

export const spread = (values: ReadonlyArray<number>): Spread => {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (index: number) => sorted[index] ?? Number.NaN
  return { median: at(sorted.length >> 1), min: at(0), max: at(sorted.length - 1) }
}

/** Milliseconds. */
export const clock = async (body: () => unknown): Promise<number> => {
  const started = performance.now()
  await body()
  return performance.now() - started
}

/**
 * The checker: given all that was attempted and answered, the final log, and what each reader saw, it lists what a ledger
 * must never do. Pure, and linear in the events but for the conditions, which are binary searches.
 *
 * Times are whole microseconds of one monotonic clock that all processes of the machine share. They are rounded down, so
 * that "a before b" is claimed only where it is certain.
 */

/** An event as it was attempted. `content` stands for every field but `createdAt`. */
export interface Attempted {
  readonly id: string
  readonly runId: string
  readonly content: string
}

/** What an append answered for one event. */
export interface Receipt {
  readonly offset: number
  readonly status: "appended" | "identical" | "divergent"
}

/** `unknown`: it failed, or nobody lived to tell; the events may be recorded. `refused`: they are certainly not. */
export type Outcome =
  | { readonly _tag: "ok"; readonly at: number; readonly receipts: ReadonlyArray<Receipt> }
  | { readonly _tag: "refused"; readonly at: number; readonly by: number | undefined }
  | { readonly _tag: "unknown"; readonly at: number | undefined }

/** One attempt. It is repeated under the same `key`, with the same events. */
export interface Operation {
  /** Who does one operation after the other, and each until its outcome is known. */
  readonly lane: string
  readonly key: string
  readonly invokedAt: number
  readonly events: ReadonlyArray<Attempted>
  /** No event of this run after the offset. */
  readonly condition: { readonly runId: string; readonly after: number } | undefined
  /** Of the operations that decide the same, one may win. */
  readonly decision: string | undefined
  readonly outcome: Outcome
}

/** An event of the final log. `stored` stands for every field. */
export interface Recorded extends Attempted {
  readonly offset: number
  readonly stored: string
}

export interface Seen {
  readonly offset: number
  readonly id: string
  readonly stored: string
}

export interface Subscriber {
  readonly name: string
  readonly seen: ReadonlyArray<Seen>
}

/** An event that a consumer's handler was given. */
export interface Handled extends Seen {
  readonly at: number
}

/** What consumers of one name that runs at least once have handled. */
export interface Consumed {
  readonly name: string
  /** How many events at most share a checkpoint. */
  readonly batch: number
  /** From each time that a process got the lease until it gave it up, or died. */
  readonly tenures: ReadonlyArray<ReadonlyArray<Handled>>
}

/** A look at the head. */
export interface HeadRead {
  readonly invokedAt: number
  readonly at: number
  readonly head: number
}

export interface History {
  readonly operations: ReadonlyArray<Operation>
  readonly log: ReadonlyArray<Recorded>
  readonly subscribers: ReadonlyArray<Subscriber>
  /** What stands in the tables of handlers that run exactly once, in the order in which it was written. */
  readonly exactlyOnce: ReadonlyArray<Subscriber>
  readonly atLeastOnce: ReadonlyArray<Consumed>
  readonly heads: ReadonlyArray<HeadRead>
}

/**
 * - `hole`: the log's offsets are not 1, 2, 3, …
 * - `twice`: an id stands in the log twice, or two attempts were told that it was theirs that appended it
 * - `lost`: an acknowledged event is not in the log
 * - `content`: the log, or a receipt, says something else than what was attempted
 * - `moved`: an event stands at another offset than a receipt said
 * - `phantom`: nobody attempted an event of the log
 * - `present`: what was refused is in the log
 * - `torn`: a part of a batch is in the log, or a look at the head fell in the middle of one
 * - `laneOrder`: what one lane appended in sequence is recorded in another
 * - `realTime`: an append that began after another was acknowledged has the smaller offset
 * - `condition`: a condition did not hold where it was written, or a decision has two winners
 * - `refusal`: a condition was refused by an event that does not contradict it: of another run, or not after the offset
 * - `staleHead`: a look at the head missed what had been acknowledged, or showed what nobody had attempted yet
 * - `subscriberHole`, `subscriberRepeat`, `subscriberOrder`, `subscriberContent`, `subscriberShort`: a subscriber's view is
 *   not the log: it skips, repeats, goes back, differs, or ends before the log's end
 * - `exactlyOnceHole`, `…Repeat`, `…Order`, `…Content`, `…Short`: the same of a table that a handler writes exactly once
 * - `atLeastOnceHole`: an event was handled before all that are before it had been
 * - `atLeastOnceOrder`: a process went back while it had the lease
 * - `atLeastOnceRepeat`: a process did again what had been done long before it got the lease, for more than one batch (the
 *   one in its hands when the lease is lost)
 * - `atLeastOnceContent`, `atLeastOnceShort`: what was handled is not what is in the log, or not all of it
 */
export type Kind =
  | "hole"
  | "twice"
  | "lost"
  | "content"
  | "moved"
  | "phantom"
  | "present"
  | "torn"
  | "laneOrder"
  | "realTime"
  | "condition"
  | "refusal"
  | "staleHead"
  | `${View}${"Hole" | "Repeat" | "Order" | "Content" | "Short"}`

type View = "subscriber" | "exactlyOnce" | "atLeastOnce"

export interface Violation {
  readonly kind: Kind
  readonly detail: string
}

/** Everything that is wrong, at most `limit` of each kind. */
export const check = (history: History, limit = 20): ReadonlyArray<Violation> => {
  const violations: Array<Violation> = []
  const counts = new Map<Kind, number>()
  const report = (kind: Kind, detail: string): void => {
    const count = (counts.get(kind) ?? 0) + 1
    counts.set(kind, count)
    if (count <= limit) violations.push({ kind, detail })
  }
  const facts = gather(history)
  checkLog(history, facts, report)
  checkReceipts(history, facts, report)
  checkBatches(history, facts, report)
  checkLanes(history, facts, report)
  checkRealTime(history, facts, report)
  checkConditions(history, facts, report)
  checkHeads(history, facts, report)
  const byOffset = new Map(history.log.map((recorded) => [recorded.offset, recorded]))
  for (const subscriber of history.subscribers) checkView("subscriber", subscriber, byOffset, report)
  for (const table of history.exactlyOnce) checkView("exactlyOnce", table, byOffset, report)
  for (const consumed of history.atLeastOnce) checkConsumed(consumed, byOffset, report)
  for (const [kind, count] of counts) {
    if (count > limit) violations.push({ kind, detail: `and ${count - limit} more` })
  }
  return violations
}

type Report = (kind: Kind, detail: string) => void

/** What is known of an id from all its attempts. */
interface Fact {
  readonly content: string
  invokedAt: number
  /** When it was acknowledged first; Infinity: never. */
  acknowledgedAt: number
  /** Whether an attempt of it may have been written. */
  possible: boolean
  /** Whose it is; undefined when several have attempted it. */
  lane: string | undefined
  key: string | undefined
}

interface Facts {
  readonly attempted: ReadonlyMap<string, Fact>
  readonly places: ReadonlyMap<string, Recorded>
}

const gather = ({ log, operations }: History): Facts => {
  const attempted = new Map<string, Fact>()
  for (const { events, invokedAt, key, lane, outcome } of operations) {
    const acknowledgedAt = outcome._tag === "ok" ? outcome.at : Infinity
    const possible = outcome._tag !== "refused"
    for (const { content, id } of events) {
      const fact = attempted.get(id)
      if (fact === undefined) {
        attempted.set(id, { content, invokedAt, acknowledgedAt, possible, lane, key })
        continue
      }
      fact.invokedAt = Math.min(fact.invokedAt, invokedAt)
      fact.acknowledgedAt = Math.min(fact.acknowledgedAt, acknowledgedAt)
      fact.possible ||= possible
      if (fact.lane !== lane) fact.lane = undefined
      if (fact.key !== key) fact.key = undefined
    }
  }
  const places = new Map<string, Recorded>()
  for (const recorded of log) if (!places.has(recorded.id)) places.set(recorded.id, recorded)
  return { attempted, places }
}

const checkLog = ({ log }: History, { attempted, places }: Facts, report: Report): void => {
  let previous = 0
  for (const recorded of log) {
    const { content, id, offset } = recorded
    if (offset !== previous + 1) report("hole", `offset ${offset} (${id}) comes after ${previous}`)
    previous = offset
    const first = places.get(id)!
    if (first !== recorded) report("twice", `${id} stands at ${first.offset} and at ${offset}`)
    const fact = attempted.get(id)
    if (fact === undefined) report("phantom", `${id} at ${offset} was never attempted`)
    else {
      if (fact.content !== content) report("content", `${id} at ${offset} is ${content}, attempted was ${fact.content}`)
      if (!fact.possible) report("present", `${id} stands at ${offset}, and every attempt of it was refused`)
    }
  }
}

const checkReceipts = ({ operations }: History, { places }: Facts, report: Report): void => {
  const appended = new Map<string, string>()
  for (const { events, invokedAt, key, outcome } of operations) {
    if (outcome._tag !== "ok") continue
    const told = `${key}, invoked at ${invokedAt}, acknowledged at ${outcome.at}`
    if (outcome.receipts.length !== events.length) {
      report("content", `${outcome.receipts.length} receipts for ${events.length} events: ${told}`)
    }
    const own = new Set<string>()
    for (const [index, { offset, status }] of outcome.receipts.entries()) {
      const id = events[index]?.id
      if (id === undefined) break
      const place = places.get(id)
      if (place === undefined) report("lost", `${id} is not in the log, its receipt says ${offset}: ${told}`)
      else if (place.offset !== offset) report("moved", `${id} stands at ${place.offset}, not at ${offset}: ${told}`)
      if (status === "divergent") report("content", `${id} at ${offset} is said to have other content: ${told}`)
      if (status === "appended") {
        const other = appended.get(id)
        if (other !== undefined || own.has(id)) report("twice", `${id} was appended by ${other ?? key} and by ${told}`)
        appended.set(id, key)
      }
      own.add(id)
    }
  }
}

const checkBatches = ({ operations }: History, { attempted, places }: Facts, report: Report): void => {
  const done = new Set<string>()
  for (const { events, invokedAt, key } of operations) {
    if (events.length < 2 || done.has(key)) continue
    done.add(key)
    // what others have attempted too, or the same lane before, may be there without this batch
    const own = events.filter(({ id }) => attempted.get(id)?.key === key)
    const absent = own.filter(({ id }) => !places.has(id))
    if (absent.length > 0 && absent.length < own.length) {
      report(
        "torn",
        `${key}, invoked at ${invokedAt}: ${absent.length} of ${own.length} are absent, as ${absent[0]!.id}`
      )
    }
  }
}

const checkLanes = ({ operations }: History, { attempted, places }: Facts, report: Report): void => {
  const lanes = new Map<string, Array<Operation>>()
  for (const operation of operations) {
    const lane = lanes.get(operation.lane)
    if (lane === undefined) lanes.set(operation.lane, [operation])
    else lane.push(operation)
  }
  for (const [name, lane] of lanes) {
    const begun = new Set<string>()
    let last: Recorded | undefined
    for (const { events } of lane.toSorted((a, b) => a.invokedAt - b.invokedAt)) {
      for (const { id } of events) {
        if (begun.has(id) || attempted.get(id)?.lane !== name) continue
        begun.add(id)
        const place = places.get(id)
        if (place === undefined) continue
        if (last !== undefined && place.offset < last.offset) {
          report("laneOrder", `${name}: ${id} at ${place.offset} was begun after ${last.id} at ${last.offset}`)
        }
        last = place
      }
    }
  }
}

const checkRealTime = ({ log }: History, { attempted }: Facts, report: Report): void => {
  let latest: { readonly recorded: Recorded; readonly invokedAt: number } | undefined
  for (const recorded of log) {
    const fact = attempted.get(recorded.id)
    if (fact === undefined) continue
    if (latest !== undefined && fact.acknowledgedAt < latest.invokedAt) {
      report(
        "realTime",
        `${latest.recorded.id} at ${latest.recorded.offset} was begun at ${latest.invokedAt}, after ${recorded.id} at ` +
          `${recorded.offset} was acknowledged at ${fact.acknowledgedAt}`
      )
    }
    if (latest === undefined || fact.invokedAt > latest.invokedAt) latest = { recorded, invokedAt: fact.invokedAt }
  }
}

const checkConditions = ({ log, operations }: History, { attempted, places }: Facts, report: Report): void => {
  const runs = new Map<string, Array<number>>()
  for (const { offset, runId } of log) {
    const run = runs.get(runId)
    if (run === undefined) runs.set(runId, [offset])
    else run.push(offset)
  }
  const head = log.at(-1)?.offset ?? 0
  const winners = new Map<string, string>()
  for (const { condition, decision, events, key, outcome } of operations) {
    // of an attempt whose outcome nobody knows, what it wrote is in the log all the same
    const written = events.flatMap(({ id }) =>
      attempted.get(id)?.key === key && places.has(id) ? [places.get(id)!.offset] : []
    )
    if (decision !== undefined && written.length > 0) {
      const winner = winners.get(decision)
      if (winner !== undefined && winner !== key) report("condition", `${decision} was won by ${winner} and by ${key}`)
      winners.set(decision, key)
    }
    if (condition === undefined) continue
    const { after, runId } = condition
    const run = runs.get(runId) ?? []
    if (written.length > 0) {
      const first = Math.min(...written)
      const other = run[firstAbove(run, after)]
      if (other !== undefined && other < first) {
        report(
          "condition",
          `${key} at ${first} excluded events of ${runId} after ${after}, and there is one at ${other}`
        )
      }
    }
    if (outcome._tag === "refused" && outcome.by !== undefined) {
      const contradicts = outcome.by > after && run[firstAbove(run, outcome.by - 1)] === outcome.by
      // an offset that the log never reached is refused by its head
      if (!contradicts && after <= head) {
        report("refusal", `${key} was refused by ${outcome.by}, which is no event of ${runId} after ${after}`)
      }
    }
  }
}

/** The index of the first member that is greater. */
const firstAbove = (sorted: ReadonlyArray<number>, value: number): number => {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (sorted[middle]! > value) high = middle
    else low = middle + 1
  }
  return low
}

const checkHeads = ({ heads, log, operations }: History, { attempted, places }: Facts, report: Report): void => {
  if (heads.length === 0) return
  const interior = new Map<number, string>()
  for (const { events, key, outcome } of operations) {
    if (events.length < 2) continue
    const offsets = outcome._tag === "ok"
      ? outcome.receipts.flatMap(({ offset, status }) => status === "appended" ? [offset] : [])
      : events.flatMap(({ id }) => attempted.get(id)?.key === key && places.has(id) ? [places.get(id)!.offset] : [])
    if (offsets.length < 2) continue
    const last = offsets.reduce((a, b) => Math.max(a, b))
    for (let offset = offsets.reduce((a, b) => Math.min(a, b)); offset < last; offset++) interior.set(offset, key)
  }
  const acknowledged = log.flatMap(({ id, offset }) => {
    const at = attempted.get(id)?.acknowledgedAt ?? Infinity
    return at === Infinity ? [] : [{ at, id, offset }]
  }).toSorted((a, b) => a.at - b.at)
  let next = 0
  let highest = { at: 0, id: "", offset: 0 }
  for (const { at, head, invokedAt } of heads.toSorted((a, b) => a.invokedAt - b.invokedAt)) {
    for (; next < acknowledged.length && acknowledged[next]!.at < invokedAt; next++) {
      if (acknowledged[next]!.offset > highest.offset) highest = acknowledged[next]!
    }
    if (head < highest.offset) {
      report("staleHead", `${head} at ${invokedAt}, when ${highest.id} at ${highest.offset} was acknowledged`)
    }
    const last = log[head - 1]
    const begun = last === undefined ? undefined : attempted.get(last.id)?.invokedAt
    if ((last === undefined && head !== 0) || (begun !== undefined && begun > at)) {
      report("staleHead", `${head} at ${at}, when nothing was attempted that could stand there`)
    }
    const batch = interior.get(head)
    if (batch !== undefined) report("torn", `the head was ${head} at ${at}, in the middle of ${batch}`)
  }
}

const checkView = (
  view: "subscriber" | "exactlyOnce",
  { name, seen }: Subscriber,
  byOffset: ReadonlyMap<number, Recorded>,
  report: Report
): void => {
  const known = new Set<number>()
  let previous = 0
  for (const one of seen) {
    const { id, offset } = one
    if (known.has(offset)) report(`${view}Repeat`, `${name} saw ${offset} (${id}) again, after ${previous}`)
    else if (offset < previous) report(`${view}Order`, `${name} saw ${offset} (${id}) after ${previous}`)
    else if (offset > previous + 1) report(`${view}Hole`, `${name} saw ${offset} (${id}) after ${previous}`)
    known.add(offset)
    previous = Math.max(previous, offset)
    checkContent(view, name, one, byOffset, report)
  }
  checkEnd(view, name, previous, byOffset, report)
}

const checkConsumed = (
  { batch, name, tenures }: Consumed,
  byOffset: ReadonlyMap<number, Recorded>,
  report: Report
): void => {
  for (const tenure of tenures) {
    for (const [index, one] of tenure.entries()) {
      checkContent("atLeastOnce", name, one, byOffset, report)
      const previous = tenure[index - 1]?.offset
      if (previous === undefined || one.offset === previous + 1) continue
      const kind = one.offset > previous ? "atLeastOnceHole" : "atLeastOnceOrder"
      report(kind, `${name} handled ${one.offset} (${one.id}) after ${previous} at ${one.at}`)
    }
  }
  // whatever the checkpoint was that a tenure began at, all before it had been handled by then
  const again = new Map<ReadonlyArray<Handled>, number>()
  let reached = 0
  const handled = tenures.flatMap((tenure) => tenure.map((one) => ({ one, tenure })))
  for (const { one, tenure } of handled.toSorted((a, b) => a.one.at - b.one.at)) {
    const { at, id, offset } = one
    if (offset > reached + 1) {
      report("atLeastOnceHole", `${name} handled ${offset} (${id}) at ${at}, when ${reached + 1} had not been`)
    }
    reached = Math.max(reached, offset)
    // whoever loses the lease with a batch in its hands may end it
    if (offset > reached - batch) continue
    again.set(tenure, (again.get(tenure) ?? 0) + 1)
    if (again.get(tenure)! > batch) {
      report("atLeastOnceRepeat", `${name} handled ${offset} (${id}) again at ${at}, when ${reached} had been handled`)
    }
  }
  checkEnd("atLeastOnce", name, reached, byOffset, report)
}

const checkContent = (
  view: View,
  name: string,
  { id, offset, stored }: Seen,
  byOffset: ReadonlyMap<number, Recorded>,
  report: Report
): void => {
  const recorded = byOffset.get(offset)
  if (recorded === undefined || recorded.id !== id || recorded.stored !== stored) {
    report(`${view}Content`, `${name} saw ${id} ${stored} at ${offset}, where ${recorded?.id} ${recorded?.stored} is`)
  }
}

const checkEnd = (
  view: View,
  name: string,
  reached: number,
  byOffset: ReadonlyMap<number, Recorded>,
  report: Report
): void => {
  let end = 0
  for (const offset of byOffset.keys()) end = Math.max(end, offset)
  if (reached < end) report(`${view}Short`, `${name} saw events up to ${reached}, the log ends at ${end}`)
}

/** The checker's own test: a correct history passes, and whatever is planted in one is found. */
import { assert, describe, it } from "@effect/vitest"
import { randomInt } from "node:crypto"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import {
  check,
  type Handled,
  type HeadRead,
  type Kind,
  type Operation,
  type Receipt,
  type Recorded,
  type Seen
} from "./chaos/checker.js"
import { emptyStory, type Planned, reader, recorder } from "./chaos/history.js"
import { longest } from "./chaos/waits.js"
import { random } from "./support/following.js"

const seed = process.env["TEST_SEED"] ?? String(randomInt(2 ** 31))

/** What a ledger that works leaves behind, and what may be changed in it. */
interface Draft {
  readonly operations: Array<Operation>
  readonly log: Array<Recorded>
  readonly subscribers: Array<{ readonly name: string; readonly seen: Array<Seen> }>
  readonly exactlyOnce: readonly [{ readonly name: string; readonly seen: Array<Seen> }]
  readonly atLeastOnce: readonly [
    { readonly name: string; readonly batch: number; readonly tenures: Array<Array<Handled>> }
  ]
  readonly heads: Array<HeadRead>
}

/**
 * A history of lanes that run at the same time on a ledger without a fault. Every attempt takes effect at one moment
 * between its invocation and its outcome, or never.
 */
const correct = (chance: () => number, size: number): Draft => {
  const log: Array<Recorded> = []
  const operations: Array<Operation> = []
  const heads: Array<HeadRead> = []
  const runs = new Map<string, Array<number>>()
  const lanes = Array.from({ length: 6 }, (_, index) => ({ name: `lane-${index}`, free: 0, n: 0, done: [""] }))
  const offsets = new Map<string, number>()
  let now = 1000
  const record = (id: string, runId: string): Receipt => {
    const known = offsets.get(id)
    if (known !== undefined) return { offset: known, status: "identical" }
    const offset = log.length + 1
    log.push({ offset, id, runId, content: `content of ${id}`, stored: `stored ${id}` })
    offsets.set(id, offset)
    const run = runs.get(runId)
    if (run === undefined) runs.set(runId, [offset])
    else run.push(offset)
    return { offset, status: "appended" }
  }
  while (log.length < size) {
    // the next moment at which an attempt takes effect
    now += 2 + Math.floor(chance() * 50)
    const lane = lanes[Math.floor(chance() * lanes.length)]!
    const earliest = Math.max(lane.free + 1, now - 200)
    if (earliest >= now) continue
    const invokedAt = earliest + Math.floor(chance() * (now - earliest))
    const at = now + 1 + Math.floor(chance() * 200)
    lane.free = at
    const key = `${lane.name}/${lane.n++}`
    const attempt = (more: Omit<Operation, "lane" | "key" | "decision" | "condition"> & Partial<Operation>): void =>
      void operations.push({ lane: lane.name, key, condition: undefined, decision: undefined, ...more })
    const events = (count: number, runId = `run ${lane.name}`) =>
      Array.from({ length: count }, (_, index) => ({
        id: `${key}/${index}`,
        runId,
        content: `content of ${key}/${index}`
      }))
    const what = chance()
    if (what < 0.1) {
      const decision = `decision ${Math.floor(now / 300)}`
      const after = runs.get(decision) === undefined && chance() < 0.5 ? log.length : 0
      const own = events(2, decision)
      const winner = runs.get(decision)?.find((offset) => offset > after)
      attempt({
        invokedAt,
        events: own,
        decision,
        condition: { runId: decision, after },
        outcome: winner === undefined
          ? { _tag: "ok", at, receipts: own.map(({ id, runId }) => record(id, runId)) }
          : { _tag: "refused", at, by: winner }
      })
    } else if (what < 0.15) {
      attempt({ invokedAt, events: events(3), outcome: { _tag: "refused", at, by: undefined } })
    } else if (what < 0.25) {
      // an unknown one that was written, or not, and is repeated
      const own = events(1 + Math.floor(chance() * 3))
      if (chance() < 0.5) { for (const { id, runId } of own) record(id, runId) }
      attempt({ invokedAt, events: own, outcome: { _tag: "unknown", at: chance() < 0.5 ? at : undefined } })
      now = at + 5
      lane.free = now + 5
      attempt({
        invokedAt: at + 1,
        events: own,
        outcome: { _tag: "ok", at: now + 5, receipts: own.map(({ id, runId }) => record(id, runId)) }
      })
    } else if (what < 0.3 && lane.done.length > 1) {
      const id = lane.done[1 + Math.floor(chance() * (lane.done.length - 1))]!
      const again = { id, runId: `run ${lane.name}`, content: `content of ${id}` }
      attempt({ invokedAt, events: [again], outcome: { _tag: "ok", at, receipts: [record(id, again.runId)] } })
    } else {
      const own = events(what < 0.7 ? 1 : 2 + Math.floor(chance() * 6))
      lane.done.push(own[0]!.id)
      attempt({
        invokedAt,
        events: own,
        outcome: { _tag: "ok", at, receipts: own.map(({ id, runId }) => record(id, runId)) }
      })
    }
    if (chance() < 0.2) heads.push({ invokedAt: now, at: now, head: log.length })
  }
  const seen = () => log.map(({ id, offset, stored }) => ({ offset, id, stored }))
  return {
    operations,
    log,
    heads,
    subscribers: [{ name: "a", seen: seen() }, { name: "b", seen: seen() }],
    exactlyOnce: [{ name: "once", seen: seen() }],
    atLeastOnce: [{ name: "least", batch, tenures: tenuresOf(log, chance) }]
  }
}

const batch = 10

/**
 * A tenure begins at the last checkpoint, and may end in the middle of a batch. Now and then one who lost the lease goes on,
 * later, with the batch in its hands.
 */
const tenuresOf = (log: ReadonlyArray<Recorded>, chance: () => number): Array<Array<Handled>> => {
  const tenures: Array<Array<Handled>> = []
  let now = 1000
  let checkpoint = 0
  let late: Array<Handled> | undefined
  const handle = ({ id, offset, stored }: Recorded): Handled => ({ id, offset, stored, at: now += 2 })
  for (let reached = 0; reached < log.length;) {
    const tenure: Array<Handled> = []
    tenures.push(tenure)
    const count = Math.min(log.length - checkpoint, 1 + Math.floor(chance() * 60))
    for (const recorded of log.slice(checkpoint, checkpoint + count)) {
      tenure.push(handle(recorded))
      if (late === undefined || chance() < 0.7) continue
      const next = log[late.at(-1)!.offset]
      if (next !== undefined) late.push(handle(next))
      if (next === undefined || next.offset % batch === 0 || chance() < 0.1) late = undefined
    }
    reached = checkpoint + count
    // what is left of a batch in its hands
    late = late ?? (reached % batch === 0 ? undefined : tenure)
    checkpoint = reached - reached % batch
  }
  return tenures
}

/** Each breaks a history in its own way; undefined: not at the place that was chosen. */
const plants: Readonly<Record<string, readonly [Kind, (draft: Draft, chance: () => number) => boolean]>> = {
  "an offset is skipped": ["hole", ({ log }, chance) => {
    const from = somewhere(log, chance)
    for (let index = from; index < log.length; index++) log[index] = { ...log[index]!, offset: log[index]!.offset + 1 }
    return true
  }],
  "a row is gone from the middle": ["hole", ({ log }, chance) => {
    const index = somewhere(log, chance)
    log.splice(index, 1)
    return index < log.length
  }],
  "two rows change places": ["hole", ({ log }, chance) => {
    const index = Math.max(1, somewhere(log, chance))
    ;[log[index - 1], log[index]] = [log[index]!, log[index - 1]!]
    return true
  }],
  "an event is recorded again": ["twice", ({ log }, chance) => {
    log.push({ ...log[somewhere(log, chance)]!, offset: log.length + 1 })
    return true
  }],
  "two are told that they appended the same": ["twice", ({ operations }, chance) => {
    // an attempt whose outcome is unknown was told nothing
    const first = new Set(
      operations.flatMap(({ events, outcome }) =>
        outcome._tag === "ok" && outcome.receipts[0]!.status === "appended" ? [events[0]!.id] : []
      )
    )
    return change(
      operations,
      chance,
      ({ events, outcome }) =>
        outcome._tag === "ok" && outcome.receipts[0]!.status === "identical" && first.has(events[0]!.id),
      (operation) => ({ ...operation, outcome: { ...ok(operation), receipts: appended(ok(operation).receipts) } })
    )
  }],
  "the last acknowledged event is lost": ["lost", ({ log, operations }) => {
    const { id } = log.at(-1)!
    log.pop()
    return operations.some(({ events, outcome }) => outcome._tag === "ok" && events.some((event) => event.id === id))
  }],
  "the log has other content": ["content", ({ log }, chance) => {
    const index = somewhere(log, chance)
    log[index] = { ...log[index]!, content: "forged" }
    return true
  }],
  "a receipt speaks of other content": [
    "content",
    ({ operations }, chance) =>
      change(operations, chance, ({ outcome }) => outcome._tag === "ok", (operation) => ({
        ...operation,
        outcome: {
          ...ok(operation),
          receipts: ok(operation).receipts.map(({ offset }): Receipt => ({ offset, status: "divergent" }))
        }
      }))
  ],
  "a receipt is missing": [
    "content",
    ({ operations }, chance) =>
      change(operations, chance, ({ outcome }) => outcome._tag === "ok", (operation) => ({
        ...operation,
        outcome: { ...ok(operation), receipts: ok(operation).receipts.slice(1) }
      }))
  ],
  "a receipt says another offset": [
    "moved",
    ({ operations }, chance) =>
      change(operations, chance, ({ outcome }) => outcome._tag === "ok", (operation) => ({
        ...operation,
        outcome: {
          ...ok(operation),
          receipts: ok(operation).receipts.map(({ offset, status }): Receipt => ({ offset: offset + 1, status }))
        }
      }))
  ],
  "nobody attempted it": ["phantom", ({ log }) => {
    log.push({ offset: log.length + 1, id: "nobody", runId: "run", content: "x", stored: "x" })
    return true
  }],
  "what was refused is there": ["present", ({ log, operations }, chance) => {
    const refused = operations.filter(({ outcome }) => outcome._tag === "refused")
    const { content, id, runId } = refused[somewhere(refused, chance)]!.events[0]!
    log.push({ offset: log.length + 1, id, runId, content, stored: "x" })
    return true
  }],
  "a part of a batch is missing": ["torn", (draft, chance) => {
    // of one whose outcome is not known: nothing else may speak of it
    draft.operations.push({
      lane: "torn",
      key: "torn/0",
      invokedAt: 1e9,
      events: [0, 1, 2].map((index) => ({ id: `torn/0/${index}`, runId: "torn", content: "x" })),
      condition: undefined,
      decision: undefined,
      outcome: { _tag: "unknown", at: undefined }
    })
    const kept = 1 + Math.floor(chance() * 2)
    for (let index = 0; index < kept; index++) {
      const row = { id: `torn/0/${index}`, runId: "torn", content: "x", stored: "x" }
      draft.log.push({ offset: draft.log.length + 1, ...row })
    }
    return true
  }],
  "a look at the head falls into a batch": ["torn", ({ heads, operations }, chance) => {
    const batches = operations.filter(({ events, outcome }) =>
      events.length > 1 && outcome._tag === "ok" && outcome.receipts.every(({ status }) => status === "appended")
    )
    const { invokedAt, outcome } = batches[somewhere(batches, chance)]!
    if (outcome._tag !== "ok") return false
    heads.push({ invokedAt, at: outcome.at, head: outcome.receipts[0]!.offset })
    return true
  }],
  "a lane's events are exchanged": ["laneOrder", (draft, chance) => exchange(draft, chance, true)],
  "what came later has the smaller offset": ["realTime", (draft, chance) => exchange(draft, chance, false)],
  "a decision has two winners": [
    "condition",
    ({ log, operations }, chance) =>
      change(operations, chance, ({ decision, outcome }) => decision !== undefined && outcome._tag === "refused", (
        operation
      ) => {
        const receipts = operation.events.map(({ content, id, runId }): Receipt => {
          const offset = log.push({ offset: log.length + 1, id, runId, content, stored: id })
          return { offset, status: "appended" }
        })
        return { ...operation, decision: operation.decision, outcome: { _tag: "ok", at: 1e9, receipts } }
      })
  ],
  "a condition is not asked": ["condition", ({ log, operations }, chance) => {
    const excluded = log[0]!
    return change(
      operations,
      chance,
      ({ condition, events, outcome }) =>
        condition !== undefined && outcome._tag === "ok" && events[0]!.id !== excluded.id,
      (operation) => ({ ...operation, condition: { runId: excluded.runId, after: 0 } })
    )
  }],
  "a condition is refused without a reason": [
    "refusal",
    ({ log, operations }, chance) =>
      change(operations, chance, ({ condition, outcome }) => condition !== undefined && outcome._tag === "refused", (
        operation
      ) => ({
        ...operation,
        outcome: {
          _tag: "refused",
          at: 1e9,
          by: log.find(({ runId, offset }) =>
            runId !== operation.condition!.runId && offset > operation.condition!.after
          )!
            .offset
        }
      }))
  ],
  "a condition is refused by what is older than it asks about": [
    "refusal",
    ({ log, operations }, chance) =>
      change(
        operations,
        chance,
        // two events: the first of them refused it, and the second is the last that it knows of
        ({ outcome }) => outcome._tag === "refused" && outcome.by !== undefined && outcome.by < log.length,
        (operation) => ({
          ...operation,
          condition: { runId: operation.condition!.runId, after: 1 + refusedBy(operation) }
        })
      )
  ],
  "a look at the head misses what was acknowledged": ["staleHead", ({ heads, operations }, chance) => {
    const acknowledged = operations.filter(({ outcome }) => outcome._tag === "ok")
    const outcome = ok(acknowledged[somewhere(acknowledged, chance)]!)
    const head = outcome.receipts.reduce((most, { offset }) => Math.max(most, offset), 0) - 1
    heads.push({ invokedAt: outcome.at + 1, at: outcome.at + 2, head })
    return true
  }],
  "a look at the head shows the future": ["staleHead", ({ heads, log }) => {
    heads.push({ invokedAt: 1, at: 2, head: log.length })
    return true
  }],
  "a subscriber misses an event": ["subscriberHole", ({ subscribers }, chance) => {
    const { seen } = subscribers[0]!
    seen.splice(Math.floor(chance() * (seen.length - 1)), 1)
    return true
  }],
  "a subscriber sees an event again": ["subscriberRepeat", ({ subscribers }, chance) => {
    const { seen } = subscribers[1]!
    const index = somewhere(seen, chance)
    seen.splice(index, 0, seen[Math.floor(chance() * (index + 1))]!)
    return true
  }],
  "a subscriber sees two in the wrong order": ["subscriberOrder", ({ subscribers }, chance) => {
    const { seen } = subscribers[0]!
    const index = Math.max(1, somewhere(seen, chance))
    ;[seen[index - 1], seen[index]] = [seen[index]!, seen[index - 1]!]
    return true
  }],
  "a subscriber sees something else": ["subscriberContent", ({ subscribers }, chance) => {
    const { seen } = subscribers[0]!
    const index = somewhere(seen, chance)
    seen[index] = { ...seen[index]!, stored: "forged" }
    return true
  }],
  "a subscriber ends before the log": ["subscriberShort", ({ subscribers }, chance) => {
    const { seen } = subscribers[1]!
    seen.length = somewhere(seen, chance)
    return true
  }],
  "the table of a handler lacks an event": ["exactlyOnceHole", ({ exactlyOnce: [{ seen }] }, chance) => {
    seen.splice(Math.floor(chance() * (seen.length - 1)), 1)
    return true
  }],
  "the table of a handler has an event twice": ["exactlyOnceRepeat", ({ exactlyOnce: [{ seen }] }, chance) => {
    // what was committed, and handled again by the next who had the lease
    const from = somewhere(seen, chance)
    seen.splice(from + 1, 0, ...seen.slice(from - Math.floor(chance() * batch), from + 1))
    return from > batch
  }],
  "two wrote the table of a handler at the same time": ["exactlyOnceOrder", ({ exactlyOnce: [{ seen }] }, chance) => {
    const index = Math.max(1, somewhere(seen, chance))
    ;[seen[index - 1], seen[index]] = [seen[index]!, seen[index - 1]!]
    return true
  }],
  "the table of a handler has something else": ["exactlyOnceContent", ({ exactlyOnce: [{ seen }] }, chance) => {
    const index = somewhere(seen, chance)
    seen[index] = { ...seen[index]!, id: "of a transaction that was rolled back" }
    return true
  }],
  "the table of a handler ends before the log": ["exactlyOnceShort", ({ exactlyOnce: [{ seen }] }, chance) => {
    seen.length = somewhere(seen, chance)
    return true
  }],
  "a consumer skips an event that others have handled": [
    "atLeastOnceHole",
    ({ atLeastOnce: [{ tenures }] }, chance) => {
      const tenure = tenures[somewhere(tenures, chance)]!
      tenures.unshift(tenure.map((one) => ({ ...one, at: one.at - 1 })))
      tenure.splice(1 + Math.floor(chance() * (tenure.length - 2)), 1)
      return tenure.length > 2
    }
  ],
  "a consumer begins after what nobody has handled": ["atLeastOnceHole", ({ atLeastOnce: [{ tenures }] }, chance) => {
    // the checkpoint was there before the handler was
    const [first] = tenures[1 + Math.floor(chance() * (tenures.length - 1))]!
    if (first === undefined) return false
    for (const [index, tenure] of tenures.entries()) {
      tenures[index] = tenure.filter(({ at, offset }) => offset !== first.offset || at > first.at + 200)
    }
    return tenures.some((tenure) => tenure[0]?.offset === first.offset + 1)
  }],
  "a consumer goes back": ["atLeastOnceOrder", ({ atLeastOnce: [{ tenures }] }, chance) => {
    const tenure = tenures[somewhere(tenures, chance)]!
    const index = Math.floor(chance() * tenure.length)
    tenure.splice(index, 0, { ...tenure[index]!, at: tenure[index]!.at - 1 })
    return true
  }],
  "a consumer begins at the beginning again": ["atLeastOnceRepeat", ({ atLeastOnce: [{ tenures }], log }) => {
    const end = tenures.reduce((most, tenure) => Math.max(most, tenure.at(-1)?.at ?? 0), 0)
    tenures.push(log.map(({ id, offset, stored }) => ({ id, offset, stored, at: end + offset })))
    return true
  }],
  "a consumer handles something else": ["atLeastOnceContent", ({ atLeastOnce: [{ tenures }] }, chance) => {
    const tenure = tenures[somewhere(tenures, chance)]!
    const index = somewhere(tenure, chance)
    tenure[index] = { ...tenure[index]!, stored: "forged" }
    return true
  }],
  "consumers end before the log": ["atLeastOnceShort", ({ atLeastOnce: [{ tenures }], log }) => {
    for (const [index, tenure] of tenures.entries()) {
      tenures[index] = tenure.filter(({ offset }) => offset < log.length)
    }
    return true
  }]
}

describe("the checker", () => {
  it("finds nothing in histories of a ledger that works", () => {
    console.log(`TEST_SEED=${seed}`)
    for (let round = 0; round < 50; round++) {
      assert.deepStrictEqual(check(correct(random(`${seed} correct ${round}`), 400)), [])
    }
  })

  for (const [name, [kind, plant]] of Object.entries(plants)) {
    it(`finds that ${name}: ${kind}`, () => {
      let planted = 0
      for (let round = 0; planted < 20 && round < 200; round++) {
        const chance = random(`${seed} ${name} ${round}`)
        const draft = correct(chance, 300)
        if (!plant(draft, chance)) continue
        planted++
        const kinds = check(draft).map((violation) => violation.kind)
        assert.include(kinds, kind, `TEST_SEED=${seed}, round ${round}`)
      }
      assert.strictEqual(planted, 20)
    })
  }

  it("lists the first of each kind, and counts the others", () => {
    const draft = correct(random(seed), 300)
    for (const subscriber of draft.subscribers) subscriber.seen.reverse()
    const found = check(draft, 5).filter(({ kind }) => kind === "subscriberOrder")
    assert.strictEqual(found.length, 6)
    assert.strictEqual(found.at(-1)?.detail, `and ${2 * (draft.log.length - 1) - 5} more`)
  })

  it("takes 500,000 events within seconds", () => {
    const draft = correct(random(seed), 500_000)
    const before = process.cpuUsage()
    assert.deepStrictEqual(check(draft), [])
    const { system, user } = process.cpuUsage(before)
    const seconds = (system + user) / 1e6
    console.log(`500,000 events checked in ${seconds.toFixed(1)} s of processor time`)
    assert.isBelow(seconds, 30)
  }, 240_000)
})

describe("the longest wait", () => {
  const second = 1_000_000
  it("is without the time that somebody else took, and that time only", () => {
    const waits = [[0, 3 * second], [10 * second, 5 * second], [20 * second, second]] as const
    assert.strictEqual(longest([]), 0)
    assert.strictEqual(longest(waits), 5000)
    // the second is 2 s: what overlaps is taken once, and what lies outside is not
    const spans = [[14 * second, 18 * second], [9 * second, 11 * second], [10 * second, 12 * second]] as const
    assert.strictEqual(longest(waits, spans), 3000)
    assert.strictEqual(longest(waits.slice(1), spans), 2000)
    assert.strictEqual(longest(waits.slice(1), [[0, 30 * second]]), 0)
  })

  it("is also that of an operation whose process was killed, from its first attempt in that life", () => {
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-waits-"))
    try {
      const file = Path.join(folder, "w0-1.jsonl")
      const record = recorder(file)
      const story = emptyStory()
      const read = reader(file, story)
      const planned = (n: number): Planned => ({ key: `w/${n}`, lane: "w", n, events: [[`w/${n}/0`, "run", n]] })
      record(["invoked", 1000, planned(0)])
      record(["ok", 2000, "w/0", [[1, "appended"]]])
      record(["invoked", 3000, planned(1)])
      record(["unknown", 4000, "w/1", "away"])
      record(["invoked", 5000, planned(1)])
      read()
      assert.deepStrictEqual(story.waits, [[1000, 1000]])
      read(9000)
      assert.deepStrictEqual(story.waits, [[1000, 1000], [3000, 6000]])
    } finally {
      Fs.rmSync(folder, { recursive: true })
    }
  })
})

const somewhere = (list: ReadonlyArray<unknown>, chance: () => number): number => Math.floor(chance() * list.length)

/** Changes one of the operations that it holds for. */
const change = (
  operations: Array<Operation>,
  chance: () => number,
  holds: (operation: Operation) => boolean,
  changed: (operation: Operation) => Operation
): boolean => {
  const places = operations.flatMap((operation, index) => holds(operation) ? [index] : [])
  if (places.length === 0) return false
  const index = places[somewhere(places, chance)]!
  operations[index] = changed(operations[index]!)
  return true
}

const ok = ({ outcome }: Operation): Extract<Operation["outcome"], { readonly _tag: "ok" }> => {
  if (outcome._tag !== "ok") throw new Error("not acknowledged")
  return outcome
}

const refusedBy = ({ outcome }: Operation): number => {
  if (outcome._tag !== "refused" || outcome.by === undefined) throw new Error("not refused by an event")
  return outcome.by
}

const appended = (receipts: ReadonlyArray<Receipt>): ReadonlyArray<Receipt> =>
  receipts.map(({ offset }): Receipt => ({ offset, status: "appended" }))

/**
 * Exchanges two single events, in the log and in their receipts, so that nothing but their order is wrong: two of one
 * lane, or two of different lanes one of which began after the other was acknowledged.
 */
const exchange = ({ log, operations, subscribers }: Draft, chance: () => number, sameLane: boolean): boolean => {
  // one that was attempted before may have been written before
  const attempts = new Map<string, number>()
  for (const { events } of operations) for (const { id } of events) attempts.set(id, (attempts.get(id) ?? 0) + 1)
  const singles = operations.filter(({ condition, events, outcome }) =>
    events.length === 1 && attempts.get(events[0]!.id) === 1 && condition === undefined && outcome._tag === "ok" &&
    outcome.receipts[0]!.status === "appended"
  )
  const a = singles[somewhere(singles, chance)]!
  const later = singles.filter((b) => b.invokedAt > ok(a).at && (a.lane === b.lane) === sameLane)
  if (later.length === 0) return false
  const b = later[0]!
  const [atA, atB] = [ok(a).receipts[0]!.offset, ok(b).receipts[0]!.offset]
  const swap = (operation: Operation, offset: number): void => {
    operations[operations.indexOf(operation)] = {
      ...operation,
      outcome: { ...ok(operation), receipts: [{ offset, status: "appended" }] }
    }
  }
  swap(a, atB)
  swap(b, atA)
  const [rowA, rowB] = [log[atA - 1]!, log[atB - 1]!]
  log[atA - 1] = { ...rowB, offset: atA }
  log[atB - 1] = { ...rowA, offset: atB }
  for (const { seen } of subscribers) {
    seen[atA - 1] = { offset: atA, id: rowB.id, stored: rowB.stored }
    seen[atB - 1] = { offset: atB, id: rowA.id, stored: rowA.stored }
  }
  return true
}

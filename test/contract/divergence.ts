/** Law 3: the same id with other content. */
import { expect, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import type { Event } from "../../src/Event.js"
import { append, failOnDivergence, Receipt } from "../../src/Ledger.js"
import * as LedgerMetrics from "../../src/LedgerMetrics.js"
import type { Backend } from "./Backend.js"
import { event } from "./fixtures.js"
import { expectHistory, failure, open } from "./handle.js"

export const divergence = (backend: Backend): void => {
  const original = event("step", {
    runId: "run-1",
    turn: 1,
    payload: { list: [1, 2], text: "x" },
    sessionId: "morning",
    modelProfile: null,
    modelId: "small"
  })

  it.scopedLive.each<readonly [string, boolean, Partial<Event>]>([
    ["another time", true, { createdAt: DateTime.unsafeMake("2030-05-05T05:05:05.005Z") }],
    ["the payload's keys in another order", true, { payload: { text: "x", list: [1, 2] } }],
    ["another run", false, { runId: "run-2" }],
    ["another turn", false, { turn: 2 }],
    ["another kind", false, { kind: "agent.acted" }],
    ["another actor", false, { actor: "bob" }],
    ["another payload", false, { payload: { list: [2, 1], text: "x" } }],
    ["another version", false, { schemaVersion: 2 }],
    ["no session", false, { sessionId: null }],
    ["another session", false, { sessionId: "evening" }],
    ["a profile", false, { modelProfile: "fast" }],
    ["another model", false, { modelId: "large" }],
    ["no model", false, { modelId: null }]
  ])("law 3: the same id with %s: identical is %s", ([, identical, change]) =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      yield* handle.ledger.append(original)
      expect(yield* handle.ledger.append({ ...original, ...change })).toStrictEqual(
        Receipt.Duplicate({ id: "step", offset: 1, identical })
      )
      yield* expectHistory(handle, [original])
    }))

  it.scopedLive("law 3: a divergent duplicate in the same batch as its first occurrence is told", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const changed = { ...original, turn: 2 }
      expect(yield* handle.ledger.appendAll([original, changed, original])).toStrictEqual([
        Receipt.Appended({ id: "step", offset: 1 }),
        Receipt.Duplicate({ id: "step", offset: 1, identical: false }),
        Receipt.Duplicate({ id: "step", offset: 1, identical: true })
      ])
      yield* expectHistory(handle, [original])
    }))

  it.scopedLive("law 3: each repetition in a batch is compared with what is recorded, not with each other", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      yield* handle.ledger.append(original)
      const changed = { ...original, turn: 2 }
      expect(yield* handle.ledger.appendAll([changed, original, changed])).toStrictEqual([
        Receipt.Duplicate({ id: "step", offset: 1, identical: false }),
        Receipt.Duplicate({ id: "step", offset: 1, identical: true }),
        Receipt.Duplicate({ id: "step", offset: 1, identical: false })
      ])
      yield* expectHistory(handle, [original])
    }))

  it.scopedLive("law 3: divergence is a warning that names id and offset, and is counted", () =>
    Effect.gen(function*() {
      const { context, ledger } = yield* open(backend.layer())
      yield* ledger.appendAll([event("other"), original])
      const lines: Array<Line> = []
      const counted = Metric.value(LedgerMetrics.divergent)
      const before = yield* counted
      yield* append({ ...original, actor: "bob" }).pipe(Effect.provide(context), Effect.provide(capture(lines)))
      expect((yield* counted).count - before.count).toBe(1)
      expect(lines).toStrictEqual([
        { level: "WARN", annotations: expect.objectContaining({ id: "step", offset: 2 }) }
      ])
    }))

  it.scopedLive("law 3: an identical duplicate is neither warned of nor counted as divergent", () =>
    Effect.gen(function*() {
      const { context, ledger } = yield* open(backend.layer())
      yield* ledger.append(original)
      const lines: Array<Line> = []
      const counted = Metric.value(LedgerMetrics.divergent)
      const before = yield* counted
      yield* append(original).pipe(Effect.provide(context), Effect.provide(capture(lines)))
      expect((yield* counted).count).toBe(before.count)
      expect(lines).toStrictEqual([])
    }))

  it.scopedLive("law 3: failOnDivergence turns the receipt into DivergentDuplicate, and the first write stands", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const { ledger } = handle
      yield* ledger.appendAll([event("other"), original])
      const single = yield* failure(failOnDivergence(ledger.append({ ...original, turn: 7 })))
      expect(single).toMatchObject({ _tag: "DivergentDuplicate", id: "step", offset: 2 })
      const batch = yield* ledger.appendAll([event("other"), { ...original, turn: 7 }]).pipe(
        failOnDivergence,
        failure
      )
      expect(batch).toMatchObject({ _tag: "DivergentDuplicate", id: "step", offset: 2 })
      yield* expectHistory(handle, [event("other"), original])
    }))

  it.scopedLive("law 3: failOnDivergence lets new events and identical duplicates through", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      expect(yield* failOnDivergence(ledger.append(original))).toStrictEqual(
        Receipt.Appended({ id: "step", offset: 1 })
      )
      const again = [Receipt.Duplicate({ id: "step", offset: 1, identical: true })]
      expect(yield* failOnDivergence(ledger.appendAll([original]))).toStrictEqual(again)
    }))
}

interface Line {
  readonly level: string
  readonly annotations: Readonly<Record<string, unknown>>
}

const capture = (lines: Array<Line>) =>
  Logger.replace(
    Logger.defaultLogger,
    Logger.make(({ annotations, logLevel }) => {
      lines.push({ level: logLevel.label, annotations: Object.fromEntries(HashMap.toEntries(annotations)) })
    })
  )

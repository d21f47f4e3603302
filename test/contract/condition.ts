/** appendIf: an append on the condition that nothing relevant was recorded meanwhile. */
import { describe, expect, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import type { Event } from "../../src/Event.js"
import { Receipt } from "../../src/Ledger.js"
import type { Filter, Filters } from "../../src/Query.js"
import type { Backend } from "./Backend.js"
import { epoch, event, events, filters, matches, worldEvent } from "./fixtures.js"
import { expectGapless, expectHistory, failure, open, shared } from "./handle.js"

export const condition = (backend: Backend): void => {
  it.scopedLive("a condition that holds appends, and one that does not names the first event that matches", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const { ledger } = handle
      const all = Array.from(
        { length: 5 },
        (_, index) => event(`event-${index}`, { runId: index % 2 === 0 ? "odd" : "even" })
      )
      yield* ledger.appendAll(all)
      const late = event("late")
      const refused = ledger.appendIf({ noneMatch: { runId: "odd" }, after: 1 }, [late])
      expect(yield* failure(refused)).toMatchObject({ _tag: "AppendConditionFailed", offset: 3 })
      yield* expectHistory(handle, all)
      expect(yield* ledger.appendIf({ noneMatch: { runId: "odd" }, after: 5 }, [late])).toStrictEqual([
        Receipt.Appended({ id: "late", offset: 6 })
      ])
      yield* expectHistory(handle, [...all, late])
    }))

  it.scopedLive("the offset that was decided on is the last that does not count", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      yield* ledger.appendAll(events(3, "event", { runId: "other" }))
      yield* ledger.append(event("match"))
      const attempt = (after: number) => ledger.appendIf({ noneMatch: { runId: "run-1" }, after }, [event("new")])
      expect(yield* failure(attempt(0))).toMatchObject({ offset: 4 })
      expect(yield* failure(attempt(3))).toMatchObject({ offset: 4 })
      expect(yield* attempt(4)).toStrictEqual([Receipt.Appended({ id: "new", offset: 5 })])
    }))

  it.scopedLive("a decision made beyond the head was made on another log: refused with the head", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const { ledger } = handle
      const attempt = ledger.appendIf({ noneMatch: { runId: "nobody" }, after: 3 }, [event("new")])
      expect(yield* failure(attempt)).toMatchObject({ _tag: "AppendConditionFailed", offset: 0 })
      yield* ledger.appendAll(events(2))
      expect(yield* failure(attempt)).toMatchObject({ _tag: "AppendConditionFailed", offset: 2 })
      yield* expectHistory(handle, events(2))
      yield* ledger.append(event("third"))
      expect(yield* attempt).toStrictEqual([Receipt.Appended({ id: "new", offset: 4 })])
    }))

  it.scopedLive("law 2: when every id is recorded the answer is duplicates, and the condition is not asked", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const { ledger } = handle
      const all = events(3)
      yield* ledger.appendAll(all)
      expect(yield* ledger.appendIf({ noneMatch: {}, after: 0 }, [all[2]!, all[0]!])).toStrictEqual([
        Receipt.Duplicate({ id: "event-3", offset: 3, identical: true }),
        Receipt.Duplicate({ id: "event-1", offset: 1, identical: true })
      ])
      const other = event("event-2", { actor: "bob" })
      expect(yield* ledger.appendIf({ noneMatch: {}, after: 99 }, [other, all[1]!].slice(0, 1))).toStrictEqual([
        Receipt.Duplicate({ id: "event-2", offset: 2, identical: false })
      ])
      yield* expectHistory(handle, all)
    }))

  it.scopedLive("events that are recorded identically already are no match, those recorded otherwise are", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const { ledger } = handle
      const [one, two, three] = events(3) as [Event, Event, Event]
      yield* ledger.appendAll([one, two])
      const differing = ledger.appendIf({ noneMatch: { runId: "run-1" }, after: 0 }, [one, { ...two, turn: 9 }, three])
      expect(yield* failure(differing)).toMatchObject({ _tag: "AppendConditionFailed", offset: 2 })
      const partial = ledger.appendIf({ noneMatch: { runId: "run-1" }, after: 0 }, [one, three])
      expect(yield* failure(partial)).toMatchObject({ _tag: "AppendConditionFailed", offset: 2 })
      expect(yield* ledger.appendIf({ noneMatch: { runId: "run-1" }, after: 0 }, [one, two, three])).toStrictEqual([
        Receipt.Duplicate({ id: one.id, offset: 1, identical: true }),
        Receipt.Duplicate({ id: two.id, offset: 2, identical: true }),
        Receipt.Appended({ id: three.id, offset: 3 })
      ])
      yield* expectHistory(handle, [one, two, three])
    }))

  it.scopedLive("the events of the batch do not count against it, and a refused batch is refused whole", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const { ledger } = handle
      const batch = events(3)
      yield* ledger.appendIf({ noneMatch: {}, after: 0 }, batch)
      expect(yield* failure(ledger.appendIf({ noneMatch: {}, after: 0 }, events(3, "more")))).toMatchObject({
        offset: 1
      })
      yield* expectHistory(handle, batch)
    }))

  it.scopedLive("law 4: a conditional batch is checked like any other", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const batch = [event("one"), event("two", { schemaVersion: 0 })]
      const error = yield* failure(handle.ledger.appendIf({ noneMatch: {}, after: 0 }, batch))
      expect(error).toMatchObject({ _tag: "InvalidEvent", index: 1, path: "schemaVersion" })
      expect(yield* handle.ledger.appendIf({ noneMatch: {}, after: 0 }, [])).toStrictEqual([])
      yield* expectHistory(handle, [])
    }))

  it.scopedLive("a conditional batch may be large", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      const receipts = yield* ledger.appendIf({ noneMatch: {}, after: 0 }, events(5000))
      expect(receipts.map((receipt) => receipt.offset)).toStrictEqual(Array.from({ length: 5000 }, (_, n) => n + 1))
      const again = yield* ledger.appendIf({ noneMatch: {}, after: 0 }, [...events(5000), event("one more")])
      expect(again[5000]).toStrictEqual(Receipt.Appended({ id: "one more", offset: 5001 }))
    }))

  it.scopedLive("a condition may name thousands of members and many filters", () =>
    Effect.gen(function*() {
      const { ledger } = yield* open(backend.layer())
      yield* ledger.append(event("first"))
      const many = Array.from({ length: 5000 }, (_, n) => `member-${n}`)
      const attempt = (noneMatch: Filters) =>
        Effect.either(ledger.appendIf({ noneMatch, after: 0 }, [event(`after ${JSON.stringify(noneMatch).length}`)]))
      const refused = Either.left(expect.objectContaining({ _tag: "AppendConditionFailed", offset: 1 }))
      expect(yield* attempt({ actors: [...many, "ada"] })).toStrictEqual(refused)
      expect(yield* attempt([...many.slice(0, 600).map((runId): Filter => ({ runId })), { runId: "run-1" }]))
        .toStrictEqual(
          refused
        )
      expect(Either.isRight(yield* attempt({ actors: many }))).toBe(true)
    }))

  describe("each field of a filter", () => {
    const handle = shared(backend.layer)
    const at = (minute: number) => DateTime.unsafeMake(epoch + minute * 60_000)
    const recorded = event("recorded", {
      kind: "agent.acted",
      createdAt: at(10),
      sessionId: "morning",
      modelId: "small"
    })
    const bare = event("bare", { runId: "bare", kind: "run.started", actor: "zed", createdAt: at(0) })
    const cases: ReadonlyArray<readonly [name: string, noneMatch: Filters, matching: boolean]> = [
      ["an empty filter", {}, true],
      ["its run", { runId: "run-1" }, true],
      ["another run", { runId: "run-2" }, false],
      ["its kind", { kinds: ["agent.acted"] }, true],
      ["its kind among others", { kinds: ["agent.spoke", "agent.acted", "tool.called"] }, true],
      ["other kinds", { kinds: ["agent.spoke", "tool.called"] }, false],
      ["its actor", { actors: ["bob", "ada"] }, true],
      ["another actor", { actors: ["bob"] }, false],
      ["its session", { sessionIds: ["evening", "morning"] }, true],
      ["another session", { sessionIds: ["evening"] }, false],
      ["its model", { modelIds: ["small"] }, true],
      ["another model", { modelIds: ["large", "null"] }, false],
      ["from its time", { createdFrom: at(10) }, true],
      ["from after its time", { createdFrom: DateTime.add(at(10), { millis: 1 }) }, false],
      ["until after its time", { createdUntil: DateTime.add(at(10), { millis: 1 }), createdFrom: at(1) }, true],
      ["until its time", { createdUntil: at(10), createdFrom: at(1) }, false],
      ["all its fields", {
        runId: "run-1",
        kinds: ["agent.acted"],
        actors: ["ada"],
        sessionIds: ["morning"],
        modelIds: ["small"],
        createdFrom: at(1),
        createdUntil: at(11)
      }, true],
      ["all its fields but one", { runId: "run-1", kinds: ["agent.acted"], actors: ["bob"] }, false],
      ["all its fields but the model", { actors: ["ada"], sessionIds: ["morning"], modelIds: ["large"] }, false],
      ["one filter of several", [{ runId: "run-2" }, { actors: ["bob"] }, { modelIds: ["small"] }], true],
      ["no filter of several", [{ runId: "run-2" }, { actors: ["bob"] }, { modelIds: ["large"] }], false],
      ["halves of two filters", [{ runId: "run-1", actors: ["bob"] }, { runId: "run-2", actors: ["ada"] }], false]
    ]

    it.live.each(cases)("a condition on %s", ([name, noneMatch, matching]) =>
      Effect.gen(function*() {
        const { admin, ledger } = yield* handle
        yield* admin.reset
        yield* ledger.appendAll([bare, recorded])
        const after = name === "an empty filter" ? 1 : 0
        const answer = yield* Effect.either(ledger.appendIf({ noneMatch, after }, [event("new")]))
        expect(answer).toStrictEqual(
          matching
            ? Either.left(expect.objectContaining({ _tag: "AppendConditionFailed", offset: 2 }))
            : Either.right([Receipt.Appended({ id: "new", offset: 3 })])
        )
      }))
  })

  const model = shared(backend.layer)
  const attempts = FastCheck.array(
    FastCheck.record({
      noneMatch: filters,
      // mostly near the head, sometimes beyond it
      behind: FastCheck.integer({ min: -1, max: 6 }),
      batch: FastCheck.uniqueArray(worldEvent(FastCheck.constantFrom("a", "b", "c", "d", "e", "f", "g", "h")), {
        selector: (one) => one.id,
        maxLength: 4
      }),
      again: FastCheck.boolean()
    }),
    { maxLength: 8 }
  )

  it.live.prop(
    "any sequence of conditional batches answers as the definition says",
    { attempts },
    ({ attempts }) =>
      Effect.gen(function*() {
        const handle = yield* model
        yield* handle.admin.reset
        const log: Array<Event> = []
        for (const { again, batch: drawn, behind, noneMatch } of attempts) {
          const after = Math.max(0, log.length - behind)
          // half of the time what is known is repeated as it is recorded
          const batch = drawn.map((one) => again ? log.find((known) => known.id === one.id) ?? one : one)
          const expected = decide(log, noneMatch, after, batch)
          const answer = yield* Effect.either(handle.ledger.appendIf({ noneMatch, after }, batch))
          expect(answer).toStrictEqual(
            typeof expected === "number"
              ? Either.left(expect.objectContaining({ _tag: "AppendConditionFailed", offset: expected }))
              : Either.right(expected)
          )
        }
        yield* expectHistory(handle, log)
      }),
    { fastCheck: { numRuns: 60 } }
  )

  it.scopedLive("of 16 fibers that finish one run on the same decision exactly one wins", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const { ledger } = handle
      const { offset } = yield* ledger.append(event("started", { kind: "run.started" }))
      const answers = yield* Effect.forEach(events(16, "finish", { kind: "run.finished" }), (one) =>
        Effect.either(
          ledger.appendIf({ noneMatch: { runId: "run-1", kinds: ["run.finished"] }, after: offset }, [one])
        ), {
        concurrency: "unbounded"
      })
      expect(answers.filter(Either.isRight).length).toBe(1)
      for (const answer of answers) {
        if (Either.isLeft(answer)) {
          expect(answer.left).toMatchObject({ _tag: "AppendConditionFailed", offset: 2 })
        }
      }
      yield* expectGapless(handle, 2)
    }))

  it.scopedLive("conditions on different runs do not disturb each other, however many are written together", () =>
    Effect.gen(function*() {
      const handle = yield* open(backend.layer())
      const { ledger } = handle
      yield* Effect.forEach(Array.from({ length: 40 }, (_, run) => `run-${run}`), (runId) =>
        Effect.gen(function*() {
          const first = yield* ledger.append(event(`${runId} started`, { runId }))
          yield* ledger.appendIf({ noneMatch: { runId }, after: first.offset }, [event(`${runId} went on`, { runId })])
        }), { concurrency: "unbounded" })
      yield* expectGapless(handle, 80)
    }))
}

/** The receipts that the batch gets, which is then in the log, or the offset that refuses it. */
const decide = (
  log: Array<Event>,
  noneMatch: Filters,
  after: number,
  batch: ReadonlyArray<Event>
): ReadonlyArray<Receipt> | number => {
  const known = batch.map((one) => log.findIndex((recorded) => recorded.id === one.id))
  if (known.includes(-1)) {
    if (after > log.length) return log.length
    const repeated = new Set(known.filter((place, index) => place >= 0 && isSameStep(log[place]!, batch[index]!)))
    const conflict = log.findIndex((recorded, place) =>
      place >= after && !repeated.has(place) && matches(noneMatch, recorded)
    )
    if (conflict >= 0) return conflict + 1
  }
  return batch.map((one, index) => {
    const place = known[index]!
    return place < 0
      ? Receipt.Appended({ id: one.id, offset: log.push(one) })
      : Receipt.Duplicate({ id: one.id, offset: place + 1, identical: isSameStep(log[place]!, one) })
  })
}

const isSameStep = (self: Event, that: Event): boolean => {
  const content = ({ createdAt: _, ...rest }: Event) => JSON.stringify(Object.entries(rest).sort())
  return content(self) === content(that)
}

/** A reader that polls while others append. */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { RecordedEvent } from "../../src/Event.js"
import { event } from "./fixtures.js"
import { collect, expectEvents, expectGapless, type Handle } from "./handle.js"

/**
 * Each writer appends alone, in batches, and the same event again, while the reader asks for what comes after the last
 * offset it saw. In the end it has seen everything, and history still is what it saw.
 */
export const follow = Effect.fnUntraced(function*(reader: Handle, writers: ReadonlyArray<Handle>) {
  const rounds = 6
  const running = yield* Effect.fork(Effect.forEach(writers, ({ ledger }, writer) =>
    Effect.gen(function*() {
      for (let round = 0; round < rounds; round++) {
        const id = (n: number) => `writer${writer}-${round}-${n}`
        yield* ledger.append(event(id(1)))
        yield* Effect.all([ledger.append(event(id(1))), ledger.appendAll([event(id(2)), event(id(1)), event(id(3))])], {
          concurrency: "unbounded"
        })
      }
    }), { concurrency: "unbounded", discard: true }))
  const seen: Array<RecordedEvent> = []
  const poll = Effect.map(
    Effect.suspend(() => collect(reader.ledger.tail(seen.length))),
    (more) => {
      for (const one of more) {
        expect(one.offset).toBe(seen.length + 1)
        seen.push(one)
      }
    }
  )
  let polls = 0
  while ((yield* running.poll)._tag === "None") {
    yield* poll
    polls++
    yield* Effect.yieldNow()
  }
  yield* running
  yield* poll
  expect(polls).toBeGreaterThan(1)
  expectEvents(seen, yield* expectGapless(reader, writers.length * rounds * 3))
})

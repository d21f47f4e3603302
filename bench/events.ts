/** The events that every side writes: about 250 bytes of payload, ids that arrive in no order. */
import { DateTime } from "effect"
import type { Event } from "../src/index.js"

let made = 0

/** Events that were never given out before, in turn of so many runs. */
export const make = (count: number, runs = 100): Array<Event.Event> =>
  Array.from({ length: count }, () => {
    const n = ++made
    return {
      id: `0190${(n * 2654435761 % 2 ** 32).toString(16).padStart(8, "0")}-${n}`,
      runId: `run-${n % runs}`,
      turn: n % 50,
      kind: n % 3 === 0 ? "agent.spoke" : "model.replied",
      actor: `actor-${n % 7}`,
      payload: {
        text: `line ${n} `.padEnd(180, "lorem ipsum "),
        tokens: n % 900,
        cost: n / 1000,
        tools: ["search", "read"]
      },
      createdAt: DateTime.unsafeMake(1_760_000_000_000 + n),
      schemaVersion: 1,
      sessionId: null,
      modelProfile: "fast",
      modelId: `model-${n % 3}`
    }
  })

export const chunks = <A>(all: ReadonlyArray<A>, size: number): Array<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(all.length / size) }, (_, index) => all.slice(index * size, (index + 1) * size))

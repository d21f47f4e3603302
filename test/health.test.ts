/**
 * What a process opened is closed, what it kept is let go, and nothing waits, under a mixed load of a few seconds. `npm run
 * health` looks for longer.
 */
import { assert, describe, it } from "@effect/vitest"
import { watch } from "./health/health.js"

const kinds = [
  "append",
  "batch",
  "duplicate",
  "condition",
  "run",
  "page",
  "tail",
  "visitor",
  "projection",
  "subscriber 1",
  "subscriber 2",
  "exactlyOnce",
  "atLeastOnce"
]

describe("under a mixed load, with a snapshot open for a while", () => {
  for (const backend of ["sqlite", "postgres"] as const) {
    it(
      `${backend}: handles and connections return to their start, the heap does not grow, nothing times out`,
      async () => {
        const { looks, problems, took, ...figures } = await watch({ backend, seconds: 4 })
        console.log(JSON.stringify(figures))
        assert.strictEqual(problems.join("\n"), "")
        assert.strictEqual(figures.handles.end, figures.handles.start)
        assert.isAbove(figures.handles.most, figures.handles.start)
        assert.strictEqual(figures.connections.end, 0)
        assert.strictEqual(figures.connections.most > 0, backend === "postgres")
        for (const [kind, count] of Object.entries(figures.calls)) assert.isAbove(count, 0, kind)
        assert.includeMembers(Object.keys(took), kinds)
        assert.isTrue(looks.some(({ phase }) => phase === "during"))
      },
      120_000
    )
  }
})

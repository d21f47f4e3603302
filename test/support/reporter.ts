import { writeSync } from "node:fs"
import { relative } from "node:path"
import type { Reporter, TestModule } from "vitest/node"

interface Counts {
  passed: number
  failed: number
  readonly skipped: Array<string>
}

const count = (modules: ReadonlyArray<TestModule>, unhandledErrors: number): Counts => {
  const counts: Counts = { passed: 0, failed: unhandledErrors, skipped: [] }
  for (const module of modules) {
    let failedHere = 0
    for (const test of module.children.allTests()) {
      const result = test.result()
      if (result.state === "passed") counts.passed++
      else if (result.state === "skipped") {
        const reason = result.note === undefined ? "" : ` (${result.note})`
        counts.skipped.push(`${relative(process.cwd(), module.moduleId)} > ${test.fullName}${reason}`)
      } else failedHere++ // a test still pending was cut off
    }
    // a file that cannot be loaded, or whose hook threw, has failed although no test of it has
    counts.failed += failedHere === 0 && !module.ok() ? 1 : failedHere
  }
  return counts
}

/**
 * Names every skipped test, with the reason where it has one, and closes the output with `N passed, N failed` alone on a line. Written when the process
 * exits, so that nothing (a teardown, the summary) comes after it.
 */
export default class ClosingLine implements Reporter {
  private counts: Counts = { passed: 0, failed: 0, skipped: [] }

  constructor() {
    process.once("exit", (code) => {
      const { passed, skipped } = this.counts
      const failed = this.counts.failed === 0 && code !== 0 ? 1 : this.counts.failed // a global set-up that threw
      const lines = skipped.map((name) => `skipped: ${name}\n`).join("")
      const tail = skipped.length > 0 ? `, ${skipped.length} skipped` : ""
      writeSync(1, `${lines}${passed} passed, ${failed} failed${tail}\n`)
    })
  }

  onTestRunEnd(modules: ReadonlyArray<TestModule>, unhandledErrors: ReadonlyArray<unknown>): void {
    this.counts = count(modules, unhandledErrors.length)
  }
}

/**
 * The program of `npm start`, killed in the middle again and again: it goes on where the log ends. That of `npm run
 * watch` sees what it writes.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { afterAll, describe, expect, inject, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { nextStep, type Step } from "../examples/cast.js"
import { type Event, Ledger, LedgerConfig } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"

const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31)
const kills = 5
const folder = mkdtempSync(join(tmpdir(), "effect-ledger-example-"))
const schema = `example_${process.pid}_${seed}`
const postgres = Redacted.make(inject("databaseUrl"))

afterAll(async () => {
  rmSync(folder, { recursive: true, force: true })
  await Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql.unsafe(`DROP SCHEMA "${schema}" CASCADE`)
  }).pipe(Effect.provide(PgLedger.layerUrl(postgres, { schema })), Effect.runPromise)
})

const backends = [
  ["SQLite", { DATABASE_URL: `sqlite:///${join(folder, "runs", "agents.db")}` }],
  ["Postgres", { DATABASE_URL: Redacted.value(postgres), LEDGER_SCHEMA: schema }]
] as const

describe(`examples/agents.ts (TEST_SEED=${seed})`, () => {
  for (const [name, environment] of backends) {
    it(`is killed again and again and repeats nothing, on ${name}`, { timeout: 180_000 }, async () => {
      const random = randomFrom(seed)
      const read = <A>(effect: Effect.Effect<A, unknown, Ledger.Ledger>) => {
        const { DATABASE_URL: url, ...rest } = environment
        const options = "LEDGER_SCHEMA" in rest ? { schema: rest.LEDGER_SCHEMA } : {}
        return Effect.runPromise(Effect.provide(effect, LedgerConfig.layerUrl(Redacted.make(url), options)))
      }

      const printed: Array<number> = []
      let history: ReadonlyArray<Event.RecordedEvent> = []
      const playOn = async (kill?: Kill) => {
        const output = await play(environment, kill)
        expectBeginning(output.text, history)
        printed.push(...offsetsIn(output.text))
        history = await read(Ledger.events)
        return output
      }

      let killed = 0
      let last = await playOn({ afterLines: 1, delay: random() * 40 })
      while (last.signal === "SIGKILL") {
        killed++
        // on a busy machine a kill may come late: the rest of the run is left in peace
        last = await playOn(
          killed < kills && history.length < 20
            ? { afterLines: Math.floor(random() * 4), delay: random() * 40 }
            : undefined
        )
      }
      if (last.code !== 0) throw new Error(last.text)
      expect(killed).toBeGreaterThan(0)
      expect(last.text).toContain(
        "  events in this run: 34\n  duplicates met: 1\n  runs in the ledger: 1\n  head: 34\n"
      )

      const undisturbed = playInMemory("run-1")
      const events = await read(Ledger.events)
      expect(events.map((event) => event.offset)).toEqual(undisturbed.map((_, index) => index + 1))
      expect(new Set(events.map((event) => event.id)).size).toBe(events.length)
      expect(events.map(({ actor, kind, payload, turn }) => ({ actor, kind, payload, turn }))).toEqual(undisturbed)

      // no line is printed twice; one may be missing for each kill, between the append and the terminal
      expect(printed).toEqual(Array.from(new Set(printed)).sort((a, b) => a - b))
      expect(events.length - printed.length).toBeLessThanOrEqual(killed)

      const next = await play(environment)
      expect(next.text).toContain("beginning run run-2\n")
      expect(next.text).toContain(
        "  events in this run: 34\n  duplicates met: 0\n  runs in the ledger: 2\n  head: 68\n"
      )
    })
  }
})

describe("examples/watch.ts", () => {
  for (const [name, backend] of backends) {
    it(`sees a run in another process, line by line, on ${name}`, { timeout: 120_000 }, async () => {
      const environment = { ...backend, LEDGER_PREFIX: "watched_" }
      const watch = (...args: ReadonlyArray<string>) =>
        start(["examples/watch.ts", ...args], environment, (text, child) => {
          if (/^ *#34 .*\n/m.test(text) && /^live at /m.test(text) && !child.killed) child.kill("SIGINT")
        })
      const [watched, played] = await Promise.all([watch(), play(environment)])
      expect(linesIn(watched.text)).toEqual(linesIn(played.text))
      expect(linesIn(watched.text)).toHaveLength(34)
      // once: that it has caught up with each of the lines goes without saying
      expect(watched.text.match(/^live at #\d+$/gm)).toHaveLength(1)
      expect(watched.text).toMatch(/\nstopped at #34\n$/)
      expect(watched.code).toBe(0)

      const rest = await watch("--from", "30")
      expect(linesIn(rest.text)).toEqual(linesIn(played.text).slice(30))
      expect(rest.text).toContain("\nlive at #34\n")

      const beyond = await watch("--from", "35")
      expect(beyond.text).toContain("beyond the head, 34")
      expect(beyond.code).toBe(1)
    })
  }
})

describe("examples/projections.ts", () => {
  for (const [name, backend] of backends) {
    it(`prints what the runs amount to, and goes on printing, on ${name}`, { timeout: 120_000 }, async () => {
      const environment = { ...backend, LEDGER_PREFIX: "projected_" }
      const project = (...args: ReadonlyArray<string>) =>
        start(["examples/projections.ts", ...args], environment, () => {})
      const empty = await project()
      expect(empty.text).toMatch(/^Projections of .*\n\nRuns\n {2}none\n\nLeaderboard\n {2}none\n$/)

      const following = start(["examples/projections.ts", "--follow", "--json"], environment, (text, child) => {
        if (text.includes("every wish was heard") && !child.killed) child.kill("SIGINT")
      })
      await play(environment)
      const reports = (await following).text.trim().split("\n").map((line) => JSON.parse(line))
      expect(reports.length).toBeGreaterThan(1)
      const { payload } = playInMemory("run-1").at(-1)!
      const run = {
        run: "run-1",
        scenario: "observatory",
        cast: ["ada", "bo", "cy"],
        winner: payload["target"],
        turns: 4
      }
      expect(reports.at(-1).runs).toMatchObject([run])

      // it opens what it saved, and finds nothing new
      const report = JSON.parse((await project("--json")).text)
      expect(report.runs).toMatchObject([run])
      expect(report.scores[0]).toMatchObject({ name: payload["target"], wins: 1, runs: 1 })
      const printed = await project()
      expect(printed.code).toBe(0)
      expect(printed.text).toContain(`\n\nOn stage in run-1, turn 4\n  actor  said\n  ada    `)
      expect(printed.text).toMatch(new RegExp(`\n {2}run-1 .* ${String(payload["target"])} +4\n`))

      const refused = await project("--what")
      expect(refused.text).toContain("usage: npm run projections")
      expect(refused.code).toBe(1)
    })
  }
})

/** What the program must say first, when the ledger holds this much of a run. */
const expectBeginning = (text: string, history: ReadonlyArray<Event.RecordedEvent>) => {
  if (history.length === 0) return expect(text).not.toContain("resuming")
  const turn = nextStep("run-1", history)?.turn
  expect(text).toContain(`resuming run run-1 at turn ${turn}; ${history.length} events found\n`)
}

interface Output {
  readonly text: string
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

interface Kill {
  /** How many lines of the run must be printed, and how many milliseconds must pass then. */
  readonly afterLines: number
  readonly delay: number
}

/** Runs the program, to its end or until it is killed some time after it has printed so many lines of the run. */
const play = (environment: Readonly<Record<string, string>>, kill?: Kill): Promise<Output> => {
  let doomed = false
  return start(["examples/agents.ts"], { ...environment, AGENTS_PACE: "40" }, (text, child) => {
    // from the moment on when it knows where it is: nothing is known of a process that has said nothing
    if (kill && !doomed && /^(beginning|resuming)/m.test(text) && linesIn(text).length >= kill.afterLines) {
      doomed = true
      setTimeout(() => child.kill("SIGKILL"), kill.delay)
    }
  })
}

/** Runs a program; `told` is called with all that it has said whenever it says more. */
const start = (
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>>,
  told: (text: string, child: ChildProcess) => void
): Promise<Output> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--import", "tsx", ...args], {
      env: { ...process.env, ...environment, NO_COLOR: "1" },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let text = ""
    child.stdout.on("data", (chunk) => {
      text += String(chunk)
      told(text, child)
    })
    child.stderr.on("data", (chunk) => {
      text += String(chunk)
    })
    child.once("error", reject)
    child.once("close", (code, signal) => resolve({ text, code, signal }))
  })

/** The lines of the run. */
const linesIn = (text: string): ReadonlyArray<string> => Array.from(text.matchAll(/^ *#\d+ .*\n/gm), ([line]) => line)

const offsetsIn = (text: string): ReadonlyArray<number> => linesIn(text).map((line) => Number(/#(\d+)/.exec(line)![1]))

const playInMemory = (runId: string): ReadonlyArray<Omit<Step, "step">> => {
  const events: Array<Event.Event> = []
  const steps: Array<Omit<Step, "step">> = []
  for (let next = nextStep(runId, events); next !== undefined; next = nextStep(runId, events)) {
    const { step: _, ...step } = next
    steps.push(step)
    events.push(step as unknown as Event.Event)
  }
  return steps
}

/** mulberry32: the same numbers for the same seed. */
const randomFrom = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

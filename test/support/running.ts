/** Processes, servers and folders that last as long as a test's scope. */
import { Effect, type Scope } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { type PostgresServer, startPostgres } from "./postgres.js"
import { startScript } from "./processes.js"

export interface Process {
  readonly pid: number
  /** What it printed, in whole lines. */
  readonly lines: ReadonlyArray<string>
  /** How it ended. */
  readonly ended: () => number | string | undefined
  readonly errors: () => string
  readonly failure: () => string
  readonly kill: Effect.Effect<void>
  readonly signal: (signal: NodeJS.Signals) => void
}

export const start = (
  script: string,
  args: ReadonlyArray<string>,
  env: Record<string, string>,
  onLine: (line: string) => void = () => {},
  execArgv: ReadonlyArray<string> = []
): Effect.Effect<Process, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async (): Promise<Process> => {
      const child = await startScript(script, args, env, execArgv)
      const lines: Array<string> = []
      let rest = ""
      let errors = ""
      let ended: number | string | undefined
      child.stdin?.on("error", () => {})
      child.stderr?.on("data", (chunk) => errors += String(chunk))
      child.stdout?.on("data", (chunk) => {
        const parts = (rest + String(chunk)).split("\n")
        rest = parts.pop() ?? ""
        for (const line of parts) {
          lines.push(line)
          onLine(line)
        }
      })
      const end = new Promise<void>((resolve) => {
        child.on("error", (error) => {
          errors += String(error)
        })
        child.on("close", (code, signal) => {
          ended = code ?? signal ?? "unknown"
          resolve()
        })
      })
      return {
        pid: child.pid!,
        lines,
        ended: () => ended,
        errors: () => errors,
        failure: () => `${script} ${args.join(" ")} ended with ${ended}: ${lines.at(-1)}\n${errors.slice(-4000)}`,
        kill: Effect.promise(() => {
          child.kill("SIGKILL")
          return end
        }),
        signal: (signal) => void child.kill(signal)
      }
    }),
    (process) => process.kill
  )

/** Waits until it is so, unless one of the processes fails. */
export const until = (condition: () => boolean, processes: ReadonlyArray<Process> = []): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (condition()) return Effect.void
    const failed = processes.find((process) => process.ended() !== undefined && process.ended() !== 0)
    return failed === undefined
      ? Effect.zipRight(Effect.sleep("5 millis"), until(condition, processes))
      : Effect.dieMessage(failed.failure())
  })

export const finished = (process: Process): Effect.Effect<void> => until(() => process.ended() === 0, [process])

export const folder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)

export const postgres: Effect.Effect<PostgresServer, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(() => startPostgres()),
  (server) => Effect.promise(() => server.stop())
)

/** What the processes that write and follow a log share with the test that starts them. */
import { Logger, Schedule } from "effect"
import { createHash } from "node:crypto"
import type { Event } from "../../src/index.js"

/** Numbers from 0 to 1 that follow from the seed. */
export const random = (seed: string): () => number => {
  let state = createHash("sha256").update(seed).digest().readUInt32LE()
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** For what may fail because the store is away, and then only. */
export const untilAvailable = Schedule.spaced("20 millis").pipe(
  Schedule.whileInput((error: unknown) => (error as { readonly _tag?: string })._tag === "StoreUnavailable")
)

/** A digest of every field of some events, in order. */
export const digester = () => {
  const hash = createHash("sha256")
  return {
    add: (event: Event.RecordedEvent): void => void hash.update(JSON.stringify(event)),
    text: (): string => hash.digest("hex")
  }
}

/** What these processes log is not among the lines that they print. */
export const logToStderr = Logger.replace(Logger.defaultLogger, Logger.withConsoleError(Logger.stringLogger))

/** However the process ends that started this one: its end of the standard input closes. */
export const endWithParent = (): void => {
  process.stdin.on("error", () => process.exit(1)).on("close", () => process.exit(1)).resume()
}

/** Ends the process once all that it printed has left it. */
export const endPrinted = (): void => void process.stdout.write("", () => process.exit())

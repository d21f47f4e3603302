/**
 * A process that makes COUNT events of about half a KiB, imports and exports them, imports that, and then a line without end:
 * `tracer.ts FOLDER COUNT`, to be run with `--expose-gc`, the ledger from the environment. Prints as JSON what each step
 * answered, and how much memory was in use on its way.
 */
import { Effect, Stream } from "effect"
import { createHash } from "node:crypto"
import { join } from "node:path"
import { LedgerConfig, Trace } from "../../src/index.js"
import { endPrinted, endWithParent, logToStderr } from "./following.js"

const [folder = "", count = "0"] = process.argv.slice(2)
const memory: Array<number> = []

/** Bytes that are held, and not only not yet collected. */
const sample = (done: number) =>
  Effect.sync(() => {
    if (done % 10_000 !== 0) return
    globalThis.gc?.()
    const { external, heapUsed } = process.memoryUsage()
    memory.push(heapUsed + external)
  })

/** A line without an end, and the bytes that are kept of it. */
const long = Effect.gen(function*() {
  const memory: Array<number> = []
  const parts = Stream.map(Stream.rechunk(Stream.range(1, 200), 1), (part) => {
    if (part % 20 === 0) {
      globalThis.gc?.()
      memory.push(process.memoryUsage().arrayBuffers)
    }
    return Buffer.alloc(2 ** 20, "x")
  })
  return { imported: yield* Trace.fromBytes(parts, { onInvalid: "skip" }), memory }
})

const program = Effect.gen(function*() {
  const lines = Stream.map(Stream.range(1, Number(count)), (turn) => {
    // of hash digits, so that the file does not shrink to nothing
    const said = createHash("sha512").update(String(turn)).digest("hex").repeat(4)
    return JSON.stringify({
      id: `step-${turn}`,
      run_id: "run",
      turn,
      kind: "agent.spoke",
      actor: "ada",
      payload: { said },
      created_at: "2026-01-01T00:00:00Z"
    })
  })
  const bytes = Stream.encodeText(Stream.map(lines, (line) => `${line}\n`))
  const imported = yield* Trace.fromBytes(bytes, { onProgress: ({ line }) => sample(line) })
  const exported = yield* Trace.toFile(join(folder, "out.jsonl.gz"), { onProgress: ({ count }) => sample(count) })
  const again = yield* Trace.fromFile(join(folder, "out.jsonl.gz"), { onProgress: ({ line }) => sample(line) })
  process.stdout.write(`${JSON.stringify({ imported, exported, again, memory, long: yield* long })}\n`)
})

endWithParent()
await Effect.runPromise(program.pipe(Effect.provide([LedgerConfig.layer, logToStderr])))
endPrinted()

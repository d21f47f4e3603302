/**
 * A thread that inserts the events of many callers while the program's own still runs those who append next, so that
 * little more than the commit is left when the last of them has come.
 */
import * as Effect from "effect/Effect"
import { Worker } from "node:worker_threads"
import type { AppendGroup } from "../LedgerStore.js"
import { pushColumns } from "./row.js"
import { findDriver } from "./sqliteDriver.js"

export interface Options {
  /** Its path, in full. */
  readonly file: string
  /** Whether another file is at its path by now. */
  readonly isLost: () => boolean
  /** How its connection is set up. */
  readonly pragmas: ReadonlyArray<string>
  /** Answers the last offset. */
  readonly last: string
  /** Statements that insert so many rows, the largest number first and one at the end. */
  readonly inserts: ReadonlyArray<readonly [rows: number, text: string]>
}

export interface Writer {
  /** Whether it may hold the lock. */
  readonly isBusy: () => boolean
  /** Says what will probably be written next, after what it was told since the last write. */
  readonly ahead: (groups: ReadonlyArray<AppendGroup>) => void
  /**
   * Writes new rows in one transaction, and calls `done` later, once, with the offset before the first of them:
   * `undefined` where nothing was written, for whatever reason, and the caller has to try by itself. Answers whether it
   * takes them.
   */
  readonly write: (groups: ReadonlyArray<AppendGroup>, done: (before: number | undefined) => void) => boolean
  /** Undoes what was only begun, and waits for what is being written. */
  readonly idle: Effect.Effect<void>
}

/** The thread is started by the first write, which it does not take. */
export const make = (options: Options) =>
  Effect.map(
    Effect.acquireRelease(Effect.sync(() => new Thread(options)), (thread) => thread.close),
    (thread): Writer => thread
  )

class Thread implements Writer {
  private state: "none" | "starting" | "ready" | "ended" = "none"
  private worker: Worker | undefined
  /** The number of the transaction that is under way over there, or was the last one. */
  private transaction = 0
  private busy = false
  /** What was sent for it. */
  private told: Array<AppendGroup> = []
  /** It is to be committed. */
  private done: ((before: number | undefined) => void) | undefined
  private waiting: Array<() => void> = []

  constructor(private readonly options: Options) {}

  isBusy(): boolean {
    return this.busy
  }

  ahead(groups: ReadonlyArray<AppendGroup>): void {
    if (this.state !== "ready" || this.done !== undefined) return
    this.begin()
    for (const group of groups) this.told.push(group)
    this.send(groups)
  }

  write(groups: ReadonlyArray<AppendGroup>, done: (before: number | undefined) => void): boolean {
    if (this.state === "none") this.start()
    if (this.state !== "ready" || this.done !== undefined) return false
    if (this.busy && this.told.some((group, index) => group !== groups[index])) {
      // somebody has left
      this.send([], "cancel")
      this.busy = false
    }
    this.begin()
    this.done = done
    this.send(groups.slice(this.told.length), "commit")
    return true
  }

  readonly idle = Effect.suspend(() => this.busy ? this.released : Effect.void)

  private readonly released = Effect.async<void>((resume) => {
    if (this.done === undefined) this.send([], "cancel")
    this.waiting.push(() => resume(Effect.void))
  })

  readonly close = Effect.suspend(() => {
    this.state = "ended"
    const { worker } = this
    // its connection is closed with it, which undoes what was only begun
    return worker === undefined ? Effect.void : Effect.promise(() => worker.terminate())
  })

  private begin(): void {
    if (this.busy) return
    this.busy = true
    this.told = []
    this.transaction++
    this.worker?.ref()
  }

  private send(groups: ReadonlyArray<AppendGroup>, end?: "commit" | "cancel"): void {
    const values: Array<unknown> = []
    for (const { rows } of groups) for (const row of rows) pushColumns(values, row).push(row.digest)
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has none
    this.worker?.postMessage({ transaction: this.transaction, values, end })
  }

  private finish(before?: number): void {
    if (!this.busy) return
    this.busy = false
    this.worker?.unref()
    const { done, waiting } = this
    this.done = undefined
    this.waiting = []
    // first, as the callers who are answered append again
    for (const resume of waiting) resume()
    done?.(before)
  }

  private start(): void {
    // once, whatever comes of it: Node may have been told to allow no thread
    this.state = "ended"
    const driver = findDriver()
    if (driver === undefined) return
    const { isLost, ...options } = this.options
    // nothing that this program was started with is of use over there
    this.worker = new Worker(code, { eval: true, execArgv: [], workerData: { ...options, driver, width: rowWidth } })
    this.state = "starting"
    this.worker.unref()
    this.worker.on("message", (answer: Answer) => {
      if (answer === "ready") this.state = isLost() ? "ended" : "ready"
      else if (answer.transaction === this.transaction) this.finish(answer.before)
    })
    const ended = () => {
      this.state = "ended"
      this.finish()
    }
    this.worker.on("error", ended)
    this.worker.on("exit", ended)
  }
}

/** The columns and the digest of a row, without its offset. */
const rowWidth = 12

type Answer = "ready" | { readonly transaction: number; readonly before?: number }

// each transaction is answered once; where the program's thread stands still, the lock is not kept for it
const code = `
const { parentPort, workerData: { driver, file, inserts, last, pragmas, width } } = require("node:worker_threads")
const patience = 20
const db = new (require(driver))(file, { fileMustExist: true, timeout: patience })
for (const text of pragmas) db.exec(text)
const [begin, commit, rollback] = ["BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"].map((text) => db.prepare(text))
const head = db.prepare(last).pluck()
const statements = inserts.map(([rows, text]) => [rows, db.prepare(text)])
let current = 0, isOpen = false, before, offset, timer
const insert = (values) => {
  for (let at = 0; at < values.length;) {
    const left = (values.length - at) / width
    const [rows, statement] = statements.find(([rows]) => rows <= left)
    const params = []
    for (let row = 0; row < rows; row++) {
      params.push(++offset)
      for (let column = 1; column < width; column++) params.push(values[at++])
      params.push(Buffer.from(values[at++], "hex"))
    }
    statement.run(params)
  }
}
const end = (answer) => {
  isOpen = false
  try {
    if (db.inTransaction) rollback.run()
  } finally {
    parentPort.postMessage({ transaction: current, ...answer })
  }
}
parentPort.on("message", ({ end: how, transaction, values }) => {
  if (transaction === current && !isOpen) return
  clearTimeout(timer)
  try {
    if (transaction !== current) {
      current = transaction
      isOpen = true
      begin.run()
      before = offset = head.get() ?? 0
    }
    if (how === "cancel") return end()
    insert(values)
    if (how === undefined) timer = setTimeout(end, patience)
    else {
      commit.run()
      end({ before })
    }
  } catch {
    end()
  }
})
parentPort.postMessage("ready")`

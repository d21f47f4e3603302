/** Who may open a SQLite file only to read it. */
import * as Fs from "node:fs"
import { StoreUnavailable } from "../LedgerError.js"

/**
 * A file in WAL mode needs two companions, which belong to whoever makes them, root's aside: another user, the writer,
 * could then not write them. Throws `StoreUnavailable` where that would be.
 */
export const assertShutsNobodyOut = (name: string): void => {
  const user = process.geteuid?.()
  if (user === undefined || user === 0) return
  const file = Fs.realpathSync(name)
  if (Fs.statSync(file).uid === user || Fs.existsSync(`${file}-shm`)) return
  const handle = Fs.openSync(file, "r")
  try {
    // the version of the file format for reading, which is 2 in WAL mode
    const version = Buffer.alloc(1)
    Fs.readSync(handle, version, 0, 1, 19)
    if (version[0] === 2) throw shutOut
  } finally {
    Fs.closeSync(handle)
  }
}

const shutOut = new StoreUnavailable({
  reason: "open: the file is another user's, and nobody has it open: what SQLite would put beside it would keep that " +
    "user from writing; open it while a writer has it open, or as its owner, or make a snapshot of it"
})

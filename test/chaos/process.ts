/** How the processes of the harness are spoken to: JSON in the first line of the standard input, then commands. */
import { createInterface } from "node:readline"

/** The first line; `onCommand` gets the others. When the input ends, so does the process: its parent is gone. */
export const configured = <A>(onCommand: (command: string) => void): Promise<A> =>
  new Promise((resolve) => {
    let first = true
    process.stdin.on("error", () => process.exit(1))
    createInterface(process.stdin).on("line", (line) => {
      if (first) resolve(JSON.parse(line))
      else onCommand(line)
      first = false
    }).on("close", () => process.exit(1))
  })

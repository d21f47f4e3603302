/** How a command ends. */
import * as Context from "effect/Context"
import * as Data from "effect/Data"

/** The command did not do what it was asked for, or found something wrong. */
export class Failed extends Data.TaggedError("Failed")<{ readonly message: string }> {}

/** The exit code when the person ends the command; a command whose end that is sets 0. */
export class Interruption extends Context.Tag("effect-ledger/cli/Interruption")<Interruption, { code: number }>() {}

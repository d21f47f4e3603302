/** The program `effect-ledger`. Its commands are described in docs/cli.md. */
import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as ValidationError from "@effect/cli/ValidationError"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as PlatformTerminal from "@effect/platform/Terminal"
import * as Cause from "effect/Cause"
import * as ConfigError from "effect/ConfigError"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Predicate from "effect/Predicate"
import { createRequire } from "node:module"
import { stripVTControlCharacters } from "node:util"
import { append, export_, import_, importAncestor } from "./carry.js"
import { Interruption } from "./exit.js"
import { incarnate, snapshot, verify } from "./guard.js"
import { consumers, reset } from "./keep.js"
import { info, runs, show, tail } from "./look.js"
import { Usage } from "./place.js"
import * as Terminal from "./terminal.js"

const program = Command.make("effect-ledger").pipe(
  Command.withSubcommands([
    info,
    runs,
    show,
    tail,
    append,
    export_,
    import_,
    importAncestor,
    snapshot,
    verify,
    consumers,
    incarnate,
    reset
  ])
)

/** What `--help` says; `COMMAND --help` comes from the command. */
const help = `effect-ledger: look at, copy and check a ledger, in a SQLite file or in Postgres.

effect-ledger COMMAND [--url URL] [--prefix PREFIX] [--schema SCHEMA] [--json] …

look
  info                      what the ledger is: backend, head, runs, size, durability
  runs                      the runs, newest first
  show RUN                  a run as a transcript
  tail [-f]                 the last events; with -f each new one too

bring in and out
  append                    one event from flags, or JSON Lines from standard input
  export [FILE]             events as JSON Lines; .gz and .zst are compressed
  import FILE               what export wrote
  import-ancestor SOURCE    what the Python SqlAlchemyLedger or SQLiteLedger wrote
  snapshot DESTINATION      a copy, with the same offsets and digests

keep in order
  verify                    whether it still holds what was written
  consumers                 how far each one is
  consumers reset NAME      forget one
  consumers dead-letters NAME
                            the events that it gave up on
  incarnate                 after a restore: this log goes on by itself from here
  reset                     delete every event

effect-ledger COMMAND --help tells of its flags, which follow the command.
--completions bash|zsh|fish prints a completion script, --version the version, --log-level debug says more.

environment
  DATABASE_URL              which ledger, where --url does not say it: runs/agents.db, postgresql://…
  LEDGER_PREFIX, LEDGER_SCHEMA, LEDGER_DURABILITY
  NO_COLOR                  no colours

exit codes
  0  done; so is a reader that has gone, and Ctrl-C in tail -f
  1  failed, or something wrong was found
  2  used wrongly: nothing was done
  130  ended by Ctrl-C
`

/** Runs the program, and answers its exit code. */
const main = (args: ReadonlyArray<string>): Effect.Effect<number, never, Interruption> =>
  Effect.suspend(() =>
    args.length <= 2 || (args.length === 3 && /^(--help|-h)$/.test(args[2] ?? ""))
      ? Terminal.write(help)
      : args.includes("--wizard")
      ? new Usage({ message: "there is no wizard: --help tells of the flags" })
      : Command.run(program, { name: "effect-ledger", version: version() })(lastDash(args))
  ).pipe(
    Effect.as(0),
    Effect.catchAll((error) => {
      // whoever reads has what he wants
      if (error._tag === "ClosedPipe") return Effect.succeed(0)
      // it has been told
      if (ValidationError.isValidationError(error)) return Effect.succeed(2)
      return Effect.as(tell(error, args), ConfigError.isConfigError(error) || wrongUse.has(error._tag) ? 2 : 1)
    }),
    Effect.provide(environment),
    Effect.withConsole(overTerminal)
  )

/** A `-` that stands for a stream ends the flags, as the parser sees it: so it comes last. */
const lastDash = (args: ReadonlyArray<string>): ReadonlyArray<string> =>
  /^(im|ex)port$/.test(args[2] ?? "") && args.includes("-") ? [...args.filter((arg) => arg !== "-"), "-"] : args

const wrongUse: ReadonlySet<string> = new Set(["Usage", "InvalidQuery", "InvalidEvent"])

const tell = (error: { readonly _tag: string }, args: ReadonlyArray<string>): Effect.Effect<void> => {
  const text = Predicate.hasProperty(error, "message") ? String(error.message) : String(error)
  const message = Terminal.withoutPasswords(text)
  return Terminal.say(
    args.includes("--json")
      ? Terminal.safeJson(JSON.stringify({ error: error._tag, message }))
      : `effect-ledger: ${message}`
  )
}

const version = (): string => String(createRequire(import.meta.url)("effect-ledger/package.json").version)

// the command line needs neither files nor prompts of its library: what would bring them is many times its size
const environment = Layer.mergeAll(
  CliConfig.layer({ showBuiltIns: false }),
  Path.layer,
  FileSystem.layerNoop({}),
  Layer.succeed(
    PlatformTerminal.Terminal,
    PlatformTerminal.Terminal.of({
      columns: Effect.sync(() => process.stdout.columns ?? 80),
      rows: Effect.sync(() => process.stdout.rows ?? 24),
      isTTY: Effect.succeed(false),
      readInput: Effect.dieMessage("no prompts"),
      readLine: Effect.fail(new PlatformTerminal.QuitException()),
      display: (text) => Effect.sync(() => void process.stdout.write(text))
    })
  ),
  Logger.replace(
    Logger.defaultLogger,
    Logger.make(({ logLevel, message }) => {
      const text = (Array.isArray(message) ? message : [message]).map((part) =>
        typeof part === "string" ? part : Inspectable.toStringUnknown(part, 0)
      )
      process.stderr.write(`${Terminal.safe(Terminal.withoutPasswords(`${logLevel.label}: ${text.join(" ")}`))}\n`)
    })
  ),
  Logger.minimumLogLevel(LogLevel.Warning)
)

// help, and what is wrong with the flags: it comes coloured, always
const overTerminal: Console.Console = (() => {
  const writeTo = (stream: NodeJS.WriteStream) => (...args: ReadonlyArray<unknown>) =>
    Effect.async<void>((resume) => {
      const text = Terminal.withoutPasswords(args.map(String).join(" "))
      stream.write(`${asOurs(Terminal.isColoured() ? text : stripVTControlCharacters(text))}\n`, () =>
        resume(Effect.void))
    })
  return {
    ...Context.get(DefaultServices.liveServices, Console.Console),
    log: writeTo(process.stdout),
    error: writeTo(process.stderr)
  }
})()

/**
 * In bash and zsh, a program whose name has a hyphen gets a script that does not find its subcommands; there is no wizard; usage
 * lacks the program, and the command that another is below; and what kind of text a flag takes its description says.
 */
const asOurs = (script: string): string =>
  /^(function |#compdef |complete )/.test(script)
    ? script
      .replaceAll("cmd=\"effect-ledger\"", "cmd=\"effect__ledger\"")
      .replaceAll(/^(\s*)effect-ledger\)$/gm, "$1effect__ledger)")
      .replaceAll("_effect-ledger__", "_effect__ledger__")
      .replaceAll(" --wizard", "")
      .split("\n")
      .filter((line) => !line.includes("wizard"))
      .join("\n")
    : script
      .replaceAll(
        /^\$ (?!consumers )/gm,
        process.argv[2] === "consumers" ? "$ effect-ledger consumers " : "$ effect-ledger "
      )
      .replaceAll(/^\$ (?=consumers )/gm, "$ effect-ledger ")
      .replaceAll(/^ *A (user-defined piece of text( that is confidential)?|true or false value)\.\n\n/gm, "")

// a reader that goes away is noticed by whoever writes next
process.stdout.on("error", () => {})
process.stderr.on("error", () => {})

const interruption = { code: 130 }
const fiber = Effect.runFork(Effect.provideService(main(process.argv), Interruption, interruption))

let signals = 0
for (const [signal, number] of [["SIGINT", 2], ["SIGTERM", 15], ["SIGHUP", 1]] as const) {
  process.on(signal, () => {
    if (signals++ > 0) process.exit(128 + number)
    if (signal !== "SIGINT") interruption.code = 128 + number
    Effect.runFork(Fiber.interrupt(fiber))
  })
}

fiber.addObserver((exit) => {
  if (Exit.isFailure(exit) && !Cause.isInterrupted(exit.cause)) {
    process.stderr.write(`${Terminal.withoutPasswords(Cause.pretty(exit.cause))}\n`)
  }
  process.exit(Exit.match(exit, {
    onSuccess: (code) => code,
    onFailure: (cause) => Cause.isInterrupted(cause) ? interruption.code : 1
  }))
})

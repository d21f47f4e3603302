/** The commands that keep a ledger in order: `consumers`, `reset`. */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Readline from "node:readline/promises"
import * as Consumer from "../Consumer.js"
import * as Ledger from "../Ledger.js"
import { Failed } from "./exit.js"
import * as Place from "./place.js"
import * as Terminal from "./terminal.js"

const name = Args.text({ name: "NAME" }).pipe(Args.withDescription("The consumer's name."))

const status = Command.make("consumers", Place.options, (flags) =>
  Effect.gen(function*() {
    const found = yield* Consumer.status
    const letters = new Map<string, number>()
    for (const { name } of found) {
      if (!letters.has(name)) letters.set(name, (yield* Consumer.deadLetters(name)).length)
    }
    if (flags.json) {
      return yield* Effect.forEach(found, ({ holder, lag, name, offset, partition, partitions }) =>
        Terminal.printJson({
          name,
          partition,
          partitions,
          offset,
          lag,
          holder,
          dead_letters: letters.get(name) ?? 0
        }), { discard: true })
    }
    if (found.length === 0) return yield* Terminal.say("no consumers")
    yield* Terminal.print(...Terminal.table(
      [
        { title: "CONSUMER" },
        { title: "PART" },
        { title: "OFFSET", number: true },
        { title: "LAG", number: true },
        { title: "DEAD", number: true },
        { title: "RUN BY" }
      ],
      found.map(({ holder, lag, name, offset, partition, partitions }) => [
        name,
        `${partition + 1}/${partitions}`,
        Terminal.count(offset),
        Terminal.count(lag),
        atMostListed(letters.get(name) ?? 0),
        holder ?? "nobody"
      ])
    ))
  }).pipe(Effect.provide(Place.changing(flags))))

/** The flags of a command below `consumers`, which stand before its name or after it. */
const withParents = (own: Place.Flags & { readonly json: boolean }) =>
  Effect.flatMap(status, (parents): Effect.Effect<typeof own, Place.Usage> => {
    const twice = (["url", "prefix", "schema"] as const).find((name) =>
      own[name]._tag === "Some" && parents[name]._tag === "Some"
    )
    return twice !== undefined ? new Place.Usage({ message: `--${twice} is given twice` }) : Effect.succeed({
      url: Option.orElse(own.url, () => parents.url),
      prefix: Option.orElse(own.prefix, () => parents.prefix),
      schema: Option.orElse(own.schema, () => parents.schema),
      json: own.json || parents.json
    })
  })

const resetConsumer = Command.make(
  "reset",
  { name, ...Place.options },
  ({ name, ...own }) =>
    Effect.flatMap(withParents(own), (flags) =>
      Effect.gen(function*() {
        yield* known(name)
        yield* Consumer.reset(name)
        yield* flags.json
          ? Terminal.printJson({ name, reset: true })
          : Terminal.print(`reset: ${Terminal.safe(name)} begins anew when it is run`)
      }).pipe(Effect.provide(Place.changing(flags))))
).pipe(
  Command.withDescription("Forget a consumer with its dead letters. Refused while a process runs it.")
)

const deadLetters = Command.make(
  "dead-letters",
  { name, ...Place.options },
  ({ name, ...own }) =>
    Effect.flatMap(withParents(own), (flags) =>
      Effect.gen(function*() {
        yield* known(name)
        for (let after = 0;;) {
          const letters = yield* Consumer.deadLetters(name, after)
          if (letters.length === 0) {
            if (after === 0 && !flags.json) yield* Terminal.say("no dead letters")
            return
          }
          if (flags.json) {
            for (const { attempts, failedAt, offset, reason } of letters) {
              yield* Terminal.printJson({ offset, attempts, failed_at: new Date(failedAt).toISOString(), reason })
            }
          } else {
            yield* Terminal.print(...Terminal.table(
              [{ title: "OFFSET", number: true }, { title: "ATTEMPTS", number: true }, { title: "FAILED" }, {
                title: "REASON"
              }],
              letters.map(({ attempts, failedAt, offset, reason }) => [
                `#${offset}`,
                Terminal.count(attempts),
                Terminal.time(failedAt),
                reason
              ])
            ))
          }
          after = letters.at(-1)?.offset ?? after
        }
      }).pipe(Effect.provide(Place.changing(flags))))
).pipe(
  Command.withDescription("List the events that a consumer gave up on, by offset.")
)

export const consumers = status.pipe(
  Command.withDescription(
    "Tell how far each consumer is, what lies before it, and how many events it gave up on (1,000 stands for as many or " +
      "more)."
  ),
  Command.withSubcommands([resetConsumer, deadLetters])
)

export const reset = Command.make(
  "reset",
  {
    yes: Options.boolean("yes").pipe(Options.withDescription("Do not ask: for scripts.")),
    ...Place.options
  },
  (flags) =>
    Effect.gen(function*() {
      const place = yield* Place.Place
      const head = yield* Ledger.latestOffset
      if (!flags.yes) {
        yield* Terminal.say(
          `This deletes ${Terminal.plural(head, "event")} of the ledger ${place.name} at ${place.shown}, for good.`
        )
        const answer = yield* ask(`Type ${place.name} to go on: `)
        if (answer !== place.name) return yield* new Failed({ message: "that is not its name: nothing was deleted" })
      }
      yield* Effect.flatMap(Ledger.LedgerAdmin, (admin) => admin.reset)
      const incarnation = yield* Ledger.incarnation
      yield* flags.json
        ? Terminal.printJson({ deleted: head, incarnation })
        : Terminal.print(`deleted ${Terminal.plural(head, "event")}; the incarnation is ${incarnation} now`)
    }).pipe(Effect.provide(Place.changing(flags)))
).pipe(
  Command.withDescription("Delete every event, and begin a new incarnation. Asks to type the ledger's name.")
)

const known = (name: string) =>
  Effect.flatMap(Consumer.status, (status) =>
    status.some((consumer) => consumer.name === name)
      ? Effect.void
      : new Failed({ message: `there is no consumer ${JSON.stringify(name)}` }))

const ask = (question: string): Effect.Effect<string, Place.Usage> =>
  process.stdin.isTTY && process.stderr.isTTY
    ? Effect.async<string>((resume, signal) => {
      const terminal = Readline.createInterface({ input: process.stdin, output: process.stderr })
      // Ctrl-C, which the interface keeps to itself
      terminal.on("SIGINT", () => process.kill(process.pid, "SIGINT"))
      terminal.question(question, { signal }).then(
        (answer) => resume(Effect.succeed(answer)),
        () => resume(Effect.interrupt)
      )
      return Effect.sync(() => terminal.close())
    }).pipe(Effect.map((answer) => (process.stdin.pause(), answer)))
    : new Place.Usage({ message: "there is no terminal to ask on: with --yes it is done without" })

const atMostListed = (letters: number): string => letters >= 1000 ? "1,000+" : Terminal.count(letters)

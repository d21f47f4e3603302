/** The commands that guard a ledger: `snapshot`, `verify`, `incarnate`. */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { badName, names } from "../internal/sqlStore.js"
import * as Ledger from "../Ledger.js"
import type { Head } from "../LedgerStore.js"
import * as Snapshot from "../Snapshot.js"
import * as Verify from "../Verify.js"
import { Failed } from "./exit.js"
import * as Place from "./place.js"
import * as Terminal from "./terminal.js"

export const snapshot = Command.make(
  "snapshot",
  {
    destination: Args.redacted({ name: "DESTINATION" }).pipe(
      Args.withDescription("Where the copy is to be: a path, a SQLite URL or a Postgres URL.")
    ),
    toPrefix: Options.text("to-prefix").pipe(
      Options.withDescription("The prefix of the copy's table names, ledger_ unless told."),
      Options.optional
    ),
    toSchema: Options.text("to-schema").pipe(
      Options.withDescription("The copy's Postgres schema."),
      Options.optional
    ),
    replace: Options.boolean("replace").pipe(
      Options.withDescription(
        "Whatever is at the destination is lost. Without it, only an older snapshot of this ledger is."
      )
    ),
    ...Place.options
  },
  (flags) =>
    Effect.gen(function*() {
      const report = yield* Terminal.progress("snapshot", "event")
      const copy = yield* Snapshot.to(flags.destination, {
        prefix: Option.getOrUndefined(flags.toPrefix),
        schema: Option.getOrUndefined(flags.toSchema),
        replace: flags.replace,
        onProgress: ({ copied, total }) => report({ done: copied, total })
      })
      const { bytes, count, digest, head, incarnation, parent } = copy
      if (flags.json) {
        return yield* Terminal.printJson({ head, count, bytes, digest, incarnation, parent: headJson(parent) })
      }
      const destination = Terminal.withoutPasswords(Redacted.value(flags.destination))
      yield* Terminal.print(
        `copied ${Terminal.plural(count, "event")} to ${Terminal.safe(destination)}`,
        ...Terminal.pairs([
          ["head", Terminal.count(head)],
          ["content", Terminal.bytes(bytes)],
          ["digest", digest],
          ["incarnation", incarnation],
          ["goes on from", `${parent.incarnation} at #${parent.offset}`]
        ])
      )
    }).pipe(
      Effect.scoped,
      Effect.provide(Place.reading(flags)),
      (command) =>
        Effect.flatMap(Place.parse(flags.destination), (destination): typeof command => {
          if (destination._tag === "Sqlite" && Place.isGiven(flags.toSchema)) {
            return Place.noSchema("--to-schema", destination.filename)
          }
          const prefix = Option.getOrElse(flags.toPrefix, () => "ledger_")
          return names(prefix, Option.getOrUndefined(flags.toSchema)) === undefined
            ? new Place.Usage({ message: `--to-prefix, --to-schema: ${badName}` })
            : command
        })
    )
).pipe(
  Command.withDescription(
    "Copy the ledger, whole or not at all, with the same offsets and digests, while writers go on; each event is compared " +
      "with its digest. Checkpoints of consumers do not come along."
  )
)

export const verify = Command.make("verify", Place.options, (flags) =>
  Effect.gen(function*() {
    const report = yield* Terminal.progress("verify", "event")
    const { bytes, checked, count, digest, head, problems } = yield* Verify.run({
      onProgress: ({ checked, total }) => report({ done: checked, total })
    })
    yield* flags.json
      ? Terminal.printJson({ sound: count === 0, head, checked, bytes, digest, count, problems })
      : Terminal.print(
        ...problems.map(({ offset, what }) =>
          `${Terminal.red(offset === null ? "ledger" : `#${offset}`)}  ${Terminal.safe(what)}`
        ),
        `${Terminal.plural(checked, "event")} checked, digest ${digest}`,
        ...count === 0 ? [Terminal.green("sound")] : []
      )
    if (count > 0) return yield* new Failed({ message: `${Terminal.plural(count, "problem")} found` })
  }).pipe(Effect.scoped, Effect.provide(Place.reading(flags)))).pipe(
    Command.withDescription(
      "Read the whole ledger, recompute every digest, and check offsets, indices, triggers and checkpoints. Exit code 1 and " +
        "the offsets when something is wrong (the first 1,000). Writers go on."
    )
  )

export const incarnate = Command.make("incarnate", Place.options, (flags) =>
  Effect.gen(function*() {
    const { incarnation, parents } = yield* Effect.flatMap(Ledger.LedgerAdmin, (admin) => admin.incarnate)
    const [parent] = parents
    yield* flags.json
      ? Terminal.printJson({ incarnation, parents: parents.map(headJson) })
      : Terminal.print(...Terminal.pairs([
        ["incarnation", incarnation],
        ...parent === undefined ? [] : [["goes on from", `${parent.incarnation} at #${parent.offset}`] as const]
      ]))
  }).pipe(Effect.provide(Place.changing(flags)))).pipe(
    Command.withDescription(
      "Declare, after a restore or a failover, that this log goes on by itself from here. Events stay; cursors and consumers " +
        "of the old incarnation fail rather than skip what was lost."
    )
  )

const headJson = ({ digest, incarnation, offset }: Head) => ({ incarnation, offset, digest })

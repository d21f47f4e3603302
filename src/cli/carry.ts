/** The commands that bring events in and out: `append`, `export`, `import`, `import-ancestor`. */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Fs from "node:fs"
import * as Ancestor from "../Ancestor.js"
import * as Event from "../Event.js"
import { expectedSource, isSource } from "../internal/cloudEvent.js"
import { parseTime } from "../internal/fields.js"
import { JsonRefusal, parseJson } from "../internal/jsonText.js"
import { readBytes } from "../internal/traceFile.js"
import * as Ledger from "../Ledger.js"
import type { InvalidEvent } from "../LedgerError.js"
import * as Trace from "../Trace.js"
import { Failed } from "./exit.js"
import * as Filters from "./filters.js"
import * as Place from "./place.js"
import * as Terminal from "./terminal.js"

const optional = (name: string, description: string) =>
  Options.text(name).pipe(Options.withDescription(description), Options.optional)

const skipInvalid = Options.boolean("skip-invalid").pipe(
  Options.withDescription("Skip and report what is no event, instead of stopping there.")
)

export const append = Command.make(
  "append",
  {
    run: optional("run", "Its run."),
    kind: optional("kind", "Its kind, such as agent.spoke."),
    actor: optional("actor", "Its actor."),
    turn: Options.integer("turn").pipe(Options.withDescription("Its turn, 0 unless told."), Options.optional),
    payload: optional("payload", "Its payload, a JSON object; {} unless told."),
    text: optional("text", "A payload that is {\"text\": …}."),
    id: optional("id", "Its id: repeating the command with the same one writes nothing. A new one unless told."),
    session: optional("session", "Its session."),
    modelProfile: optional("model-profile", "The profile of its model."),
    model: optional("model", "Its model."),
    schemaVersion: Options.integer("schema-version").pipe(
      Options.withDescription("The version of its payload's schema, 1 unless told."),
      Options.optional
    ),
    at: optional("at", "When it was created (ISO 8601), now unless told."),
    ...Place.options
  },
  (flags) =>
    Effect.gen(function*() {
      // what is left is what makes an event
      const { json, prefix: _, schema: __, url: ___, ...fields } = flags
      // whatever is wrong with it is found before a ledger is made
      const command: Appending = Object.values(fields).some((field) => field._tag === "Some")
        ? appendOne(yield* eventOf(fields), json)
        : appendLines(yield* lines, json)
      return yield* Effect.provide(command, Place.making(flags))
    })
).pipe(
  Command.withDescription(
    "Append one event, made of the flags, or, without any of them, the events on standard input: JSON Lines, as `export` " +
      "writes them. Makes the ledger where there is none. An id that is recorded with other content is exit code 1."
  )
)

export const export_ = Command.make(
  "export",
  {
    file: Args.text({ name: "FILE" }).pipe(
      Args.withDescription("The file, compressed when its name ends in .gz or .zst; - or none is standard output."),
      Args.optional
    ),
    cloudEvents: optional("cloudevents", "Write CloudEvents 1.0 from this source, a URI reference."),
    ...Filters.filter,
    ...Filters.range,
    limit: Filters.limit,
    ...Place.options
  },
  (flags) => {
    const source = Option.getOrUndefined(flags.cloudEvents)
    if (source !== undefined && !isSource(source)) {
      return new Place.Usage({ message: `--cloudevents: ${expectedSource}` })
    }
    return Effect.gen(function*() {
      const query = {
        filter: Filters.toFilter(flags),
        ...Filters.toRange(flags),
        limit: Option.getOrUndefined(flags.limit)
      }
      const file = Option.getOrElse(flags.file, () => "-")
      if (file === "-") {
        const lines = source === undefined ? Trace.lines(query) : Trace.cloudEvents(source, query)
        return yield* Stream.runForEachChunk(lines, (lines) => Terminal.print(...[...lines].map(Terminal.safeJson)))
      }
      const report = yield* Terminal.progress("export", "event")
      const last = Math.min(yield* Ledger.latestOffset, Option.getOrElse(flags.through, () => Infinity))
      const from = Option.getOrElse(flags.after, () => 0)
      const format: Trace.Format = source === undefined ? {} : { format: "cloudevents", source }
      const exported = yield* Trace.toFile(file, {
        ...query,
        ...format,
        onProgress: ({ count, offset }) => report({ done: count, fraction: (offset - from) / (last - from) })
      })
      const { bytes, count, head, incarnation, offset } = exported
      yield* flags.json
        ? Terminal.printJson({ file, count, offset, head, incarnation, bytes })
        : Terminal.print(
          `exported ${Terminal.plural(count, "event")} to ${Terminal.safe(file)}, ${Terminal.bytes(bytes)}`
        )
    }).pipe(Effect.scoped, Effect.provide(Place.reading(flags)))
  }
).pipe(
  Command.withDescription(
    "Write events as JSON Lines, all or those that match, in constant memory. A file is complete or not there."
  )
)

export const import_ = Command.make(
  "import",
  {
    file: Args.text({ name: "FILE" }).pipe(
      Args.withDescription("The file, decompressed when its name ends in .gz or .zst; - is standard input.")
    ),
    skipInvalid,
    cloudEvents: Options.boolean("cloudevents").pipe(Options.withDescription("The lines are CloudEvents 1.0.")),
    ...Place.options
  },
  (flags) =>
    Effect.gen(function*() {
      const report = yield* Terminal.progress("import", "event")
      const { file } = flags
      const size = file === "-" || /\.(gz|zst)$/.test(file)
        ? undefined
        : Fs.statSync(file, { throwIfNoEntry: false })?.size
      let read = 0
      let last: Trace.Imported | undefined
      const options: Trace.ImportOptions = {
        format: flags.cloudEvents ? "cloudevents" : "ledger",
        onInvalid: flags.skipInvalid ? "skip" : "fail",
        onProgress: (imported) => {
          last = imported
          return report({ done: seen(imported), fraction: size === undefined ? undefined : read / size })
        }
      }
      const counted = <E>(bytes: Stream.Stream<Uint8Array, E>) =>
        Stream.tap(bytes, (part) =>
          Effect.sync(() => {
            read += part.length
          }))
      const source: Stream.Stream<
        Uint8Array,
        Effect.Effect.Error<ReturnType<typeof Trace.fromFile>> | Terminal.InputFailed
      > = file === "-" ? Terminal.stdin : readBytes(file)
      const imported = yield* Trace.fromBytes(counted(source), options).pipe(
        tellingHowFar(() => last === undefined ? undefined : { ...last, place: `line ${last.line}` }, flags.json)
      )
      yield* tellImported(
        imported,
        imported.invalidLines.map(({ line, reason }) => `line ${line}: ${reason}`),
        flags.json
      )
    }).pipe(Effect.scoped, Effect.provide(Place.making(flags)))
).pipe(
  Command.withDescription(
    "Append the events of a file that `export` wrote. What is recorded already is counted and not written: an import that " +
      "was cut off is repeated as it is. Makes the ledger where there is none. Ids that are recorded with other content are " +
      "listed, and exit code 1."
  )
)

export const importAncestor = Command.make(
  "import-ancestor",
  {
    source: Args.redacted({ name: "SOURCE" }).pipe(
      Args.withDescription("The ancestor's database: a path, a SQLite URL or a Postgres URL. It is only read.")
    ),
    skipInvalid,
    ...Place.options
  },
  (flags) =>
    Effect.gen(function*() {
      const report = yield* Terminal.progress("import", "event")
      let last: Ancestor.Imported | undefined
      const imported = yield* Ancestor.importFrom(flags.source, {
        onInvalid: flags.skipInvalid ? "skip" : "fail",
        onProgress: (imported) => {
          last = imported
          return report({ done: seen(imported), fraction: imported.offset / imported.head })
        }
      }).pipe(
        tellingHowFar(() => last === undefined ? undefined : { ...last, place: `offset ${last.offset}` }, flags.json)
      )
      yield* tellImported(
        imported,
        imported.invalidRows.map(({ offset, reason }) => `offset ${offset}: ${reason}`),
        flags.json
      )
    }).pipe(
      Effect.scoped,
      Effect.provide(Place.making(flags)),
      // what can be no source is found before a ledger is made
      (command) => Effect.zipRight(Place.parse(flags.source), command)
    )
).pipe(
  Command.withDescription(
    "Append the events of a database that the Python SqlAlchemyLedger or SQLiteLedger wrote. Repeating it is safe."
  )
)

type EventFlags =
  & {
    readonly [K in "run" | "kind" | "actor" | "payload" | "text" | "id" | "session" | "modelProfile" | "model" | "at"]:
      Option.Option<string>
  }
  & { readonly turn: Option.Option<number>; readonly schemaVersion: Option.Option<number> }

const eventOf = (flags: EventFlags): Effect.Effect<Event.Event, Place.Usage | InvalidEvent> =>
  Effect.gen(function*() {
    const missing = (["run", "kind", "actor"] as const).filter((name) => Option.isNone(flags[name]))
    if (missing.length > 0) {
      return yield* new Place.Usage({ message: `an event also needs ${missing.map((name) => `--${name}`).join(", ")}` })
    }
    const given = Option.getOrUndefined
    return yield* Event.create({
      id: given(flags.id),
      runId: given(flags.run)!,
      turn: Option.getOrElse(flags.turn, () => 0),
      kind: given(flags.kind)!,
      actor: given(flags.actor)!,
      payload: yield* payloadOf(given(flags.payload), given(flags.text)),
      createdAt: yield* timeOf(given(flags.at)),
      schemaVersion: given(flags.schemaVersion),
      sessionId: given(flags.session),
      modelProfile: given(flags.modelProfile),
      modelId: given(flags.model)
    })
  })

const appendOne = (event: Event.Event, json: boolean) =>
  Effect.gen(function*() {
    const receipt = yield* Ledger.append(event)
    const identical = receipt._tag === "Appended" || receipt.identical
    const status = receipt._tag === "Appended" ? "appended" : identical ? "duplicate" : "divergent"
    yield* json
      ? Terminal.printJson({ status, id: receipt.id, offset: receipt.offset })
      : Terminal.print(
        `${status === "appended" ? "appended" : "already recorded"} #${receipt.offset} ${Terminal.safe(receipt.id)}`
      )
    if (!identical) {
      return yield* new Failed({
        message: `the id is recorded with other content, at #${receipt.offset}; nothing was written`
      })
    }
  })

type Appending = Effect.Effect<
  void,
  Effect.Effect.Error<ReturnType<typeof appendOne> | ReturnType<typeof appendLines>>,
  Ledger.Ledger
>

const payloadOf = (
  payload: string | undefined,
  text: string | undefined
): Effect.Effect<Event.JsonObject, Place.Usage> => {
  if (payload === undefined) return Effect.succeed(text === undefined ? {} : { text })
  if (text !== undefined) return new Place.Usage({ message: "give --payload or --text, not both" })
  const value = parseJson(payload)
  return value instanceof JsonRefusal
    ? new Place.Usage({ message: `--payload: ${value.reason}` })
    // whether it is an object is asked with all else
    : Effect.succeed(value as Event.JsonObject)
}

const timeOf = (text: string | undefined): Effect.Effect<DateTime.Utc | undefined, Place.Usage> => {
  if (text === undefined) return Effect.succeed(undefined)
  const millis = parseTime(text)
  return millis === undefined
    ? new Place.Usage({ message: "--at: expected an ISO 8601 date and time, such as 2026-11-23T18:00:00Z" })
    : Effect.succeed(DateTime.unsafeMake(millis))
}

const lines = Effect.suspend(() =>
  process.stdin.isTTY
    ? new Place.Usage({
      message: "give an event by flags (--run, --kind, --actor, …), or JSON Lines on standard input"
    })
    : Effect.succeed(Terminal.stdin)
)

const appendLines = (lines: typeof Terminal.stdin, json: boolean) =>
  Effect.flatMap(Trace.fromBytes(lines), (imported) => tellImported(imported, [], json))

interface Counts {
  readonly appended: number
  readonly duplicates: number
  readonly divergent: number
  readonly invalid: number
}

const seen = ({ appended, divergent, duplicates, invalid }: Counts): number =>
  appended + divergent + duplicates + invalid

const counts = ({ appended, divergent, duplicates, invalid }: Counts): string =>
  `${Terminal.count(appended)} appended, ${Terminal.plural(duplicates, "duplicate")}, ` +
  `${Terminal.count(divergent)} divergent, ${Terminal.count(invalid)} invalid`

const tellImported = (
  { divergentIds, ...imported }: Counts & { readonly divergentIds: ReadonlyArray<string> },
  invalid: ReadonlyArray<string>,
  json: boolean
) =>
  Effect.gen(function*() {
    const { appended, divergent, duplicates } = imported
    yield* json
      ? Terminal.printJson({
        appended,
        duplicates,
        divergent,
        invalid: imported.invalid,
        divergent_ids: divergentIds,
        invalid_reasons: invalid
      })
      : Terminal.print(
        counts(imported),
        ...divergentIds.map((id) => `divergent: ${Terminal.safe(id)}`),
        ...invalid.map((reason) => `invalid: ${Terminal.safe(reason)}`)
      )
    if (divergent > 0) {
      return yield* new Failed({
        message: `${Terminal.plural(divergent, "id")} recorded with other content: what was recorded first stands`
      })
    }
  })

/** What was done before the end, when it was not the end of the work. */
const tellingHowFar =
  (far: () => (Counts & { readonly place: string }) | undefined, json: boolean) =>
  <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.onExit(self, (exit) => {
      const last = far()
      if (exit._tag === "Success" || last === undefined) return Effect.void
      const { appended, divergent, duplicates, invalid, place } = last
      return Terminal.say(
        json
          ? JSON.stringify({ stopped_after: place, appended, duplicates, divergent, invalid })
          : `stopped after ${place}: ${counts(last)}; the same command goes on from here`
      )
    })

/** The commands that look: `info`, `runs`, `show`, `tail`. */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Chunk from "effect/Chunk"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Event from "../Event.js"
import { formatLine } from "../internal/traceLine.js"
import * as Ledger from "../Ledger.js"
import { CorruptEvent, type ReadError } from "../LedgerError.js"
import { LedgerStore } from "../LedgerStore.js"
import { Failed, Interruption } from "./exit.js"
import * as Filters from "./filters.js"
import * as Place from "./place.js"
import * as Terminal from "./terminal.js"

export const info = Command.make("info", Place.options, (flags) =>
  Effect.gen(function*() {
    const place = yield* Place.Place
    const head = yield* (yield* LedgerStore).head
    const runs = (yield* Ledger.runs).length
    const size = yield* place.bytes
    if (flags.json) {
      return yield* Terminal.printJson({
        backend: place.backend.toLowerCase(),
        url: place.shown,
        name: place.name,
        prefix: place.prefix,
        schema: place.schema,
        head: head.offset,
        runs,
        bytes: size,
        durability: place.durability,
        set_up_version: place.setUpVersion,
        incarnation: head.incarnation
      })
    }
    yield* Terminal.print(...Terminal.pairs([
      ["backend", place.backend],
      ["where", place.shown],
      ["prefix", place.prefix],
      ...(place.schema === null ? [] : [["schema", place.schema] as const]),
      ["head", Terminal.count(head.offset)],
      ["runs", Terminal.count(runs)],
      ["size", Terminal.bytes(size)],
      ["durability", place.durability],
      ["set-up", `version ${place.setUpVersion}`],
      ["incarnation", head.incarnation]
    ]))
  }).pipe(Effect.provide(Place.reading(flags)))).pipe(
    Command.withDescription(
      "Tell what the ledger is: backend, head, runs, size, durability, set-up version, incarnation. " +
        "Costs one index probe a run. Durability is what a program with this environment would get."
    )
  )

export const runs = Command.make(
  "runs",
  { ...Filters.filter, ...Filters.range, limit: Filters.limit, ...Place.options },
  (flags) =>
    Effect.gen(function*() {
      const through = Option.getOrElse(flags.through, () => Number.MAX_SAFE_INTEGER)
      const head = Math.min(through, yield* Ledger.latestOffset)
      const ids = yield* newestRuns(flags, head, Option.getOrElse(flags.limit, () => 20))
      const described = Stream.mapEffect(Stream.fromIterable(ids), (runId) => describeRun(runId, head))
      if (flags.json) return yield* Stream.runForEach(described, Terminal.printJson)
      const found = Chunk.toReadonlyArray(yield* Stream.runCollect(described))
      if (found.length === 0) return yield* Terminal.say("no runs")
      yield* Terminal.print(...Terminal.table(
        [
          { title: "RUN" },
          { title: "EVENTS", number: true },
          { title: "FIRST" },
          { title: "LAST" },
          { title: "ACTORS" },
          { title: "MODELS" }
        ],
        found.map((run) => [
          run.run_id,
          Terminal.count(run.events),
          Terminal.time(Date.parse(run.first)),
          Terminal.time(Date.parse(run.last)),
          few(run.actors),
          few(run.models)
        ])
      ))
    }).pipe(Effect.provide(Place.reading(flags)))
).pipe(
  Command.withDescription(
    "List runs, newest first: by their last event, or by their last one that matches the filters; 20 unless --limit " +
      "says otherwise. What is told of a run is of all its events, up to --through. Reads back from the newest event until it has found " +
      "that many runs, and then every event of these; memory grows with --limit alone."
  )
)

export const show = Command.make(
  "show",
  { run: Args.text({ name: "RUN" }).pipe(Args.withDescription("The run to read.")), ...Place.options },
  (flags) =>
    Effect.gen(function*() {
      const filter = { runId: flags.run }
      const first = yield* Stream.runHead(Ledger.read({ filter, limit: 1 }))
      if (Option.isNone(first)) return yield* new Failed({ message: `there is no run ${JSON.stringify(flags.run)}` })
      if (flags.json) return yield* Stream.runForEach(jsonLines(Ledger.read({ filter })), Terminal.write)
      yield* Terminal.print(Terminal.bold(Terminal.safe(flags.run)))
      let turn = -1
      let day = ""
      let shown = 0
      yield* Stream.runForEachChunk(Ledger.read({ filter }), (events) => {
        let text = ""
        for (const event of events) {
          const at = Terminal.time(DateTime.toEpochMillis(event.createdAt))
          if (event.turn !== turn || at.slice(0, 10) !== day) {
            text += `\n${Terminal.bold(`turn ${event.turn}`)}  ${Terminal.dim(at.slice(0, 10))}\n`
          }
          turn = event.turn
          day = at.slice(0, 10)
          shown++
          text += transcriptLine(event, at.slice(11))
        }
        return Terminal.write(text)
      })
      yield* Terminal.print("", Terminal.dim(Terminal.plural(shown, "event")))
    }).pipe(Effect.provide(Place.reading(flags)))
).pipe(
  Command.withDescription(
    "Read a run as a transcript, in offset order, in constant memory. With --json, a line for each event, as `export` " +
      "writes them."
  )
)

export const tail = Command.make(
  "tail",
  {
    follow: Options.boolean("follow").pipe(
      Options.withAlias("f"),
      Options.withDescription("Go on with each new event as it is recorded, until Ctrl-C, which tells the offset.")
    ),
    ...Filters.filter,
    ...Filters.range,
    limit: Filters.limit,
    ...Place.options
  },
  (flags) =>
    Effect.gen(function*() {
      const filter = Filters.toFilter(flags)
      const page = flags.json ? jsonLines : textLines
      const ledger = yield* Ledger.Ledger
      const incarnation = yield* ledger.incarnation
      const head = yield* ledger.latestOffset
      const after = Option.getOrElse(flags.after, () => 0)
      const through = Math.min(head, Option.getOrElse(flags.through, () => head))
      if (
        flags.follow && (Option.isSome(flags.through) || (Option.isSome(flags.after) && Option.isSome(flags.limit)))
      ) {
        return yield* new Place.Usage({
          message: "--follow goes on: it takes no --through, and no --limit with --after"
        })
      }
      // without a place to begin, the last ones
      const past = Option.isNone(flags.after)
        ? Stream.unwrap(Effect.map(
          // however many they are, only the first of them is kept
          Stream.runLast(ledger.read({
            filter,
            through,
            direction: "backward",
            limit: Option.getOrElse(flags.limit, () => 10)
          })),
          Option.match({
            onNone: () => Stream.empty,
            onSome: ({ offset }) => ledger.read({ filter, after: { after: offset - 1, incarnation }, through })
          })
        ))
        : ledger.read({
          filter,
          after: { after, incarnation },
          through,
          limit: Option.getOrUndefined(flags.limit)
        })
      if (after > head) yield* Stream.runDrain(ledger.tail(after))
      yield* Stream.runForEach(page(past), Terminal.write)
      if (!flags.follow) return

      let told = Math.max(after, head)
      ;(yield* Interruption).code = 0
      yield* ledger.follow({ after: { after: told, incarnation }, filter }).pipe(
        Stream.runForEach((followed) => {
          switch (followed._tag) {
            case "Recorded":
              return Stream.runForEach(page(Stream.succeed(followed.event)), Terminal.write).pipe(
                Effect.zipRight(Effect.sync(() => {
                  told = followed.event.offset
                }))
              )
            case "CaughtUp":
              return Effect.sync(() => {
                told = Math.max(told, followed.head)
              })
            case "Behind":
              return Effect.void
          }
        }),
        Effect.onInterrupt(() => Terminal.say(`stopped after offset ${told}: --after ${told} goes on from there`))
      )
    }).pipe(Effect.provide(Place.reading(flags)))
).pipe(
  Command.withDescription(
    "Print events, a line each: the last ten that match (or --limit), or all after an offset (--after). " +
      "With --follow it goes on, and misses nothing."
  )
)

interface Run {
  readonly run_id: string
  readonly events: number
  readonly first: string
  readonly last: string
  readonly first_offset: number
  readonly last_offset: number
  readonly actors: ReadonlyArray<string>
  readonly models: ReadonlyArray<string>
}

const newestRuns = (
  flags: Parameters<typeof Filters.toFilter>[0] & Parameters<typeof Filters.toRange>[0],
  through: number,
  limit: number
): Effect.Effect<Iterable<string>, ReadError | Place.Usage, Ledger.Ledger> =>
  Effect.gen(function*() {
    if (limit < 1) return yield* new Place.Usage({ message: "--limit: expected a whole number from 1" })
    const found = new Set<string>()
    yield* Ledger.read({
      ...Filters.toRange(flags),
      filter: Filters.toFilter(flags),
      through,
      direction: "backward"
    }).pipe(
      Stream.takeUntil(({ runId }) => found.add(runId).size >= limit),
      Stream.runDrain
    )
    return found
  })

const describeRun = (runId: string, through: number): Effect.Effect<Run, ReadError, Ledger.Ledger> => {
  const actors = new Set<string>()
  const models = new Set<string>()
  let events = 0
  let first: Event.RecordedEvent | undefined
  let last: Event.RecordedEvent | undefined
  return Ledger.read({ filter: { runId }, through }).pipe(
    Stream.runForEachChunk((page) =>
      Effect.sync(() => {
        for (const event of page) {
          first ??= event
          last = event
          events++
          // a run may have as many as it has events
          if (actors.size < listed) actors.add(event.actor)
          if (event.modelId !== null && models.size < listed) models.add(event.modelId)
        }
      })
    ),
    Effect.map(() => ({
      run_id: runId,
      events,
      first: first === undefined ? "" : DateTime.formatIso(first.createdAt),
      last: last === undefined ? "" : DateTime.formatIso(last.createdAt),
      first_offset: first?.offset ?? 0,
      last_offset: last?.offset ?? 0,
      actors: [...actors],
      models: [...models]
    }))
  )
}

const listed = 100

const few = (names: ReadonlyArray<string>): string =>
  names.length > 4 ? `${names.slice(0, 3).join(", ")}, +${names.length - 3}` : names.join(", ")

/** The lines that an export has, as text that a terminal can show. */
const jsonLines = <E, R>(
  events: Stream.Stream<Event.RecordedEvent, E, R>
): Stream.Stream<string, E | CorruptEvent, R> =>
  Stream.mapChunksEffect(events, (page) =>
    Effect.map(
      Effect.forEach(page, (event) => {
        const line = formatLine(event)
        return typeof line === "string"
          ? Effect.succeed(`${Terminal.safeJson(line)}\n`)
          : new CorruptEvent({ offset: event.offset, reason: `${line.path}: ${line.reason}` })
      }),
      (lines) => Chunk.of(lines.join(""))
    ))

const textLines = <E, R>(events: Stream.Stream<Event.RecordedEvent, E, R>): Stream.Stream<string, E, R> =>
  Stream.mapChunks(events, (page) => Chunk.of(Chunk.toReadonlyArray(page).map(textLine).join("")))

const textLine = (event: Event.RecordedEvent): string => {
  const at = Terminal.time(DateTime.toEpochMillis(event.createdAt))
  const line = Terminal.fit(`${at} ${Terminal.safe(Event.summary(event))}`)
  return `${Terminal.dim(line.slice(0, at.length))}${line.slice(at.length)}\n`
}

const transcriptLine = (event: Event.RecordedEvent, at: string): string => {
  const { text, ...rest } = event.payload
  const shown = typeof text !== "string" ? JSON.stringify(event.payload) : text
  const more = typeof text !== "string" || Object.keys(rest).length === 0
    ? ""
    : ` ${Terminal.dim(Terminal.safe(JSON.stringify(rest)))}`
  const offset = Terminal.dim(`#${event.offset}`.padStart(7))
  const actor = Terminal.cyan(Terminal.pad(Terminal.safe(event.actor), 10))
  const kind = Terminal.dim(Terminal.pad(Terminal.safe(event.kind), 14))
  const lines = shown.split(/\r\n|[\n\u2028\u2029]/).map(Terminal.safe).join(`\n${" ".repeat(9)}`)
  return `${offset}  ${Terminal.dim(at)}  ${actor}  ${kind}  ${lines}${more}\n`
}

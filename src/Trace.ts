/**
 * Traces: events as JSON Lines, to keep, to hand on, and to read back into any ledger.
 *
 * A line is the event's JSON (`Event.Encoded`) with its `offset` and its `digest`. A file whose name ends in `.gz` or `.zst`
 * is compressed.
 *
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import type { Event, RecordedEvent } from "./Event.js"
import * as CloudEvents from "./internal/cloudEvent.js"
import * as Importer from "./internal/importer.js"
import { FieldIssue } from "./internal/row.js"
import * as TraceFile from "./internal/traceFile.js"
import * as TraceLine from "./internal/traceLine.js"
import { Ledger } from "./Ledger.js"
import {
  CorruptEvent,
  type InvalidCloudEvent,
  InvalidTrace,
  type ReadError,
  type StoreError,
  type TraceFailure
} from "./LedgerError.js"
import type { Query } from "./Query.js"

/**
 * A CloudEvent 1.0 that holds an event, as JSON in structured mode. What CloudEvents does not know travels in extension
 * attributes; those that are null in the event are absent. `ledgeroffset` is text, as an Integer of CloudEvents ends at
 * 2³¹−1.
 *
 * @since 0.1.0
 * @category models
 */
export type CloudEvent = CloudEvents.CloudEvent

/**
 * What a line of an export is: the event's own JSON unless told, or a CloudEvent, whose `source` (a URI reference) says
 * where it comes from.
 *
 * @since 0.1.0
 * @category models
 */
export type Format =
  | { readonly format?: "ledger" | undefined }
  | { readonly format: "cloudevents"; readonly source: string }

/**
 * Which events {@link toFile} writes (all, unless told), how, and what is done after each page of them.
 *
 * @since 0.1.0
 * @category models
 */
export type ExportOptions = Query & Format & {
  readonly onProgress?: ((progress: Exported) => Effect.Effect<void>) | undefined
}

/**
 * What was exported, so far or in all: the number of events, the offset of the last one (0 when there is none), the
 * ledger's head and incarnation when the export began, and the bytes in the file.
 *
 * The next export may go on `{ after: { after: head, incarnation } }`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Exported {
  readonly count: number
  readonly offset: number
  readonly head: number
  readonly incarnation: string
  readonly bytes: number
}

/**
 * - `format`: what the lines are, `ledger` unless told
 * - `onInvalid`: whether a line that is no event fails the import (unless told), or is skipped and reported
 * - `batchSize`: events in one append, 1,000 unless told; fewer where they are large
 * - `maxLineBytes`: a longer line is invalid, 16 MiB unless told; more than six times the ledger's `maxPayloadBytes`
 * - `onProgress`: done after each batch
 *
 * @since 0.1.0
 * @category models
 */
export interface ImportOptions {
  readonly format?: "ledger" | "cloudevents" | undefined
  readonly onInvalid?: "fail" | "skip" | undefined
  readonly batchSize?: number | undefined
  readonly maxLineBytes?: number | undefined
  readonly onProgress?: ((progress: Imported) => Effect.Effect<void>) | undefined
}

/**
 * What was imported, so far or in all. Each line that is not empty is counted once: `appended`, as `duplicates` (the id was
 * recorded with the same content), as `divergent` (with other content, which stands) or as `invalid`. The counts are
 * exact; the lists hold the first 100. `line` is the last line that was dealt with.
 *
 * @since 0.1.0
 * @category models
 */
export interface Imported {
  readonly line: number
  readonly appended: number
  readonly duplicates: number
  readonly divergent: number
  readonly invalid: number
  readonly divergentIds: ReadonlyArray<string>
  readonly invalidLines: ReadonlyArray<{ readonly line: number; readonly reason: string }>
}

/**
 * The events that match the query (all, unless told) as lines without their ends. Reads as `Ledger.read` does: page by
 * page, up to the head at the time when the stream begins, in constant memory.
 *
 * @example
 * ```ts
 * import { Trace } from "effect-ledger"
 * import { Stream } from "effect"
 *
 * // for a response or a pipe
 * export const run = (runId: string) =>
 *   Trace.lines({ filter: { runId } }).pipe(Stream.map((line) => `${line}\n`), Stream.encodeText)
 * ```
 *
 * @since 0.1.0
 * @category export
 */
export const lines = (query: Query = {}): Stream.Stream<string, ReadError, Ledger> => format(query, ledgerLine)

/**
 * As {@link lines}, each a CloudEvent in structured mode. An event whose id, run, actor or other name holds a control
 * character cannot be one and fails the stream.
 *
 * @since 0.1.0
 * @category export
 */
export const cloudEvents = (
  source: string,
  query: Query = {}
): Stream.Stream<string, ReadError | InvalidCloudEvent, Ledger> => format(query, cloudEventLine(source))

/**
 * Writes the events that match the query to a file: JSON Lines, compressed when its name ends in `.gz` or `.zst` (zstd
 * needs Node 22.15). It is written beside the path, and takes its name when it is complete and on the disk: a file that
 * stood there before is replaced as a whole or not at all. What a killed process leaves ends in `.partial`.
 *
 * @example
 * ```ts
 * import { Trace } from "effect-ledger"
 * import { Console } from "effect"
 *
 * export const backup = Trace.toFile("runs.jsonl.gz", {
 *   onProgress: ({ head, offset }) => Console.log(`${offset} of ${head}`)
 * })
 * ```
 *
 * @since 0.1.0
 * @category export
 */
export const toFile: (
  path: string,
  options?: ExportOptions
) => Effect.Effect<Exported, ReadError | InvalidCloudEvent | TraceFailure, Ledger> = Effect.fn("Trace.toFile")(
  function*(path: string, options: ExportOptions = {}) {
    const { format, onProgress, source, ...query } = { source: "", ...options }
    const lineOf = format === "cloudevents" ? cloudEventLine(source) : ledgerLine
    const ledger = yield* Ledger
    const incarnation = yield* ledger.incarnation
    const head = yield* ledger.latestOffset
    return yield* TraceFile.writeWhole(
      path,
      Effect.fnUntraced(function*(sink) {
        let count = 0
        let offset = 0
        const exported = (): Exported => ({ count, offset, head, incarnation, bytes: sink.bytes() })
        const page = Effect.fnUntraced(function*(events: Chunk.Chunk<RecordedEvent>) {
          let text = ""
          for (const event of events) {
            text += `${yield* lineOf(event)}\n`
            count++
            offset = event.offset
            if (text.length < writeLength) continue
            yield* sink.write(text)
            text = ""
          }
          if (text !== "") yield* sink.write(text)
          if (onProgress !== undefined) yield* onProgress(exported())
        })
        yield* Stream.runForEachChunk(ledger.read(upTo(query, head, incarnation)), page)
        return exported
      })
      // the last bytes reach the file when it is finished
    ).pipe(Effect.map((exported) => exported()))
  }
)

/**
 * Appends the events of a stream of lines to the ledger, in order, in batches. An id that is recorded already is counted
 * and not written, so an import that was cut off is repeated as it is. A line that is damaged fails with `InvalidTrace`
 * once the lines before it are recorded, or is skipped and reported; so does one whose `digest` is not that of its
 * content. Offsets are given anew. A stream that fails is imported up to where it failed. Constant memory.
 *
 * @since 0.1.0
 * @category import
 */
export const fromLines = <E, R>(
  lines: Stream.Stream<string, E, R>,
  options: ImportOptions = {}
): Effect.Effect<Imported, StoreError | InvalidTrace | E, Ledger | R> =>
  Effect.suspend(() => {
    const numbered = TraceLine.numbered(options.maxLineBytes ?? maxLineBytes)
    return importAll(
      Stream.mapChunks(lines, flatMap(numbered)),
      () => [],
      options
    )
  })

/**
 * As {@link fromLines}, from UTF-8 bytes that are cut anywhere. Lines end in LF or CRLF, the last one need not; empty lines
 * and a byte order mark at the start are passed over.
 *
 * @since 0.1.0
 * @category import
 */
export const fromBytes = <E, R>(
  bytes: Stream.Stream<Uint8Array, E, R>,
  options: ImportOptions = {}
): Effect.Effect<Imported, StoreError | InvalidTrace | E, Ledger | R> =>
  Effect.suspend(() => {
    const lines = new TraceLine.Lines(options.maxLineBytes ?? maxLineBytes)
    return importAll(
      Stream.mapChunks(bytes, flatMap((part) => lines.push(part))),
      () => lines.end(),
      options
    )
  })

/**
 * As {@link fromBytes}, from a file, which is decompressed when its name ends in `.gz` or `.zst`. A file that is cut off
 * fails with `TraceFailure`, once what it still holds is recorded.
 *
 * @example
 * ```ts
 * import { Trace } from "effect-ledger"
 * import { Effect } from "effect"
 *
 * export const restore = Effect.gen(function*() {
 *   const { appended, duplicates, invalidLines } = yield* Trace.fromFile("runs.jsonl.gz", { onInvalid: "skip" })
 *   console.log(appended, duplicates)
 *   for (const { line, reason } of invalidLines) console.log(`line ${line}: ${reason}`)
 * })
 * ```
 *
 * @since 0.1.0
 * @category import
 */
export const fromFile: (
  path: string,
  options?: ImportOptions
) => Effect.Effect<Imported, StoreError | InvalidTrace | TraceFailure, Ledger> = Effect.fn("Trace.fromFile")(
  function*(path: string, options: ImportOptions = {}) {
    return yield* fromBytes(TraceFile.readBytes(path), options)
  }
)

/**
 * The event as a CloudEvent. `source`, a URI reference, says where it comes from.
 *
 * @example
 * ```ts
 * import { Event, Trace } from "effect-ledger"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const event = yield* Event.create({ runId: "run-1", turn: 3, kind: "agent.spoke", actor: "ada", payload: {} })
 *   const { subject, type } = yield* Trace.toCloudEvent(event, "urn:example:agents")
 *   console.log(type, subject) // agent.spoke run-1
 * })
 *
 * Effect.runPromise(program)
 * ```
 *
 * @since 0.1.0
 * @category CloudEvents
 */
export const toCloudEvent = (
  event: Event | RecordedEvent,
  source: string
): Either.Either<CloudEvent, InvalidCloudEvent> => CloudEvents.toCloudEvent(event, source)

/**
 * The event of a CloudEvent, given as a JSON value or as its text. One that was not made by {@link toCloudEvent} has turn 0,
 * its `source` as the actor and schema version 1, unless it says otherwise; without `subject` (the run) or `time` it is
 * refused, as it is with an attribute that an event has no place for.
 *
 * @since 0.1.0
 * @category CloudEvents
 */
export const fromCloudEvent = (json: unknown): Either.Either<Event, InvalidCloudEvent> =>
  CloudEvents.fromCloudEvent(json)

type LineOf<E> = (event: RecordedEvent) => Either.Either<string, E>

const ledgerLine: LineOf<CorruptEvent> = (event) => {
  const line = TraceLine.formatLine(event)
  return line instanceof FieldIssue
    ? Either.left(new CorruptEvent({ offset: event.offset, reason: `${line.path}: ${line.reason}` }))
    : Either.right(line)
}

const cloudEventLine = (source: string): LineOf<InvalidCloudEvent> => (event) =>
  Either.map(CloudEvents.toCloudEvent(event, source), (cloudEvent) => JSON.stringify(cloudEvent))

const format = <E>(query: Query, lineOf: LineOf<E>): Stream.Stream<string, ReadError | E, Ledger> =>
  Stream.unwrap(Effect.map(Ledger, (ledger) =>
    Stream.mapChunksEffect(
      ledger.read(query),
      (events) => Effect.map(Effect.forEach(events, lineOf), Chunk.unsafeFromArray)
    )))

/** The query in this history, up to the head that the result tells of. */
const upTo = (query: Query, head: number, incarnation: string): Query => {
  const { after = 0, through = head } = query
  return {
    ...query,
    after: typeof after === "number"
      ? { after, incarnation }
      : { ...after, incarnation: after.incarnation ?? incarnation },
    through: through > head ? head : through
  }
}

const importAll = <E, R>(
  lines: Stream.Stream<TraceLine.Line, E, R>,
  rest: () => ReadonlyArray<TraceLine.Line>,
  options: ImportOptions
): Effect.Effect<Imported, StoreError | InvalidTrace | E, Ledger | R> =>
  Effect.flatMap(Ledger, (ledger) => {
    const { onProgress } = options
    const read = options.format === "cloudevents" ? readCloudEvent : TraceLine.readLine
    const importer = Importer.make({
      ledger,
      batchSize: options.batchSize,
      refuse: options.onInvalid === "skip" ? undefined : (line, reason) => new InvalidTrace({ line, reason }),
      progress: (tally) => onProgress === undefined ? Effect.void : onProgress(toImported(tally))
    })
    const add = (lines: Iterable<TraceLine.Line>) => importer.add(items(lines, read))
    return Stream.runForEachChunk(lines, add).pipe(
      Effect.zipRight(Effect.suspend(() => add(rest()))),
      Effect.zipRight(importer.flush),
      // what came before the damage
      Effect.tapError(() => importer.flush),
      Effect.map(() => toImported(importer.tally()))
    )
  })

const flatMap = <A, B>(f: (value: A) => ReadonlyArray<B>) => (chunk: Chunk.Chunk<A>): Chunk.Chunk<B> =>
  Chunk.unsafeFromArray(Chunk.toReadonlyArray(chunk).flatMap(f))

function* items(
  lines: Iterable<TraceLine.Line>,
  read: (text: string) => Event | string
): Generator<Importer.Item> {
  for (const line of lines) {
    const event = "text" in line ? read(line.text) : line.reason
    yield typeof event === "string"
      ? { place: line.line, reason: event }
      : { place: line.line, event, size: "text" in line ? line.text.length : 0 }
  }
}

const readCloudEvent = (text: string): Event | string =>
  Either.match(CloudEvents.fromCloudEvent(text), { onLeft: (error) => error.message, onRight: (event) => event })

const toImported = ({ place, refused, ...counts }: Importer.Tally): Imported => ({
  line: place,
  ...counts,
  invalidLines: refused.map(({ place, reason }) => ({ line: place, reason }))
})

// the text of one write: small enough to wait in memory, large enough to be worth a call
const writeLength = 2 ** 18

// a payload of 1 MiB whose every character is written as an escape, and as much again
const maxLineBytes = 2 ** 24

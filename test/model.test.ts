/** Random calls of every public member, on all backends at once, against a model of a few lines. */
import { expect, it } from "@effect/vitest"
import {
  Chunk,
  Context,
  Effect,
  FastCheck,
  Fiber,
  Layer,
  Logger,
  LogLevel,
  Option,
  Redacted,
  Runtime,
  Stream
} from "effect"
import { randomBytes, randomInt } from "node:crypto"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { inject } from "vitest"
import { Ledger, MemoryLedger, type Query } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { event } from "./contract/fixtures.js"
import { type Answer, type Cursor, Model, type Operation, operations, plain } from "./support/model.js"

const seed = Number(process.env["TEST_SEED"] ?? randomInt(2 ** 31))
const sequences = Number(process.env["MODEL_SEQUENCES"] ?? 1000)

it.scopedLive(
  `${sequences} random sequences of calls have the model's answers on every backend`,
  () =>
    Effect.gen(function*() {
      console.log(`TEST_SEED=${seed} MODEL_SEQUENCES=${sequences}`)
      const backends = yield* open
      const run = Runtime.runPromise(yield* Effect.runtime())
      let calls = 0
      const property = FastCheck.asyncProperty(operations, async (sequence) => {
        calls += sequence.length
        const model = new Model()
        const expected = sequence.map((operation) => model.answer(operation))
        const history = model.answer({ _tag: "events" })
        // all to their end, or the next sequence would begin beside this one
        const played = await Promise.all(backends.map(async ({ handle, name }) => ({
          name,
          ...await run(play(handle, sequence, expected))
        })))
        for (const { answers, events, name } of played) {
          for (const [index, answer] of answers.entries()) {
            expect(plain(answer), `${name}, call ${index + 1}`).toStrictEqual(plain(expected[index]))
          }
          expect(plain(events), `${name}, in the end`).toStrictEqual(plain(history))
        }
      })
      yield* Effect.promise(() => FastCheck.assert(property, { numRuns: sequences, seed }))
      console.log(`${calls} calls on each of ${backends.length} backends`)
    }),
  60_000 * Math.max(2, sequences / 500)
)

interface Handle {
  readonly ledger: Context.Tag.Service<Ledger.Ledger>
  readonly admin: Context.Tag.Service<Ledger.LedgerAdmin>
}

const open = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-model-"))),
    (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
  )
  // what is durable is not what is tested here
  const durability = "relaxed"
  const url = Redacted.make(inject("databaseUrl"))
  const layers: Readonly<Record<string, Layer.Layer<Ledger.Ledger | Ledger.LedgerAdmin, unknown>>> = {
    memory: MemoryLedger.layer,
    SQLite: SqliteLedger.layerFile(Path.join(folder, "a.db"), { durability }),
    Postgres: PgLedger.layerUrl(url, { schema: `model_${randomBytes(6).toString("hex")}`, durability })
  }
  return yield* Effect.forEach(Object.entries(layers), ([name, layer]) =>
    Effect.map(Layer.build(layer), (context) => ({
      name,
      handle: { ledger: Context.get(context, Ledger.Ledger), admin: Context.get(context, Ledger.LedgerAdmin) }
    })))
})

/** Plays the sequence on an emptied ledger. */
const play = (handle: Handle, sequence: ReadonlyArray<Operation>, expected: ReadonlyArray<Answer>) =>
  Effect.gen(function*() {
    yield* handle.admin.reset
    const incarnations = [yield* handle.ledger.incarnation]
    const answers: Array<Answer> = []
    for (const [index, operation] of sequence.entries()) {
      const answer = yield* call(handle, operation, incarnations, expected[index]!).pipe(
        Effect.match({
          onSuccess: (ok): Answer => ({ ok }),
          onFailure: (error): Answer => ({ error: said(error, incarnations) })
        }),
        Effect.timeout("20 seconds")
      )
      if (operation._tag === "reset") incarnations.push(yield* handle.ledger.incarnation)
      answers.push(answer)
    }
    return { answers, events: { ok: yield* handle.ledger.events } }
  }).pipe(Logger.withMinimumLogLevel(LogLevel.Error))

const call = (
  { admin, ledger }: Handle,
  operation: Operation,
  incarnations: ReadonlyArray<string>,
  expected: Answer
): Effect.Effect<unknown, { readonly _tag: string }> => {
  const after = (cursor: Cursor): Query.After => {
    const incarnation = {
      none: undefined,
      current: incarnations.at(-1),
      former: incarnations.at(-2) ?? unknown,
      unknown
    }[cursor.incarnation]
    return incarnation === undefined ? cursor.after : { after: cursor.after, incarnation }
  }
  switch (operation._tag) {
    case "append":
      return ledger.append(operation.event)
    case "appendAll":
      return ledger.appendAll(operation.events)
    case "appendIf":
      return ledger.appendIf(operation.condition, operation.events)
    case "get":
      return Effect.map(ledger.get(operation.id), Option.getOrNull)
    case "eventsForRun":
      return ledger.eventsForRun(operation.runId)
    case "events":
    case "runs":
    case "latestOffset":
      return ledger[operation._tag]
    case "incarnation":
      return Effect.map(ledger.incarnation, (incarnation) => incarnations.indexOf(incarnation))
    case "reset":
      return Effect.as(admin.reset, null)
    case "tail":
      return collect(ledger.tail(after(operation.cursor)))
    case "read":
      return collect(ledger.read({ ...operation.query, after: after(operation.cursor) }))
    case "follow":
      return ledger.follow({ after: after(operation.cursor), filter: operation.filter }).pipe(
        Stream.takeUntil((told) => told._tag === "CaughtUp"),
        Stream.filterMap((told) => told._tag === "Recorded" ? Option.some(told.event) : Option.none()),
        collect
      )
    case "subscribe": {
      const stream = ledger.subscribe({ after: after(operation.cursor), filter: operation.filter })
      if ("error" in expected) return collect(stream)
      const taken = collect(Stream.take(stream, (expected.ok as ReadonlyArray<unknown>).length))
      return Effect.flatMap(
        Effect.fork(taken),
        (fiber) => Effect.zipRight(ledger.appendAll(operation.meanwhile), Fiber.join(fiber))
      )
    }
    case "invalidEvent": {
      const bad = { ...event("bad"), ...operation.invalid.fields } as ReturnType<typeof event>
      return operation.events.length === 0 ? ledger.append(bad) : ledger.appendAll([...operation.events, bad])
    }
    case "invalidQuery": {
      const argument = operation.invalid.argument as never
      switch (operation.invalid.member) {
        case "get":
          return ledger.get(argument)
        case "eventsForRun":
          return ledger.eventsForRun(argument)
        case "appendIf":
          return ledger.appendIf(argument, [event("bad")])
        default:
          return collect(ledger[operation.invalid.member](argument))
      }
    }
  }
}

const unknown = "a history that never was"

const collect = <A, E>(stream: Stream.Stream<A, E>) => Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

/** The error's tag and fields; incarnations by number, sentences left out. */
const said = (error: { readonly _tag: string }, incarnations: ReadonlyArray<string>) => {
  const fields: Record<string, unknown> = { ...error }
  delete fields["reason"]
  for (const key of ["expected", "found"]) {
    if (typeof fields[key] === "string") fields[key] = incarnations.indexOf(fields[key])
  }
  return { _tag: error._tag, ...fields }
}

/** Random calls of every member of `Ledger` and `LedgerAdmin`, on all backends at once, against a model of a few lines. */
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
import { Ledger, LedgerStore, MemoryLedger, type Query } from "../src/index.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { event } from "./contract/fixtures.js"
import { type Answer, type Cursor, end, Model, type Operation, operations, orEnd, plain } from "./support/model.js"

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
        const expected = sequence.map((operation, call) => model.answer(operation, call))
        const history = inTheEnd.map((operation) => model.answer(operation))
        // all to their end, or the next sequence would begin beside this one
        const played = await Promise.all(backends.map(async ({ handle, name }) => ({
          name,
          ...await run(play(handle, sequence, expected))
        })))
        for (const { answers, ended, name } of played) {
          for (const [index, answer] of answers.entries()) {
            expect(plain(answer), `${name}, call ${index + 1}`).toStrictEqual(plain(expected[index]))
          }
          expect(plain(ended), `${name}, in the end`).toStrictEqual(plain(history))
        }
      })
      yield* Effect.promise(() => FastCheck.assert(property, { numRuns: sequences, seed }))
      console.log(`${calls} calls on each of ${backends.length} backends`)
    }),
  60_000 * Math.max(4, sequences / 250)
)

type Services = Ledger.Ledger | Ledger.LedgerAdmin | LedgerStore.LedgerStore

interface Handle {
  readonly ledger: Context.Tag.Service<Ledger.Ledger>
  readonly admin: Context.Tag.Service<Ledger.LedgerAdmin>
  readonly store: Context.Tag.Service<LedgerStore.LedgerStore>
}

const open = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-model-"))),
    (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
  )
  // what is durable is not what is tested here
  const durability = "relaxed"
  const url = Redacted.make(inject("databaseUrl"))
  const layers: Readonly<Record<string, Layer.Layer<Services, unknown>>> = {
    memory: MemoryLedger.layer,
    "SQLite in memory": SqliteLedger.layerFile(":memory:"),
    SQLite: SqliteLedger.layerFile(Path.join(folder, "a.db"), { durability }),
    Postgres: PgLedger.layerUrl(url, { schema: `model_${randomBytes(6).toString("hex")}`, durability })
  }
  return yield* Effect.forEach(Object.entries(layers), ([name, layer]) =>
    Effect.map(Layer.build(layer), (context) => ({
      name,
      handle: {
        ledger: Context.get(context, Ledger.Ledger),
        admin: Context.get(context, Ledger.LedgerAdmin),
        store: Context.get(context, LedgerStore.LedgerStore)
      }
    })))
})

/** What every sequence is followed by. */
const inTheEnd: ReadonlyArray<Operation> = [{ _tag: "events" }, { _tag: "lineage" }]

/** Plays the sequence on an emptied ledger. */
const play = (handle: Handle, sequence: ReadonlyArray<Operation>, expected: ReadonlyArray<Answer>) =>
  Effect.gen(function*() {
    yield* handle.admin.reset
    const incarnations = [yield* handle.ledger.incarnation]
    const ask = (operation: Operation, call: number) =>
      Effect.timeout(answer(handle, operation, incarnations, { call, of: expected[call]! }), "20 seconds")
    return { answers: yield* Effect.forEach(sequence, ask), ended: yield* Effect.forEach(inTheEnd, ask) }
  }).pipe(Logger.withMinimumLogLevel(LogLevel.Error))

/** What is expected of which call. */
interface Expected {
  readonly call: number
  readonly of: Answer
}

const answer = (
  handle: Handle,
  operation: Operation,
  incarnations: Array<string>,
  expected: Expected
): Effect.Effect<Answer, { readonly _tag: string }> =>
  call(handle, operation, incarnations, expected).pipe(
    Effect.match({
      onSuccess: (ok): Answer => ({ ok }),
      onFailure: (error): Answer => ({ error: said(error, incarnations) })
    }),
    Effect.tap(() =>
      operation._tag === "reset" || operation._tag === "incarnate"
        ? Effect.map(handle.ledger.incarnation, (incarnation) => incarnations.push(incarnation))
        : Effect.void
    )
  )

const call = (
  handle: Handle,
  operation: Operation,
  incarnations: Array<string>,
  expected: Expected
): Effect.Effect<unknown, { readonly _tag: string }> => {
  const { admin, ledger, store } = handle
  const after = (cursor: Cursor): Query.After => {
    const incarnation = {
      none: undefined,
      current: incarnations.at(-1),
      former: incarnations.at(-2) ?? unknown,
      unknown
    }[cursor.incarnation]
    return incarnation === undefined ? cursor.after : { after: cursor.after, incarnation }
  }
  const strictly = <A extends Ledger.Receipt | ReadonlyArray<Ledger.Receipt>, E>(effect: Effect.Effect<A, E>) =>
    "strict" in operation && operation.strict ? Ledger.failOnDivergence(effect) : effect
  switch (operation._tag) {
    case "append":
      return strictly(ledger.append(operation.event))
    case "appendAll":
      return strictly(ledger.appendAll(operation.events))
    case "appendIf":
      return strictly(ledger.appendIf(operation.condition, operation.events))
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
    case "lineage":
    case "incarnate": {
      const lineage: Effect.Effect<Ledger.Lineage, { readonly _tag: string }> = admin[operation._tag]
      return Effect.map(lineage, ({ incarnation, parents }) => {
        const numbers = [...incarnations, incarnation]
        const number = (incarnation: string) => numbers.indexOf(incarnation)
        return {
          incarnation: number(incarnation),
          parents: parents.map((head) => ({ ...head, incarnation: number(head.incarnation) }))
        }
      })
    }
    case "reset":
      return Effect.as(admin.reset, null)
    case "tail":
      return collect(ledger.tail(after(operation.cursor)))
    case "read":
      return collect(ledger.read({ ...operation.query, after: after(operation.cursor) }))
    case "follow":
      return Effect.scoped(Effect.gen(function*() {
        const told: Array<Ledger.Followed> = []
        const stream = ledger.follow({ after: after(operation.cursor), filter: operation.filter })
        const pull = Effect.catchAll(
          yield* Stream.toPull(stream),
          Option.match({ onNone: () => Effect.dieMessage("it ended"), onSome: (error) => Effect.fail(error) })
        )
        const caughtUp = Effect.repeat(
          Effect.map(pull, (chunk) => told.push(...chunk)),
          { until: () => told.at(-1)?._tag === "CaughtUp" }
        )
        yield* caughtUp
        for (const events of [operation.meanwhile, [end(expected.call)]]) {
          const receipts = yield* ledger.appendAll(events)
          if (receipts.some(({ _tag }) => _tag === "Appended")) yield* caughtUp
        }
        return told
      }))
    case "subscribe": {
      const stream = ledger.subscribe({ after: after(operation.cursor), filter: orEnd(operation.filter) })
      if ("error" in expected.of) return collect(stream)
      const last = end(expected.call)
      const taken = collect(Stream.takeUntil(stream, ({ id }) => id === last.id))
      return Effect.flatMap(
        Effect.fork(taken),
        (fiber) => Effect.zipRight(ledger.appendAll([...operation.meanwhile, last]), Fiber.join(fiber))
      )
    }
    case "transaction": {
      const before = incarnations.length
      return Effect.forEach(operation.steps, (step) => answer(handle, step, incarnations, expected)).pipe(
        Effect.flatMap((answers) =>
          operation.commits ? Effect.succeed(answers) : Effect.fail({ _tag: "Undone", answers })
        ),
        (effect) => store.transaction(effect),
        Effect.catchIf(isUndone, ({ answers }) => {
          incarnations.length = before
          return Effect.succeed(answers)
        })
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

const isUndone = (error: { readonly _tag: string }): error is {
  readonly _tag: "Undone"
  readonly answers: ReadonlyArray<Answer>
} => error._tag === "Undone"

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

/** Traces: what goes out comes in again, and nothing is lost on the way without a word. */
import { afterAll, describe, expect, inject, it } from "@effect/vitest"
import { DateTime, Deferred, Effect, FastCheck, Fiber, type Layer, Redacted, Stream } from "effect"
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import * as Zlib from "node:zlib"
import { Client } from "pg"
import { type Event, Ledger, LedgerError, MemoryLedger, Trace } from "../src/index.js"
import { ZstdFrames } from "../src/internal/zstdFrames.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { anyEvent, canonical, digest, event, events } from "./contract/fixtures.js"
import { collect, expectEvents, failure, open, over, recordedAt } from "./contract/handle.js"
import { runScript, startScript } from "./support/processes.js"

const root = Fs.mkdtempSync(join(tmpdir(), "effect-ledger-trace-"))
afterAll(() => Fs.rmSync(root, { recursive: true, force: true }))
const newFolder = () => Fs.mkdtempSync(join(root, "t-"))

const memory = (held: ReadonlyArray<Event.Event> = []) => MemoryLedger.layerWith({ events: held })
const linesOf = (held: ReadonlyArray<Event.Event>) => Effect.provide(collect(Trace.lines()), memory(held))
const bytesOf = (text: string, size = Number.MAX_SAFE_INTEGER) => {
  const bytes = Buffer.from(text)
  const parts: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length; at += size) parts.push(bytes.subarray(at, at + size))
  return Stream.fromIterable(parts)
}
const nothing = { appended: 0, duplicates: 0, divergent: 0, invalid: 0, divergentIds: [], invalidLines: [] }

const hostile = [
  event("quotes \" and \\ and \u0001\n\r\t", { actor: "a\u2028b\u2029c", runId: "\u{1f4be}\u0301 \ufeff" }),
  event("first", { createdAt: DateTime.unsafeMake(-62135596800000), turn: 2 ** 31 - 1, schemaVersion: 2 ** 31 - 1 }),
  event("last", { createdAt: DateTime.unsafeMake(253402300799999) }),
  event("odd", { createdAt: DateTime.unsafeMake(-1), sessionId: " ", modelProfile: "\ud83d\udcbe", modelId: "m" }),
  event("payload", {
    payload: {
      "": null,
      "\u0000": "\u0000\u001f\u007f",
      "\n": [1e21, 1e-7, 5e-324, 1.7976931348623157e308, 123456789012345680000, -9007199254740991],
      text: "\r\n{\"id\":1}\u2028\ufeff",
      long: "é".repeat(100_000)
    }
  })
]

describe("export", () => {
  it.effect("a line is the event's JSON with its offset and its digest, which is of what follows it", () =>
    Effect.gen(function*() {
      const held = [event("one"), ...hostile]
      const lines = yield* linesOf(held)
      expect(lines[0]).toBe(
        `{"offset":1,"digest":"${digest(held[0]!)}","actor":"ada","created_at":"2026-01-01T00:00:00.000Z","id":"one",` +
          `"kind":"agent.spoke","model_id":null,"model_profile":null,"payload":{"said":"one"},"run_id":"run-1",` +
          `"schema_version":1,"session_id":null,"turn":0}`
      )
      lines.forEach((line, index) => {
        expect(line).not.toContain("\n")
        const { digest: stated, offset, ...encoded } = JSON.parse(line)
        expect(offset).toBe(index + 1)
        expect(stated).toBe(digest(held[index]!))
        expect(line.endsWith(canonical(encoded).slice(1))).toBe(true)
      })
    }))

  it.effect("gives the events that a query asks for, in its order", () =>
    Effect.gen(function*() {
      const lines = yield* collect(Trace.lines({ filter: { kinds: ["agent.acted"] }, direction: "backward", limit: 2 }))
      expect(lines.map((line) => JSON.parse(line).offset)).toStrictEqual([10, 8])
      const file = join(newFolder(), "some.jsonl")
      const exported = yield* Trace.toFile(file, { after: 3, through: 7 })
      expect(exported).toMatchObject({ count: 4, offset: 7, head: 10, bytes: Fs.statSync(file).size })
      expect(readLines(file).map((line) => JSON.parse(line).offset)).toStrictEqual([4, 5, 6, 7])
      const refused = yield* failure(Trace.toFile(file, { limit: -1 }))
      expect(refused).toStrictEqual(
        new LedgerError.InvalidQuery({ path: "limit", reason: "expected a whole number from 0" })
      )
      expect(readLines(file).length).toBe(4)
    }).pipe(Effect.provide(memory(
      Array.from({ length: 10 }, (_, n) => event(`e${n}`, n % 2 === 1 ? { kind: "agent.acted" } : {}))
    ))))

  it.scoped("ends at the head of its beginning, and the next goes on there unless the ledger was reset", () =>
    Effect.gen(function*() {
      const { admin, context, ledger } = yield* open(memory(events(2500)))
      yield* Effect.gen(function*() {
        const folder = newFolder()
        const told: Array<number> = []
        const first = yield* Trace.toFile(join(folder, "1.jsonl"), {
          onProgress: ({ count, head, offset }) => {
            expect([offset, head]).toStrictEqual([count, 2500])
            told.push(count)
            return Effect.orDie(ledger.append(event(`later-${count}`)))
          }
        })
        expect(first).toMatchObject({ count: 2500, offset: 2500, head: 2500, incarnation: yield* ledger.incarnation })
        expect(told).toStrictEqual([1000, 2000, 2500])
        const next = { after: { after: first.head, incarnation: first.incarnation } }
        expect(yield* Trace.toFile(join(folder, "2.jsonl"), next)).toMatchObject({ count: 3, offset: 2503, head: 2503 })
        yield* admin.reset
        yield* ledger.appendAll(events(3000))
        expect((yield* failure(Trace.toFile(join(folder, "2.jsonl"), next)))._tag).toBe("LedgerReplaced")
        expect(readLines(join(folder, "2.jsonl")).length).toBe(3)
        expect(Fs.readdirSync(folder)).toStrictEqual(["1.jsonl", "2.jsonl"])
      }).pipe(Effect.provide(context))
    }))

  it.scoped("ends at its head, and is of one history, whatever happens before the first page is read", () =>
    Effect.gen(function*() {
      const inner = yield* open(memory(events(10)))
      const before = (happens: Effect.Effect<unknown, unknown>) =>
        over(
          inner.store,
          (store) => ({ page: (request) => Effect.zipRight(Effect.orDie(happens), store.page(request)) })
        )
      const file = join(newFolder(), "trace.jsonl")
      const more = Effect.suspend(() => inner.ledger.append(event("more")))
      expect(yield* Effect.provide(Trace.toFile(file, { through: 100 }), before(more))).toMatchObject({
        count: 10,
        head: 10
      })
      const other = Effect.zipRight(inner.admin.reset, inner.ledger.appendAll(events(20)))
      const replaced = yield* failure(Effect.provide(Trace.toFile(file), before(other)))
      expect(replaced).toMatchObject({ _tag: "LedgerReplaced", head: 20 })
    }))

  it.live("an export that fails, is interrupted, or cannot be put in place leaves what was there", () =>
    Effect.gen(function*() {
      const folder = newFolder()
      const file = join(folder, "trace.jsonl.gz")
      Fs.writeFileSync(file, "before")
      const begun = yield* Deferred.make<void>()
      const fiber = yield* Effect.fork(Trace.toFile(file, {
        onProgress: () => Effect.zipRight(Deferred.succeed(begun, undefined), Effect.never)
      }))
      yield* Deferred.await(begun)
      expect(Fs.readdirSync(folder).length).toBe(2)
      yield* Fiber.interrupt(fiber)
      expect(Fs.readdirSync(folder)).toStrictEqual([basename(file)])
      yield* failure(Trace.toFile(file, { format: "cloudevents", source: "not a URI" }))
      expect(Fs.readdirSync(folder)).toStrictEqual([basename(file)])
      expect(Fs.readFileSync(file, "utf8")).toBe("before")

      const missing = yield* failure(Trace.toFile(join(folder, "none", "trace.jsonl")))
      expect(missing).toBeInstanceOf(LedgerError.TraceFailure)
      expect(missing.message).toContain(`${join(folder, "none", "trace.jsonl")}: ENOENT`)
      const irregular = yield* failure(Trace.toFile(folder))
      expect(irregular.message).toBe(`${folder}: is no regular file`)
    }).pipe(Effect.provide(memory(events(10)))))

  it.live("a killed export leaves no half under the file's name", () =>
    Effect.gen(function*() {
      const folder = newFolder()
      const database = join(folder, "ledger.db")
      yield* Effect.provide(Ledger.appendAll(events(5000)), SqliteLedger.layerFile(database))
      const file = join(folder, "out", "trace.jsonl.gz")
      Fs.mkdirSync(dirname(file))
      yield* Effect.promise(async () => {
        const child = await startScript("exporter.ts", [file, "3000"], { DATABASE_URL: database })
        const closed = new Promise((resolve) => child.on("close", resolve))
        let errors = ""
        child.stderr!.on("data", (chunk) => errors += String(chunk))
        const printed = await Promise.race([
          new Promise((resolve) => child.stdout!.once("data", (chunk) => resolve(String(chunk)))),
          closed.then(() => errors)
        ])
        expect(printed).toBe("written\n")
        child.kill("SIGKILL")
        await closed
      })
      const [left, ...others] = Fs.readdirSync(dirname(file))
      expect(others).toStrictEqual([])
      expect(left).toMatch(/^trace\.jsonl\.gz\.[0-9a-f]{12}\.partial$/)
    }))
})

describe("there and back", () => {
  const schema = `trace_${randomBytes(6).toString("hex")}`
  const destinations: Record<string, () => Layer.Layer<Ledger.Ledger, unknown>> = {
    memory: () => memory(),
    SQLite: () => SqliteLedger.layerFile(join(newFolder(), "ledger.db")),
    Postgres: () => PgLedger.layerUrl(Redacted.make(inject("databaseUrl")), { schema, maxConnections: 2 })
  }
  const held = [...events(1200), ...hostile, ...FastCheck.sample(anyEvent, { numRuns: 300, seed: 7 })]
    .filter(((seen) => ({ id }) => !seen.has(id) && seen.add(id))(new Set<string>()))

  for (const [name, layer] of Object.entries(destinations)) {
    it.live(`is the same, in order, and the same lines again: ${name}`, () =>
      Effect.gen(function*() {
        const lines = yield* linesOf(held)
        const imported = yield* Trace.fromLines(Stream.fromIterable(lines))
        expect(imported).toStrictEqual({ ...nothing, line: lines.length, appended: lines.length })
        expectEvents(yield* Ledger.events, recordedAt(1, held))
        expect(yield* collect(Trace.lines())).toStrictEqual(lines)
        expect(yield* Trace.fromBytes(bytesOf(lines.join("\n"), 65_536))).toStrictEqual({
          ...nothing,
          line: lines.length,
          duplicates: lines.length
        })
      }).pipe(Effect.provide(layer())))
  }
  afterAll(async () => {
    const client = new Client(inject("databaseUrl"))
    await client.connect()
    await client.query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`)
    await client.end()
  })

  for (const ending of ["jsonl", "jsonl.gz", "JSONL.GZ"]) {
    it.live(`by a file: .${ending}`, () =>
      Effect.gen(function*() {
        const folder = newFolder()
        const file = join(folder, `trace.${ending}`)
        const exported = yield* Effect.provide(Trace.toFile(file), memory(held))
        expect(exported).toMatchObject({ count: held.length, head: held.length, bytes: Fs.statSync(file).size })
        expect(Fs.readdirSync(folder)).toStrictEqual([basename(file)])
        expect(readLines(file)).toStrictEqual(yield* linesOf(held))
        expect(yield* Trace.fromFile(file)).toMatchObject({ appended: held.length, invalid: 0 })
        expectEvents(yield* Ledger.events, recordedAt(1, held))
      }).pipe(Effect.provide(memory())))
  }

  it.effect("of an empty ledger", () =>
    Effect.gen(function*() {
      const file = join(newFolder(), "empty.jsonl.gz")
      expect(yield* Trace.toFile(file)).toMatchObject({ count: 0, offset: 0, head: 0 })
      expect(yield* Trace.fromFile(file)).toStrictEqual({ ...nothing, line: 0 })
    }).pipe(Effect.provide(memory())))

  it.live("of 50,000 events in a small heap, which does not grow", () =>
    Effect.gen(function*() {
      const folder = newFolder()
      const env = { DATABASE_URL: join(folder, "ledger.db"), LEDGER_DURABILITY: "relaxed" }
      const output = yield* Effect.promise(() =>
        runScript("tracer.ts", [folder, "50000"], env, ["--expose-gc", "--max-old-space-size=48"])
      )
      const { again, exported, imported, long, memory } = JSON.parse(output)
      expect(imported).toStrictEqual({ ...nothing, line: 50_000, appended: 50_000 })
      expect(exported).toMatchObject({ count: 50_000, offset: 50_000, head: 50_000 })
      expect(again).toStrictEqual({ ...nothing, line: 50_000, duplicates: 50_000 })
      // a line of 200 MiB
      expect(long.imported).toStrictEqual({
        ...nothing,
        line: 1,
        invalid: 1,
        invalidLines: [{ line: 1, reason: "is longer than 16777216 bytes" }]
      })
      expect(Math.max(...long.memory)).toBeLessThan(32 * 2 ** 20)
      // three steps, in each of which 35 MB of lines go by
      expect(memory.length).toBe(15)
      for (const [first, ...rest] of [memory.slice(0, 5), memory.slice(5, 10), memory.slice(10)]) {
        expect(Math.max(...rest) - first).toBeLessThan(8 * 2 ** 20)
      }
    }))
})

describe("import", () => {
  const good = (id: string, over: object = {}) =>
    JSON.stringify({
      id,
      run_id: "r",
      turn: 0,
      kind: "agent.spoke",
      actor: "ada",
      payload: {},
      created_at: "2026-01-01T00:00:00Z",
      ...over
    })
  const without = (key: string) => JSON.stringify({ ...JSON.parse(good("x")), [key]: undefined })

  it.effect("reads what older and other writers wrote", () =>
    Effect.gen(function*() {
      yield* Trace.fromLines(Stream.make(
        good("naive", { created_at: "2026-01-01T12:00:00.123999" }),
        good("zoned", { created_at: "2026-01-01 12:00:00+02:00" }),
        good("all", {
          schema_version: 3,
          session_id: "s",
          model_profile: null,
          model_id: "m",
          offset: 900,
          payload: { big: 1e300, exact: 123456789012345680000, ten: 1e22 }
        }),
        ` ${good("blanks", { payload: { digits: "12345678901234567890", float: 0.12345678901234568 } })}\r`
      ))
      const [naive, zoned, all, blanks] = yield* Ledger.events
      expect(naive!.createdAt.toJSON()).toBe("2026-01-01T12:00:00.123Z")
      expect(naive).toMatchObject({ schemaVersion: 1, sessionId: null, modelProfile: null, modelId: null })
      expect(zoned!.createdAt.toJSON()).toBe("2026-01-01T10:00:00.000Z")
      expect(all).toMatchObject({ offset: 3, schemaVersion: 3, sessionId: "s", modelProfile: null, modelId: "m" })
      expect(blanks!.payload).toStrictEqual({ digits: "12345678901234567890", float: 0.12345678901234568 })
    }).pipe(Effect.provide(memory())))

  for (const size of [1, 7, 100_000]) {
    it.effect(`lines end in LF, CRLF or with the file, may be empty, after a byte order mark: ${size} bytes at a time`, () =>
      Effect.gen(function*() {
        const text = `\ufeff${good("é")}\r\n\n  \r\n${good("\u{1f4be}")}\n\n${good("last")}`
        const imported = yield* Trace.fromBytes(bytesOf(text, size))
        expect(imported).toStrictEqual({ ...nothing, line: 6, appended: 3 })
        expect((yield* Ledger.events).map(({ id }) => id)).toStrictEqual(["é", "\u{1f4be}", "last"])
      }).pipe(Effect.provide(memory())))
  }

  const damaged: ReadonlyArray<readonly [line: string | Uint8Array, reason: string | RegExp]> = [
    ["{", "is not JSON"],
    [good("x").slice(0, -1), "is not JSON"],
    [`${good("x")}${good("y")}`, "is not JSON"],
    [`\ufeff${good("x")}`, "is not JSON"],
    ["{\"id\":NaN}", "is not JSON"],
    ["[]", "expected a JSON object"],
    ["null", "expected a JSON object"],
    ["7", "expected a JSON object"],
    [good("x", { session: "s" }), "\"session\" is not a field of an event"],
    [good("x").replace("{", "{\"__proto__\":{},"), "\"__proto__\" is not a field of an event"],
    ...["id", "run_id", "turn", "kind", "actor", "payload", "created_at"].map((key) =>
      [without(key), `${key}: is missing`] as const
    ),
    [good("x", { turn: "0" }), /^turn: expected an integer/],
    [good("x", { run_id: "" }), /^run_id: expected 1 to 255/],
    [good("x".repeat(65)), /^id: expected at most 64/],
    [good("x", { kind: "Spoke" }), /^kind: /],
    [good("x", { created_at: "yesterday" }), /^created_at: expected an ISO 8601/],
    [good("x", { created_at: 0 }), /^created_at: expected an ISO 8601/],
    [good("x", { created_at: "0001-01-01T00:00:00+00:01" }), /^created_at: /],
    [good("x", { schema_version: null }), /^schema_version: /],
    [good("x", { session_id: "" }), /^session_id: /],
    [good("x", { payload: [] }), "payload: expected a JSON object"],
    [good("x", { actor: "\ud800" }), "actor: a lone surrogate is not a character"],
    [good("x", { payload: { a: ["\udc00"] } }), "payload.a[0]: a lone surrogate is not a character"],
    [good("x").replace("{}", "{\"a\":{\"__proto__\":1}}"), /^payload/],
    [good("x").replace("{}", "{\"n\":1e999}"), "payload.n: Infinity is not a JSON number"],
    [
      good("x").replace("{}", "{\"a\":\"\\\\\\\"1\",\"n\":[-12345678901234567890]}"),
      "the integer 12345678901234567890 is no double: it would come back as 12345678901234567000"
    ],
    [good("x").replace("{}", `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`), /levels$/],
    [good("x", { offset: 0 }), "offset: expected an integer from 1"],
    [good("x", { offset: "1" }), "offset: expected an integer from 1"],
    [good("x", { digest: "0".repeat(64) }), "digest: is not that of the content"],
    [good("x", { digest: null }), "digest: is not that of the content"],
    [Buffer.from(good("\u00ff"), "latin1"), "is not UTF-8"],
    [Buffer.from([0xed, 0xa0, 0x80]), "is not UTF-8"],
    [good("x", { payload: { long: "x".repeat(300_000) } }), "is longer than 300000 bytes"],
    [good("x", { payload: { long: "é".repeat(150_000) } }), "is longer than 300000 bytes"]
  ]
  const limit = { maxLineBytes: 300_000 }
  const newline = Buffer.from("\n")

  it.effect("a damaged line is an error with its number and reason, once the lines before it are recorded", () =>
    Effect.forEach(damaged, ([line, reason]) =>
      Effect.gen(function*() {
        const parts = [good("a"), newline, good("b"), newline, newline, line, newline, good("c")].map((part) =>
          Buffer.from(part as string)
        )
        const check = (error: LedgerError.InvalidTrace | LedgerError.StoreError) => {
          expect(error).toBeInstanceOf(LedgerError.InvalidTrace)
          expect((error as LedgerError.InvalidTrace).line).toBe(4)
          expect((error as LedgerError.InvalidTrace).reason).toMatch(
            typeof reason === "string" ? new RegExp(`^${reason.replace(/[^\w ]/g, "\\$&")}$`) : reason
          )
        }
        check(yield* failure(Trace.fromBytes(Stream.fromIterable(parts), limit)))
        expect((yield* Ledger.events).map(({ id }) => id)).toStrictEqual(["a", "b"])
        if (typeof line !== "string") return
        check(yield* failure(Trace.fromLines(Stream.make(good("a"), good("b"), "", line, good("c")), limit)))
        expect(yield* Ledger.latestOffset).toBe(2)
      }).pipe(Effect.provide(memory()))))

  it.effect("damaged lines are skipped and reported when told, and the others recorded in order", () =>
    Effect.gen(function*() {
      const parts = damaged.flatMap((
        [line],
        n
      ) => [Buffer.from(line as string), newline, Buffer.from(good(`g${n}`)), newline])
      const imported = yield* Trace.fromBytes(Stream.fromIterable(parts), { ...limit, onInvalid: "skip", batchSize: 7 })
      expect(imported).toMatchObject({ line: damaged.length * 2, appended: damaged.length, invalid: damaged.length })
      expect(imported.invalidLines.map(({ line }) => line)).toStrictEqual(damaged.map((_, n) => n * 2 + 1))
      expect((yield* Ledger.events).map(({ id }) => id)).toStrictEqual(damaged.map((_, n) => `g${n}`))
    }).pipe(Effect.provide(memory())))

  it.effect("a digest that was changed, or whose content was, is noticed in every field", () =>
    Effect.gen(function*() {
      const [line] = yield* linesOf([event("one", { sessionId: "s", modelProfile: "p", modelId: "m" })])
      const given = JSON.parse(line!)
      const others = {
        id: "two",
        run_id: "run-2",
        turn: 1,
        kind: "agent.acted",
        actor: "bob",
        payload: {},
        schema_version: 2,
        created_at: "2026-01-01T00:00:00.001Z",
        session_id: null,
        model_profile: null,
        model_id: "n",
        digest: given.digest.toUpperCase()
      }
      const changed = Object.entries(others).map(([key, value]) => JSON.stringify({ ...given, [key]: value }))
      const imported = yield* Trace.fromLines(Stream.fromIterable(changed), { onInvalid: "skip" })
      expect(imported).toMatchObject({ appended: 0, invalid: 12 })
      for (const { reason } of imported.invalidLines) expect(reason).toBe("digest: is not that of the content")
      yield* Trace.fromLines(Stream.make(JSON.stringify({ ...given, offset: 77 })))
      expect((yield* Ledger.events)[0]!.offset).toBe(1)
    }).pipe(Effect.provide(memory())))

  it.effect("lists are bounded, counts are exact", () =>
    Effect.gen(function*() {
      yield* Trace.fromLines(Stream.map(Stream.range(1, 250), (n) => good(`d${n}`)))
      const lines = Stream.flatMap(Stream.range(1, 250), (n) => Stream.make("?", good(`d${n}`, { turn: 1 })))
      const { divergentIds, invalidLines, ...counts } = yield* Trace.fromLines(lines, { onInvalid: "skip" })
      expect(counts).toStrictEqual({ line: 500, appended: 0, duplicates: 0, divergent: 250, invalid: 250 })
      expect(divergentIds).toStrictEqual(Array.from({ length: 100 }, (_, n) => `d${n + 1}`))
      expect(invalidLines.map(({ line }) => line)).toStrictEqual(Array.from({ length: 100 }, (_, n) => 2 * n + 1))
      expect((yield* Ledger.events).every(({ turn }) => turn === 0)).toBe(true)
    }).pipe(Effect.provide(memory())))

  it.effect("what the ledger itself refuses is an invalid line too", () =>
    Effect.gen(function*() {
      const text = [good("a"), good("b"), good("big", { payload: { text: "x".repeat(200) } }), good("c"), "?"].join(
        "\n"
      )
      const error = yield* failure(Trace.fromBytes(bytesOf(text)))
      expect(error).toStrictEqual(
        new LedgerError.InvalidTrace({ line: 3, reason: "payload.text: is too large" })
      )
      expect(yield* Ledger.latestOffset).toBe(2)
      const imported = yield* Trace.fromBytes(bytesOf(text), { onInvalid: "skip" })
      expect(imported).toMatchObject({ appended: 1, duplicates: 2, invalid: 2 })
      expect(imported.invalidLines.map(({ line }) => line)).toStrictEqual([3, 5])
      expect((yield* Ledger.events).map(({ id }) => id)).toStrictEqual(["a", "b", "c"])
    }).pipe(Effect.provide(MemoryLedger.layerWith({ maxPayloadBytes: 100 }))))

  it.effect("is told about after each batch, and goes on where a source that fails left off", () =>
    Effect.gen(function*() {
      const all = yield* linesOf(events(2600))
      const told: Array<Trace.Imported> = []
      const onProgress = (progress: Trace.Imported) => Effect.sync(() => void told.push(progress))
      const cut = Stream.concat(Stream.fromIterable(all.slice(0, 1700)), Stream.fail("cut" as const))
      expect(yield* failure(Trace.fromLines(cut, { onProgress }))).toBe("cut")
      expect(told.map(({ appended, line }) => [appended, line])).toStrictEqual([[1000, 1000], [1700, 1700]])
      const imported = yield* Trace.fromLines(Stream.fromIterable(all), { batchSize: 500 })
      expect(imported).toStrictEqual({ ...nothing, line: 2600, appended: 900, duplicates: 1700 })
      expect(yield* collect(Trace.lines())).toStrictEqual(all)
    }).pipe(Effect.provide(memory())))

  it.scoped("fails as the ledger does, and is repeated as it is", () =>
    Effect.gen(function*() {
      const inner = yield* open(memory())
      let writes = 0
      const failing = over(inner.store, (store) => ({
        append: (groups) => ++writes === 3 ? new LedgerError.StoreUnavailable({ reason: "gone" }) : store.append(groups)
      }))
      const all = yield* linesOf(events(4500))
      const run = Trace.fromLines(Stream.fromIterable(all))
      yield* Effect.gen(function*() {
        expect((yield* failure(run))._tag).toBe("StoreUnavailable")
        expect(yield* Ledger.latestOffset).toBe(2000)
        expect(yield* run).toMatchObject({ appended: 2500, duplicates: 2000 })
        expect(yield* collect(Trace.lines())).toStrictEqual(all)
      }).pipe(Effect.provide(failing))
    }))

  it.live("a compressed file that is cut off or damaged fails, once what came before is recorded", () =>
    Effect.gen(function*() {
      const file = join(newFolder(), "trace.jsonl.gz")
      const drawn = FastCheck.sample(anyEvent, { numRuns: 4000, seed: 11 })
      const held = drawn.map((one, n) => event(`e${n}`, { payload: one.payload, runId: one.runId }))
      yield* Effect.provide(Trace.toFile(file), memory(held))
      const whole = Fs.readFileSync(file)
      for (const length of [0, 5, 1000, whole.length >> 1, whole.length - 9, whole.length - 1]) {
        yield* Effect.gen(function*() {
          Fs.writeFileSync(file, whole.subarray(0, length))
          const error = yield* failure(Trace.fromFile(file))
          expect(error).toBeInstanceOf(LedgerError.TraceFailure)
          expect(error.message).toBe(`${file}: unexpected end of file`)
          const recorded = yield* Ledger.events
          expectEvents(recorded, recordedAt(1, held.slice(0, recorded.length)))
          if (length > whole.length / 3) expect(recorded.length).toBeGreaterThan(100)
        }).pipe(Effect.provide(memory()))
      }
      const flipped = Buffer.from(whole)
      flipped[whole.length - 6]! ^= 1
      Fs.writeFileSync(file, flipped)
      expect((yield* failure(Trace.fromFile(file))).message).toBe(`${file}: incorrect data check`)
      Fs.writeFileSync(file, good("x"))
      expect((yield* failure(Trace.fromFile(file))).message).toBe(`${file}: incorrect header check`)
      Fs.writeFileSync(file, Buffer.concat([Zlib.gzipSync(`${good("x")}\n`), Zlib.gzipSync(good("y"))]))
      expect(yield* Trace.fromFile(file)).toMatchObject({ appended: 2 })
    }).pipe(Effect.provide(memory())))

  it.live("a file that is not there, or is a folder, fails by its name; a reader that ends early closes it", () =>
    Effect.gen(function*() {
      const missing = join(root, "none.jsonl")
      expect((yield* failure(Trace.fromFile(missing))).message).toContain(`${missing}: ENOENT`)
      expect((yield* failure(Trace.fromFile(root))).message).toContain(`${root}: EISDIR`)
      const file = join(newFolder(), "bad.jsonl")
      Fs.writeFileSync(file, `?\n${`${good("x")}\n`.repeat(10_000)}`)
      const opened = () => Fs.readdirSync("/proc/self/fd").filter((fd) => linkOf(fd) === file)
      yield* failure(Trace.fromFile(file))
      yield* Effect.repeat(Effect.yieldNow(), { until: () => opened().length === 0 })
    }).pipe(Effect.provide(memory())))
})

describe("zstd", () => {
  // made by zstd 1.5, with its checksum
  const frame = Buffer.from("KLUv/SQnnQAAaGhlbGxvIGZyYW1lcwoBAGDPL6y+Z1Q=", "base64")
  const skippable = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])
  it.live("frames begin in chunks of their own, and one that is cut off is noticed", () =>
    Effect.gen(function*() {
      for (const size of [1, 2, 5, 1000]) {
        const parts = yield* framesIn(Buffer.concat([frame, frame, skippable, frame]), size)
        expect(Buffer.concat(parts)).toStrictEqual(Buffer.concat([frame, frame, skippable, frame]))
        let at = 0
        const starts = parts.map((part) => (at += part.length) - part.length)
        for (const start of [frame.length, frame.length * 2, frame.length * 2 + skippable.length]) {
          expect(starts).toContain(start)
        }
        for (let length = 0; length < frame.length; length++) {
          const end = failure(framesIn(frame.subarray(0, length), size))
          expect(yield* end).toBe("unexpected end of file")
        }
        expect(yield* failure(framesIn(Buffer.concat([frame, Buffer.from("junk")]), size))).toBe("is not zstd")
      }
    }))

  const file = () => join(newFolder(), "trace.jsonl.zst")
  const compress: ((data: Uint8Array) => Buffer) | undefined = (Zlib as any).zstdCompressSync

  it.live(`a file: ${compress === undefined ? "this Node has none, and says which has" : "there and back"}`, () =>
    Effect.gen(function*() {
      const path = file()
      const held = [...events(3000), ...hostile]
      const written = yield* Effect.either(Effect.provide(Trace.toFile(path), memory(held)))
      if (compress === undefined) {
        for (const error of [written, yield* Effect.either(Trace.fromFile(path))]) {
          expect(error).toMatchObject({ _tag: "Left", left: { _tag: "TraceFailure", path } })
          expect(String((error as any).left.message)).toContain("zstd needs Node 22.15")
        }
        expect(Fs.readdirSync(dirname(path))).toStrictEqual([])
        return
      }
      expect(written).toMatchObject({ _tag: "Right", right: { count: held.length, bytes: Fs.statSync(path).size } })
      expect(yield* Trace.fromFile(path)).toMatchObject({ appended: held.length, invalid: 0 })
      expectEvents(yield* Ledger.events, recordedAt(1, held))
      const whole = Fs.readFileSync(path)
      for (const length of [0, 3, whole.length >> 1, whole.length - 4, whole.length - 1]) {
        Fs.writeFileSync(path, whole.subarray(0, length))
        expect((yield* failure(Trace.fromFile(path))).message).toBe(`${path}: unexpected end of file`)
      }
      const flipped = Buffer.from(whole)
      flipped[whole.length - 2]! ^= 1
      Fs.writeFileSync(path, flipped)
      expect((yield* failure(Trace.fromFile(path)))._tag).toBe("TraceFailure")
      Fs.writeFileSync(path, Buffer.concat([whole, compress(Buffer.from("?"))]))
      expect(yield* Trace.fromFile(path, { onInvalid: "skip" })).toMatchObject({ duplicates: held.length, invalid: 1 })
    }).pipe(Effect.provide(memory())))
})

const framesIn = (bytes: Uint8Array, size: number): Effect.Effect<ReadonlyArray<Buffer>, string> =>
  Effect.async((resume) => {
    const frames = new ZstdFrames()
    const parts: Array<Buffer> = []
    frames.on("data", (part: Buffer) => parts.push(part))
    frames.on("error", (error) => resume(Effect.fail(error.message)))
    frames.on("end", () => resume(Effect.succeed(parts)))
    for (let at = 0; at < bytes.length; at += size) frames.write(bytes.subarray(at, at + size))
    frames.end()
  })

const readLines = (file: string): ReadonlyArray<string> => {
  const bytes = Fs.readFileSync(file)
  const text = (/gz$/i.test(file) ? Zlib.gunzipSync(bytes) : bytes).toString("utf8")
  expect(text.endsWith("\n")).toBe(true)
  return text.slice(0, -1).split("\n")
}

const linkOf = (fd: string): string | undefined => {
  try {
    return Fs.readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return undefined
  }
}

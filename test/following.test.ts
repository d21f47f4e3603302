/** Laws 15 and 16 where they are hard: other processes, servers that die, connections that fall silent. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, Redacted, Stream } from "effect"
import { randomInt } from "node:crypto"
import * as Path from "node:path"
import { Client } from "pg"
import { Event, type Ledger, StoreLedger } from "../src/index.js"
import { listen } from "../src/internal/pgListen.js"
import * as pgStore from "../src/internal/pgStore.js"
import * as PgLedger from "../src/PgLedger.js"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { open } from "./contract/handle.js"
import { digester, random } from "./support/following.js"
import type { PostgresServer } from "./support/postgres.js"
import { listenerName, startProxy } from "./support/proxy.js"
import { finished, folder, postgres, type Process, start, until } from "./support/running.js"

const seed = process.env["TEST_SEED"] ?? String(randomInt(2 ** 31))

describe("every subscriber sees exactly the log", () => {
  it.scopedLive(
    "on Postgres, while backends are terminated and the server is killed",
    () =>
      Effect.gen(function*() {
        console.log(`TEST_SEED=${seed}`)
        const chance = random(seed)
        const server = yield* postgres
        const env = { DATABASE_URL: server.url, LEDGER_SCHEMA: "ledger" }
        const names = Array.from({ length: 8 }, (_, n) => `writer-${n}`)
        const perWriter = 2000
        const total = names.length * perWriter
        const acknowledged = new Map<string, number>()
        const subscribe = start("subscriber.ts", [String(total)], env)

        const subscribers = [yield* subscribe, yield* subscribe]
        const writers = yield* Effect.forEach(
          names,
          (name) => start("writer.ts", [name, String(perWriter), "50"], env, acknowledge(acknowledged))
        )
        const rounds = 32
        const killed = new Set([6 + Math.floor(chance() * 6), 18 + Math.floor(chance() * 6)])
        let listeners = 0
        for (let round = 1; round < rounds; round++) {
          yield* until(() => acknowledged.size >= (total / rounds) * round, [...subscribers, ...writers])
          if (killed.has(round)) {
            yield* until(() => subscribers.some(isReading), [...subscribers, ...writers])
            const reading = subscribers.filter(isReading)
            yield* Effect.promise(() => server.kill())
            // what the store's own retries would bridge is no outage
            yield* until(() => reading.every(isWaiting), [...subscribers, ...writers])
            yield* Effect.promise(() => server.start())
          } else {
            // in the end it is the listeners' turn, and events follow
            listeners += yield* terminate(server.url, chance, round % 3 === 0 || round === rounds - 1)
          }
          // one comes late
          if (round === 16) subscribers.push(yield* subscribe)
        }
        yield* Effect.forEach([...writers, ...subscribers], finished, { concurrency: "unbounded" })
        assert.isAbove(listeners, 0)

        const { ledger } = yield* open(PgLedger.layerUrl(Redacted.make(server.url), { schema: "ledger" }))
        const log = yield* ledger.events
        checkLog(log, names, perWriter, acknowledged)
        for (const { lines } of subscribers) checkSeen(lines, log)
      }),
    120_000
  )

  it.scopedLive(
    "on SQLite, while writers are killed",
    () =>
      Effect.gen(function*() {
        console.log(`TEST_SEED=${seed}`)
        const chance = random(seed)
        const env = { DATABASE_URL: `sqlite:///${Path.join(yield* folder, "a.db")}` }
        const names = Array.from({ length: 4 }, (_, n) => `writer-${n}`)
        const perWriter = 2000
        const total = names.length * perWriter
        const acknowledged = new Map<string, number>()
        const subscribe = start("subscriber.ts", [String(total)], env)
        const write = (name: string) =>
          start("writer.ts", [name, String(perWriter), "8"], env, acknowledge(acknowledged))

        const subscribers = [yield* subscribe]
        const writers = yield* Effect.forEach(names, write)
        const rounds = 24
        let killed = 0
        for (let round = 1; round < rounds; round++) {
          yield* until(() => acknowledged.size >= (total / rounds) * round, [...subscribers, ...writers])
          const victim = Math.floor(chance() * writers.length)
          const writer = writers[victim]!
          yield* writer.kill
          if (writer.ended() !== 0) killed++
          writers[victim] = yield* write(names[victim]!)
          if (round === 12) subscribers.push(yield* subscribe)
        }
        yield* Effect.forEach([...writers, ...subscribers], finished, { concurrency: "unbounded" })
        assert.isAbove(killed, 0)

        const { ledger } = yield* open(SqliteLedger.layerFile(env.DATABASE_URL.slice("sqlite:///".length)))
        const log = yield* ledger.events
        checkLog(log, names, perWriter, acknowledged)
        for (const { lines } of subscribers) checkSeen(lines, log)
      }),
    120_000
  )

  it.scopedLive(
    "100,000 events behind with a slow handler, in flat memory",
    () =>
      Effect.gen(function*() {
        const path = Path.join(yield* folder, "a.db")
        const { ledger } = yield* open(SqliteLedger.layerFile(path, { durability: "relaxed" }))
        const total = 100_001
        yield* ledger.append(yield* event(0))
        const laggard = yield* start(
          "laggard.ts",
          [String(total)],
          { DATABASE_URL: `sqlite:///${path}` },
          undefined,
          // all of the events are more than twice that
          ["--max-old-space-size=64", "--expose-gc"]
        )
        yield* until(() => laggard.lines.includes("handling"), [laggard])
        for (let turn = 1; turn < total; turn += 1000) {
          yield* ledger.appendAll(yield* Effect.forEach(Array.from({ length: 1000 }, (_, n) => turn + n), event))
        }
        yield* finished(laggard)
        const told = JSON.parse(laggard.lines.at(-1) ?? "")
        assert.strictEqual(told.seen, total)
        assert.isTrue(told.inOrder)
        assert.isAtLeast(told.memory.length, 10)
        const spread = Math.max(...told.memory) - Math.min(...told.memory)
        assert.isBelow(spread, 4 * 2 ** 20, `bytes in use: ${told.memory}`)
      }),
    120_000
  )
})

describe("a LISTEN connection", () => {
  it.scopedLive("that is silent hides nothing: the poll goes on", () =>
    Effect.gen(function*() {
      const server = yield* postgres
      const proxy = yield* proxyTo(server)
      const writer = yield* open(PgLedger.layerUrl(Redacted.make(server.url)))
      const reader = yield* open(PgLedger.layerUrl(proxy.url, { pollInterval: "50 millis" }))
      const seen = yield* follow(reader.ledger)
      yield* until(() => proxy.listeners().at(-1)?.listening === true)
      proxy.silence()
      for (let turn = 1; turn <= 20; turn++) yield* writer.ledger.append(yield* event(turn))
      yield* until(() => seen.length === 20)
      assert.deepStrictEqual(seen, Array.from({ length: 20 }, (_, n) => n + 1))
      // all of that before anybody noticed the silence
      assert.strictEqual(proxy.listeners().length, 1)
      assert.isFalse(proxy.listeners()[0]!.closed)
    }))

  it.scopedLive("that falls silent is replaced, and what was appended meanwhile is seen", () =>
    Effect.gen(function*() {
      const server = yield* postgres
      const proxy = yield* proxyTo(server)
      const writer = yield* open(PgLedger.layerUrl(Redacted.make(server.url)))
      const reader = yield* open(hinted(proxy.url))
      const seen = yield* follow(reader.ledger)
      yield* until(() => proxy.listeners().at(-1)?.listening === true)
      for (let turn = 1; turn <= 3; turn++) {
        const before = proxy.listeners().length
        const silent = performance.now()
        proxy.silence()
        yield* writer.ledger.append(yield* event(2 * turn))
        yield* until(() => seen.length === 2 * turn - 1)
        // that came with the new connection, and this with its notification
        yield* until(() => proxy.listeners().length > before && proxy.listeners().at(-1)?.listening === true)
        yield* until(() => proxy.listeners().slice(0, before).every(({ closed }) => closed))
        const millis = Math.round(performance.now() - silent)
        console.log(`replaced after ${millis} ms of silence, with a heartbeat of ${heartbeat}`)
        // two heartbeats and a new connection, on a machine that others use
        assert.isBelow(millis, 10_000)
        yield* writer.ledger.append(yield* event(2 * turn + 1))
        yield* until(() => seen.length === 2 * turn)
      }
      assert.deepStrictEqual(seen, [1, 2, 3, 4, 5, 6])
    }))

  it.scopedLive("that falls silent with all the others is replaced as they are", () =>
    Effect.gen(function*() {
      const server = yield* postgres
      const proxy = yield* proxyTo(server)
      const near = yield* open(PgLedger.layerUrl(Redacted.make(server.url)))
      const far = yield* open(hinted(proxy.url))
      const seen = yield* follow(far.ledger)
      yield* near.ledger.append(yield* event(1))
      yield* until(() => seen.length === 1)
      proxy.silence(true)
      // a connection without an answer is given up, and whoever waited for it is told to repeat the call
      const repeated = <A, E extends { readonly _tag: string }>(effect: Effect.Effect<A, E>) =>
        Effect.retry(effect, { while: ({ _tag }) => _tag === "StoreUnavailable" })
      const own = yield* Effect.fork(repeated(far.ledger.append(yield* event(2))))
      const head = yield* Effect.fork(repeated(far.ledger.latestOffset))
      yield* near.ledger.append(yield* event(3))
      yield* until(() => seen.length === 3)
      assert.deepStrictEqual(seen, [1, 2, 3])
      yield* Fiber.join(own)
      assert.isAtLeast(yield* Fiber.join(head), 1)
    }))

  it.scopedLive("that is refused is told of once, and events are seen all the same", () => {
    const warnings: Array<string> = []
    return Effect.gen(function*() {
      const server = yield* postgres
      const proxy = yield* proxyTo(server)
      proxy.refuse(true)
      const writer = yield* open(PgLedger.layerUrl(Redacted.make(server.url)))
      const reader = yield* open(PgLedger.layerUrl(proxy.url, { pollInterval: "1 hour" }))
      const seen = yield* follow(reader.ledger)
      for (let turn = 1; turn <= 3; turn++) {
        yield* writer.ledger.append(yield* event(turn))
        yield* until(() => seen.length === turn)
      }
      // both ways of refusing were met twice
      yield* until(() => proxy.refused() >= 4)
      assert.strictEqual(warnings.length, 1)
      assert.include(warnings[0], "cannot listen for notifications")
      proxy.refuse(false)
      yield* until(() => proxy.listeners().at(-1)?.listening === true)
      yield* writer.ledger.append(yield* event(4))
      yield* until(() => seen.length === 4)
      assert.deepStrictEqual(seen, [1, 2, 3, 4])
      assert.strictEqual(warnings.length, 1)
    }).pipe(Effect.provide(
      Logger.replace(
        Logger.defaultLogger,
        Logger.make(({ logLevel, message }) => {
          if (logLevel._tag === "Warning") warnings.push(String(message))
        })
      )
    ))
  })
})

const event = (turn: number): Effect.Effect<Event.Event> =>
  Effect.orDie(Event.create({
    id: Event.deterministicId("following", String(turn)),
    runId: "run",
    turn,
    kind: "agent.spoke",
    actor: "ada",
    payload: { turn, text: "lorem ipsum ".repeat(100) }
  }))

const heartbeat = "300 millis"

/** A ledger that sees nothing but by hints, and whose connections must answer soon. */
const hinted = (url: Redacted.Redacted) =>
  StoreLedger.layerWith({ pollInterval: "1 hour" }).pipe(
    Layer.provideMerge(Layer.scopedContext(
      Effect.flatMap(PgClient.PgClient, (client) =>
        pgStore.make(client, {
          prefix: "ledger_",
          schema: undefined,
          create: undefined,
          listen: (channel) => listen(client.config, channel, heartbeat),
          durability: "full",
          lockTimeout: "1 second",
          pool: undefined,
          prepared: true,
          commitTimeout: "500 millis"
        }))
    )),
    Layer.provide(PgClient.layer({ url, maxConnections: 2 }))
  )

/** The offsets that a subscriber sees, as it sees them. */
const follow = (ledger: Ledger.Ledger["Type"]) => {
  const seen: Array<number> = []
  return ledger.subscribe().pipe(
    Stream.runForEach(({ offset }) => Effect.sync(() => seen.push(offset))),
    Effect.forkScoped,
    Effect.as(seen)
  )
}

const isReading = ({ lines }: Process): boolean => lines.length > 0

/** A subscriber has said that the store is away, and not yet that it is back; or it has seen all there is. */
const isWaiting = (subscriber: Process): boolean =>
  subscriber.ended() === 0 ||
  subscriber.errors().split("the store is away").length > subscriber.errors().split("the store is back").length

/** Takes the lines `offset id` of a writer; whatever it tells, an id has one offset. */
const acknowledge = (acknowledged: Map<string, number>) => (line: string): void => {
  const [offset, id = ""] = line.split(" ")
  assert.strictEqual(acknowledged.get(id) ?? Number(offset), Number(offset))
  acknowledged.set(id, Number(offset))
}

const checkLog = (
  log: ReadonlyArray<Event.RecordedEvent>,
  writers: ReadonlyArray<string>,
  perWriter: number,
  acknowledged: ReadonlyMap<string, number>
): void => {
  assert.strictEqual(log.length, writers.length * perWriter)
  assert.isTrue(log.every(({ offset }, index) => offset === index + 1), "the offsets are dense")
  const stored = new Map(log.map(({ id, offset }) => [id, offset]))
  assert.strictEqual(stored.size, log.length, "no id twice")
  assert.strictEqual(acknowledged.size, log.length)
  for (const [id, offset] of acknowledged) assert.strictEqual(stored.get(id), offset, `acknowledged: ${id}`)
  for (const writer of writers) {
    const turns = log.filter(({ runId }) => runId === writer).map(({ turn }) => turn)
    assert.isTrue(turns.every((turn, index) => turn === index), `${writer} wrote in order`)
  }
}

/** What a subscriber process printed is the log: no hole, no repeat, in order, and every field of it. */
const checkSeen = (lines: ReadonlyArray<string>, log: ReadonlyArray<Event.RecordedEvent>): void => {
  const digest = digester()
  for (const event of log) digest.add(event)
  const expected = [...log.map(({ id, offset }) => `${offset} ${id}`), `digest ${digest.text()}`]
  const wrong = expected.findIndex((line, index) => line !== lines[index])
  if (wrong >= 0) assert.strictEqual(lines[wrong], expected[wrong], `line ${wrong + 1} of ${lines.length}`)
  assert.strictEqual(lines.length, expected.length)
}

/** Terminates some backends of the database, and all listeners if told; answers how many of those there were. */
const terminate = (url: string, chance: () => number, listeners: boolean): Effect.Effect<number> =>
  Effect.promise(async () => {
    const client = new Client(url)
    client.on("error", () => {})
    await client.connect()
    try {
      const { rows } = await client.query<{ readonly pid: number; readonly application_name: string }>(
        "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() " +
          "AND backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
      )
      const isListener = (row: (typeof rows)[number]) => row.application_name === listenerName
      const chosen = rows.filter((row) => listeners && isListener(row) || chance() < 0.15)
      await client.query("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", [
        chosen.map(({ pid }) => pid)
      ])
      return chosen.filter(isListener).length
    } finally {
      await client.end()
    }
  })

/** A proxy before a server that does harm to LISTEN connections, and only to them. */
const proxyTo = (server: PostgresServer) =>
  Effect.acquireRelease(
    Effect.promise(() => startProxy(server.url)),
    (proxy) => Effect.sync(() => proxy.close())
  ).pipe(Effect.map((proxy) => {
    const listeners = () => proxy.connections.filter(({ isListener }) => isListener)
    return {
      url: Redacted.make(proxy.url),
      listeners,
      silence: (all = false): void => {
        for (const connection of all ? proxy.connections : listeners()) connection.silent = true
      },
      refuse: (yes: boolean): void => proxy.refuse(({ isListener }) => yes && isListener),
      refused: proxy.refused
    }
  }))

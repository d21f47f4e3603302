/** Other event stores that npm ships, each as its documentation sets it up. */
import * as EventJournal from "@effect/experimental/EventJournal"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqlEventJournal from "@effect/sql/SqlEventJournal"
import { Effect, Layer, ManagedRuntime, Redacted } from "effect"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import { Client } from "pg"
import type { Event } from "../src/index.js"
import { versionOf } from "./machine.js"
import { each, type Open, type Side } from "./side.js"

const manifest = new URL("./peers/package.json", import.meta.url)

/** Installs them where they are not; answers their versions. */
export const install = (): Readonly<Record<string, string>> => {
  const prefix = fileURLToPath(new URL(".", manifest))
  if (!Fs.existsSync(new URL("./node_modules", manifest))) {
    const { status } = spawnSync("npm", ["ci", "--prefix", prefix, "--no-audit", "--no-fund"], {
      stdio: "inherit",
      shell: process.platform === "win32"
    })
    if (status !== 0) throw new Error(`npm ci --prefix ${prefix} ended with ${status}`)
  }
  const { dependencies } = JSON.parse(Fs.readFileSync(manifest, "utf8")) as { readonly dependencies: object }
  return Object.fromEntries([
    ...Object.keys(dependencies).map((name) => [name, versionOf(name, manifest.href)] as const),
    ["@effect/sql", versionOf("@effect/sql")]
  ])
}

/** Those that write to SQLite and flush every commit. */
export const onSqliteFull = (file: (name: string) => string): ReadonlyArray<Side> => [
  peer("Emmett", async () => {
    const path = newFile(file)
    const { getSQLiteEventStore, sqliteConnection } = load<EmmettSqlite>("@event-driven-io/emmett-sqlite")
    // with a connection for each call, as it is unless told, even one append after the other ended with SQLITE_BUSY
    const connection = sqliteConnection({ fileName: path })
    const store = getSQLiteEventStore({
      fileName: path,
      connectionOptions: { singleton: true, connection },
      schema: { autoMigration: "CreateOrUpdate" }
    })
    await store.schema.migrate()
    const readAll = reading((processorId, eachMessage, count) => {
      const consumer = store.consumer({ pulling })
      let read = 0
      consumer.processor({ processorId, startFrom: "BEGINNING", eachMessage, stopAfter: () => ++read >= count() })
      return consumer
    })
    return {
      ...emmett(store, readAll, async () => {
        connection.close()
        remove(path)
      }),
      together: "on one connection, appends at once share a transaction, and answer before it commits"
    }
  })
]

/** Those that write to SQLite and flush now and then. */
export const onSqliteNormal = (file: (name: string) => string): ReadonlyArray<Side> => [
  peer("SqlEventJournal", async () => {
    const path = newFile(file)
    return journal(SqliteClient.layer({ filename: path }), async () => remove(path))
  })
]

export const onPostgres = (url: string): ReadonlyArray<Side> => [
  peer("Emmett", async () => {
    const database = await newDatabase(url)
    const store = load<EmmettPostgres>("@event-driven-io/emmett-postgresql").getPostgreSQLEventStore(database.url)
    await store.schema.migrate()
    const readAll = reading((processorId, eachMessage) => {
      const consumer = store.consumer({ stopWhen: { noMessagesLeft: true }, pulling })
      consumer.reactor({ processorId, startFrom: "BEGINNING", eachMessage })
      return consumer
    })
    return emmett(store, readAll, async () => {
      await store.close()
      await database.drop()
    })
  }),
  peer("Castore", async () => {
    const database = await newDatabase(url)
    const { PostgresEventStorageAdapter: Adapter } = load<CastorePostgres>("@castore/event-storage-adapter-postgres")
    const connectionString = database.url
    await Adapter.createEventTable({ connectionString, aggregateId: { type: "VARCHAR", length: 255 } })
    const adapter = new Adapter({ connectionString })
    return castore(adapter, async () => {
      await adapter._sql.end()
      await database.drop()
    })
  }),
  peer("SqlEventJournal", async () => {
    const database = await newDatabase(url)
    return journal(PgClient.layer({ url: Redacted.make(database.url) }), database.drop)
  })
]

const peer = (name: string, fresh: Side["fresh"]): Side => ({ name, isPeer: true, fresh })

const load = <A>(name: string): A => createRequire(manifest)(name) as A

let stores = 0

const newFile = (file: (name: string) => string): string => file(`peer-${++stores}.db`)

const remove = (path: string): void => {
  for (const suffix of ["", "-wal", "-shm"]) Fs.rmSync(path + suffix, { force: true })
}

/** A database of its own, as each has names of its own. */
const newDatabase = async (url: string) => {
  const name = `peer_${++stores}`
  const execute = async (text: string) => {
    const client = new Client({ connectionString: url })
    await client.connect()
    await client.query(text)
    await client.end()
  }
  await execute(`CREATE DATABASE ${name}`)
  return {
    url: Object.assign(new URL(url), { pathname: `/${name}` }).href,
    drop: () => execute(`DROP DATABASE ${name} WITH (FORCE)`)
  }
}

const byRun = (events: ReadonlyArray<Event.Event>): Map<string, Array<Event.Event>> => {
  const runs = new Map<string, Array<Event.Event>>()
  for (const event of events) {
    const run = runs.get(event.runId)
    if (run === undefined) runs.set(event.runId, [event])
    else run.push(event)
  }
  return runs
}

/** What no field of theirs holds. */
const metadataOf = ({ actor, createdAt, id, modelId, modelProfile, sessionId, turn }: Event.Event) => ({
  id,
  turn,
  actor,
  created_at: createdAt.epochMillis,
  session_id: sessionId,
  model_profile: modelProfile,
  model_id: modelId
})

// of each as much as is used here: it is not there for a compiler to look at

interface Consumer {
  readonly start: () => Promise<void>
  readonly close: () => Promise<void>
}
interface Processor {
  readonly processorId: string
  readonly startFrom: "BEGINNING"
  readonly eachMessage: () => void
}
interface EmmettStore {
  readonly appendToStream: (name: string, events: ReadonlyArray<unknown>) => Promise<unknown>
  readonly readStream: (name: string) => Promise<{ readonly events: ReadonlyArray<unknown> }>
  readonly schema: { readonly migrate: () => Promise<unknown> }
}
interface EmmettSqlite {
  readonly sqliteConnection: (options: object) => { readonly close: () => void }
  readonly getSQLiteEventStore: (options: object) => EmmettStore & {
    readonly consumer: (options: object) => Consumer & {
      readonly processor: (options: Processor & { readonly stopAfter: () => boolean }) => unknown
    }
  }
}
interface EmmettPostgres {
  readonly getPostgreSQLEventStore: (url: string) => EmmettStore & {
    readonly consumer: (options: object) => Consumer & { readonly reactor: (options: Processor) => unknown }
    readonly close: () => Promise<void>
  }
}

/** With a hundred at a time, and a pause of 50 ms, as it is unless told, it reads some thousand a second. */
const pulling = { batchSize: 1000, pullingFrequencyInMs: 1 }

const emmett = (
  store: EmmettStore,
  readAll: (count: () => number) => Promise<number>,
  close: () => Promise<void>
): Open => {
  let written = 0
  let batches = 0
  const append = (stream: string, events: ReadonlyArray<Event.Event>) => {
    written += events.length
    return store.appendToStream(
      stream,
      events.map((event) => ({ type: event.kind, data: event.payload, metadata: metadataOf(event) }))
    )
  }
  return {
    single: async (events) => {
      for (const event of events) await append(event.runId, [event])
    },
    together: (events, fibers) => each(events, fibers, (event) => append(event.runId, [event])),
    // an append is to one stream
    batch: (events) => append(`batch-${++batches}`, events),
    fill: async (events) => {
      for (const [run, own] of byRun(events)) await append(run, own)
    },
    again: "an event has no id that is recorded once",
    readAll: () => readAll(() => written),
    readRun: async (run) => (await store.readStream(run)).events.length,
    latestOffset: "not asked",
    close
  }
}

/** Reads all that there is with a consumer. */
const reading =
  (start: (processorId: string, eachMessage: () => void, count: () => number) => Consumer) =>
  async (count: () => number): Promise<number> => {
    let read = 0
    const consumer = start(`reader-${++stores}`, () => void read++, count)
    await consumer.start()
    await consumer.close()
    return read
  }

interface CastoreAdapter {
  readonly pushEvent: (event: object, options: object) => Promise<unknown>
  readonly groupEvent: (event: object) => object
  readonly pushEventGroup: (options: object, ...events: ReadonlyArray<object>) => Promise<unknown>
  readonly getEvents: (id: string, context: object) => Promise<{ readonly events: ReadonlyArray<unknown> }>
  readonly _sql: { readonly end: () => Promise<void> }
}
interface CastorePostgres {
  readonly PostgresEventStorageAdapter: {
    new(options: object): CastoreAdapter
    createEventTable(options: object): Promise<unknown>
  }
}
interface CastoreStore extends Pick<CastoreAdapter, "groupEvent"> {
  readonly pushEvent: (event: object) => Promise<unknown>
  readonly getEvents: (id: string) => Promise<{ readonly events: ReadonlyArray<unknown> }>
}
interface Castore {
  readonly EventType: new(options: { readonly type: string }) => unknown
  readonly EventStore: {
    new(options: object): CastoreStore
    pushEventGroup(...events: ReadonlyArray<object>): Promise<unknown>
  }
}

const castore = (eventStorageAdapter: CastoreAdapter, close: () => Promise<void>): Open => {
  const { EventStore, EventType } = load<Castore>("@castore/core")
  const store = new EventStore({
    eventStoreId: "RUNS",
    eventTypes: ["agent.spoke", "model.replied"].map((type) => new EventType({ type })),
    reducer: (aggregate: object) => aggregate,
    eventStorageAdapter
  })
  const versions = new Map<string, number>()
  const detailOf = (event: Event.Event) => {
    const version = (versions.get(event.runId) ?? 0) + 1
    versions.set(event.runId, version)
    const { kind: type, payload, runId: aggregateId } = event
    return { aggregateId, version, type, payload, metadata: metadataOf(event) }
  }
  const push = (event: Event.Event) => store.pushEvent(detailOf(event))
  const batch = (events: ReadonlyArray<Event.Event>) =>
    EventStore.pushEventGroup(...events.map((event) => store.groupEvent(detailOf(event))))
  return {
    single: async (events) => {
      for (const event of events) await push(event)
    },
    together: (events, fibers) => each(events, fibers, push),
    batch,
    again: "an event has no id; a version that is recorded is refused",
    readAll: "it reads one aggregate at a time",
    readRun: async (run) => (await store.getEvents(run)).events.length,
    latestOffset: "not asked",
    close
  }
}

const journal = <E>(client: Layer.Layer<SqlClient.SqlClient, E>, close: () => Promise<void>): Open => {
  const runtime = ManagedRuntime.make(Layer.provideMerge(SqlEventJournal.layer(), client))
  const encoder = new TextEncoder()
  const decoder = new TextDecoder()
  const write = (event: Event.Event) =>
    Effect.flatMap(EventJournal.EventJournal, (journal) =>
      journal.write({
        event: event.kind,
        primaryKey: event.runId,
        payload: encoder.encode(JSON.stringify({ payload: event.payload, ...metadataOf(event) })),
        effect: () => Effect.void
      }))
  const together = (events: ReadonlyArray<Event.Event>, concurrency: number) =>
    runtime.runPromise(Effect.forEach(events, write, { discard: true, concurrency }))
  return {
    single: (events) => together(events, 1),
    together,
    batch: (events) =>
      runtime.runPromise(
        Effect.flatMap(
          SqlClient.SqlClient,
          (sql) => sql.withTransaction(Effect.forEach(events, write, { discard: true }))
        )
      ),
    again: "each write makes an id of its own",
    readAll: () =>
      runtime.runPromise(
        Effect.flatMap(EventJournal.EventJournal, ({ entries }) =>
          Effect.map(entries, (all) =>
            all.map(({ payload }) => JSON.parse(decoder.decode(payload)) as unknown).length))
      ),
    readRun: "it reads all entries or none",
    latestOffset: "not asked",
    close: async () => {
      await runtime.dispose()
      await close()
    }
  }
}

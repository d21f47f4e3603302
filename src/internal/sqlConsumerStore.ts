/** What readers of the log keep, in either database. */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { ConsumerStore, DeadLetter, Lease, Position, SavedState, StoredConsumer } from "../ConsumerStore.js"
import type { StoreError } from "../LedgerError.js"
import type { StoredRow } from "../LedgerStore.js"
import type { Names } from "./sqlStore.js"

export interface Options {
  readonly names: Names
  readonly query: (
    method: string,
    text: string,
    params: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<StoredRow>, StoreError>
  readonly placeholder: (number: number) => string
  /** The server's time in milliseconds, as SQL; without one it is the program's. */
  readonly now: string | undefined
  /** How a select takes only rows that nobody has locked. */
  readonly skipLocked: string
}

export const make = (options: Options): Context.Tag.Service<ConsumerStore> => {
  const { names } = options
  const consumers = names.of("consumers")
  const members = names.of("members")
  const deadLetters = names.of("dead_letters")
  const projections = names.of("projections")

  /** A statement with named parameters; `:now` is the time. */
  const statement = (method: string, text: string) => {
    const keys: Array<string> = []
    const compiled = text.replaceAll(/:([a-z]+)/g, (_, key: string) => {
      if (key === "now" && options.now !== undefined) return options.now
      return options.placeholder(keys.push(key))
    })
    return (params: Readonly<Record<string, unknown>>): Effect.Effect<ReadonlyArray<StoredRow>, StoreError> =>
      Effect.flatMap(
        Clock.currentTimeMillis,
        (now) => options.query(method, compiled, keys.map((key) => key === "now" ? now : params[key]))
      )
  }
  const changed = Effect.map((rows: ReadonlyArray<StoredRow>) => rows.length > 0)
  const done = Effect.asVoid

  const held = `name = :name AND part = :partition AND token = :token`
  const takePart = statement(
    "join",
    `INSERT INTO ${members} (name, member, expires_at) VALUES (:name, :member, :now + :millis)
    ON CONFLICT (name, member) DO UPDATE SET expires_at = excluded.expires_at`
  )
  const removeGone = statement("join", `DELETE FROM ${members} WHERE name = :name AND expires_at <= :now`)
  const listMembers = statement("join", `SELECT member FROM ${members} WHERE name = :name ORDER BY member`)
  const leave = statement("leave", `DELETE FROM ${members} WHERE name = :name AND member = :member`)
  const acquire = statement(
    "acquire",
    `UPDATE ${consumers} SET holder = :holder, token = token + 1, expires_at = :now + :millis
    WHERE name = :name AND part IN (
      SELECT part FROM ${consumers} WHERE name = :name AND part = :partition AND parts = :partitions
        AND (holder IS NULL OR holder = :holder OR expires_at <= :now) ${options.skipLocked}
    ) RETURNING token, incarnation, "offset", digest`
  )
  const partition = statement("acquire", `SELECT parts, part FROM ${consumers} WHERE name = :name`)
  const create = statement(
    "acquire",
    `INSERT INTO ${consumers} (name, part, parts, "offset", token, expires_at)
    VALUES (:name, :partition, :partitions, 0, 0, 0) ON CONFLICT (name, part) DO NOTHING`
  )
  const renew = statement("renew", `UPDATE ${consumers} SET expires_at = :now + :millis WHERE ${held} RETURNING 1`)
  const release = statement("release", `UPDATE ${consumers} SET holder = NULL, expires_at = 0 WHERE ${held}`)
  const save = statement(
    "checkpoint",
    `UPDATE ${consumers} SET incarnation = :incarnation, "offset" = :offset, digest = :digest, expires_at = :now + :millis
    WHERE ${held} RETURNING 1`
  )
  const attempts = statement(
    "deadLetters",
    `SELECT attempts FROM ${deadLetters} WHERE name = :name AND "offset" = :offset`
  )
  // the number is given instead of counted up, so that a statement whose answer was lost can be repeated
  const bury = statement(
    "bury",
    `INSERT INTO ${deadLetters} (name, "offset", reason, attempts, failed_at)
    SELECT name, CAST(:offset AS bigint), CAST(:reason AS text), CAST(:attempts AS integer), :now
    FROM ${consumers} WHERE ${held}
    ON CONFLICT (name, "offset") DO UPDATE SET reason = excluded.reason, attempts = excluded.attempts,
      failed_at = excluded.failed_at
    RETURNING 1`
  )
  const letters = statement(
    "deadLetters",
    `SELECT "offset", reason, attempts, failed_at FROM ${deadLetters} WHERE name = :name AND "offset" > :after
    ORDER BY "offset" LIMIT 1000`
  )
  const failAgain = statement(
    "failAgain",
    `UPDATE ${deadLetters} SET reason = :reason, attempts = :attempts, failed_at = :now
    WHERE name = :name AND "offset" = :offset`
  )
  const settle = statement(
    "settle",
    `DELETE FROM ${deadLetters} WHERE name = :name AND "offset" = :offset RETURNING 1`
  )
  const list = statement(
    "consumers",
    `SELECT name, part, parts, CASE WHEN expires_at > :now THEN holder END, incarnation, "offset", digest
    FROM ${consumers} ORDER BY name, part`
  )
  const forget = statement(
    "forget",
    `DELETE FROM ${consumers} WHERE name = :name AND NOT EXISTS (
      SELECT 1 FROM ${consumers} AS other WHERE other.name = :name AND other.expires_at > :now
    ) RETURNING 1`
  )
  const isKnown = statement("forget", `SELECT 1 FROM ${consumers} WHERE name = :name LIMIT 1`)
  const forgetLetters = statement("forget", `DELETE FROM ${deadLetters} WHERE name = :name`)
  const saved = `version, complete, incarnation, "offset", digest`
  const load = statement(
    "load",
    `SELECT ${saved}, state FROM ${projections} WHERE name = :name AND version = :version`
  )
  const versions = statement("versions", `SELECT ${saved} FROM ${projections} WHERE name = :name ORDER BY version`)
  const store = statement(
    "store",
    `INSERT INTO ${projections} AS mine (name, ${saved}, state)
    SELECT CAST(:name AS text), CAST(:version AS integer), CAST(:complete AS integer), CAST(:incarnation AS text),
      CAST(:offset AS bigint), CAST(:digest AS text), CAST(:state AS text)
    WHERE NOT EXISTS (SELECT 1 FROM ${projections} WHERE name = :name AND version > :version AND complete = 1)
    ON CONFLICT (name, version) DO UPDATE SET
      complete = CASE WHEN mine.complete = 1 THEN 1 ELSE excluded.complete END,
      "offset" = excluded."offset", digest = excluded.digest, state = excluded.state
    WHERE mine.incarnation = excluded.incarnation AND mine."offset" <= excluded."offset"`
  )
  const superseded = statement(
    "store",
    `SELECT 1 FROM ${projections} WHERE name = :name AND version > :version AND complete = 1 LIMIT 1`
  )
  const removeOlder = statement("store", `DELETE FROM ${projections} WHERE name = :name AND version < :version`)
  const discard = statement("discard", `DELETE FROM ${projections} WHERE name = :name`)

  /** How often the event will have been given up on. */
  const next = (name: string, offset: number) =>
    Effect.map(attempts({ name, offset }), ([row]) => Number(row?.[0] ?? 0) + 1)

  return {
    join: (name, member, millis) =>
      takePart({ name, member, millis }).pipe(
        Effect.zipRight(removeGone({ name })),
        Effect.zipRight(listMembers({ name })),
        Effect.map((rows) => rows.map((row) => String(row[0])))
      ),
    leave: (name, member) => done(leave({ name, member })),
    acquire: (request) =>
      Effect.gen(function*() {
        const { name, partition: own, partitions } = request
        const take = Effect.map(acquire(request), ([row]) =>
          row === undefined ? undefined : {
            _tag: "Acquired" as const,
            lease: { name, partition: own, token: Number(row[0]) },
            position: row[1] === null ? null : positionOf(row.slice(1))
          })
        const taken = yield* take
        if (taken !== undefined) return taken
        const parts = yield* partition({ name })
        const other = parts.find((row) => Number(row[0]) !== partitions)
        if (other !== undefined) return { _tag: "Divided" as const, partitions: Number(other[0]) }
        if (parts.some((row) => Number(row[1]) === own)) return { _tag: "Held" as const }
        yield* create({ name, partition: own, partitions })
        return (yield* take) ?? { _tag: "Held" as const }
      }),
    renew: (lease, millis) => changed(renew({ ...fence(lease), millis })),
    release: (lease) => done(release(fence(lease))),
    save: (lease, position, millis) => changed(save({ ...fence(lease), ...position, millis })),
    bury: (lease, offset, reason) =>
      Effect.flatMap(
        next(lease.name, offset),
        (attempts) => changed(bury({ ...fence(lease), offset, reason, attempts }))
      ),
    deadLetters: (name, after) => Effect.map(letters({ name, after }), (rows) => rows.map(letterOf)),
    failAgain: (name, offset, reason) =>
      Effect.flatMap(next(name, offset), (attempts) => done(failAgain({ name, offset, reason, attempts }))),
    settle: (name, offset) => changed(settle({ name, offset })),
    consumers: Effect.suspend(() => Effect.map(list({}), (rows) => rows.map(consumerOf))),
    forget: (name) =>
      Effect.gen(function*() {
        const forgotten = (yield* forget({ name })).length > 0
        if (!forgotten && (yield* isKnown({ name })).length > 0) return false
        yield* forgetLetters({ name })
        return true
      }),
    load: (name, version) =>
      Effect.map(
        load({ name, version }),
        ([row]) => row === undefined ? Option.none() : Option.some({ ...savedOf(row), state: String(row[5]) })
      ),
    versions: (name) => Effect.map(versions({ name }), (rows) => rows.map(savedOf)),
    store: (name, { complete, position, state, version }) =>
      Effect.gen(function*() {
        yield* store({ name, version, complete: complete ? 1 : 0, state, ...position })
        if (complete) yield* removeOlder({ name, version })
        return (yield* superseded({ name, version })).length === 0
      }),
    discard: (name) => done(discard({ name }))
  }
}

const fence = ({ name, partition, token }: Lease) => ({ name, partition, token })

const positionOf = ([incarnation, offset, digest]: StoredRow): Position => ({
  incarnation: String(incarnation),
  offset: Number(offset),
  digest: (digest ?? null) as string | null
})

const letterOf = ([offset, reason, attempts, failedAt]: StoredRow): DeadLetter => ({
  offset: Number(offset),
  reason: String(reason),
  attempts: Number(attempts),
  failedAt: Number(failedAt)
})

const consumerOf = ([name, partition, partitions, holder, ...position]: StoredRow): StoredConsumer => ({
  name: String(name),
  partition: Number(partition),
  partitions: Number(partitions),
  position: (position[0] ?? null) === null ? null : positionOf(position),
  holder: (holder ?? null) as string | null
})

const savedOf = (row: StoredRow): Omit<SavedState, "state"> => ({
  version: Number(row[0]),
  complete: Number(row[1]) === 1,
  position: positionOf(row.slice(2))
})

/** What readers of the log keep, in memory. */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { ConsumerStore, DeadLetter, Lease, Position, SavedState } from "../ConsumerStore.js"

interface Partition {
  readonly partitions: number
  position: Position | null
  token: number
  holder: string | null
  expiresAt: number
  /** By the transaction that saved the position. */
  locked: boolean
}

interface State {
  readonly consumers: Map<string, Map<number, Partition>>
  readonly members: Map<string, Map<string, number>>
  readonly deadLetters: Map<string, Map<number, DeadLetter>>
  readonly projections: Map<string, Map<number, SavedState>>
}

/** `atEnd` runs at the end of the fiber's transaction, or at once where there is none. */
export const make = (
  atEnd: (settle: (committed: boolean) => void) => Effect.Effect<void>
): Context.Tag.Service<ConsumerStore> => {
  const state: State = { consumers: new Map(), members: new Map(), deadLetters: new Map(), projections: new Map() }

  /** Changes a dead letter; false when there is nothing to change. */
  const changeLetter = (name: string, offset: number, body: () => boolean): Effect.Effect<boolean> =>
    Effect.suspend(() => {
      const letters = of(state.deadLetters, name)
      const before = letters.get(offset)
      return body()
        ? Effect.as(
          atEnd((committed) => {
            if (committed) return
            if (before === undefined) letters.delete(offset)
            else letters.set(offset, before)
          }),
          true
        )
        : Effect.succeed(false)
    })
  const timed = <A>(body: (now: number) => A): Effect.Effect<A> => Effect.map(Clock.currentTimeMillis, body)
  const held = ({ name, partition, token }: Lease): Partition | undefined => {
    const found = state.consumers.get(name)?.get(partition)
    return found?.token === token ? found : undefined
  }
  const lettersOf = (name: string): ReadonlyArray<DeadLetter> =>
    Array.from(state.deadLetters.get(name)?.values() ?? []).sort((self, that) => self.offset - that.offset)
  const fail = (name: string, offset: number, reason: string, failedAt: number): void => {
    const letters = of(state.deadLetters, name)
    letters.set(offset, { offset, reason, attempts: (letters.get(offset)?.attempts ?? 0) + 1, failedAt })
  }
  const versionsOf = (name: string): ReadonlyArray<SavedState> =>
    Array.from(state.projections.get(name)?.values() ?? []).sort((self, that) => self.version - that.version)

  return {
    join: (name, member, millis) =>
      timed((now) => {
        const members = of(state.members, name)
        for (const [other, expiresAt] of members) if (expiresAt <= now) members.delete(other)
        return Array.from(members.set(member, now + millis).keys()).sort()
      }),
    leave: (name, member) => Effect.sync(() => void state.members.get(name)?.delete(member)),
    acquire: ({ holder, millis, name, partition, partitions }) =>
      timed((now) => {
        const all = of(state.consumers, name)
        const other = Array.from(all.values()).find((one) => one.partitions !== partitions)
        if (other !== undefined) return { _tag: "Divided", partitions: other.partitions }
        const own = all.get(partition) ??
          { partitions, position: null, token: 0, holder: null, expiresAt: 0, locked: false }
        all.set(partition, own)
        if (own.locked || (own.holder !== null && own.holder !== holder && own.expiresAt > now)) return { _tag: "Held" }
        own.holder = holder
        own.token++
        own.expiresAt = now + millis
        return { _tag: "Acquired", lease: { name, partition, token: own.token }, position: own.position }
      }),
    renew: (lease, millis) =>
      timed((now) => {
        const own = held(lease)
        if (own !== undefined) own.expiresAt = now + millis
        return own !== undefined
      }),
    release: (lease) =>
      Effect.sync(() => {
        const own = held(lease)
        if (own === undefined) return
        own.holder = null
        own.expiresAt = 0
      }),
    save: (lease, position, millis) =>
      Effect.flatten(timed((now) => {
        const own = held(lease)
        if (own === undefined) return Effect.succeed(false)
        const before = own.position
        own.position = position
        own.expiresAt = now + millis
        own.locked = true
        return Effect.as(
          atEnd((committed) => {
            own.locked = false
            if (!committed) own.position = before
          }),
          true
        )
      })),
    bury: (lease, offset, reason) =>
      Effect.flatten(timed((now) =>
        changeLetter(lease.name, offset, () => {
          if (held(lease) === undefined) return false
          fail(lease.name, offset, reason, now)
          return true
        })
      )),
    deadLetters: (name, after) =>
      Effect.sync(() => lettersOf(name).filter((letter) => letter.offset > after).slice(0, 1000)),
    failAgain: (name, offset, reason) =>
      timed((now) => {
        if (state.deadLetters.get(name)?.has(offset) === true) fail(name, offset, reason, now)
      }),
    settle: (name, offset) => changeLetter(name, offset, () => state.deadLetters.get(name)?.delete(offset) ?? false),
    consumers: timed((now) =>
      Array.from(state.consumers).sort(([self], [that]) => self < that ? -1 : 1).flatMap(([name, all]) =>
        Array.from(all).sort(([self], [that]) => self - that).map(([partition, own]) => ({
          name,
          partition,
          partitions: own.partitions,
          position: own.position,
          holder: own.expiresAt > now ? own.holder : null
        }))
      )
    ),
    forget: (name) =>
      timed((now) => {
        if (Array.from(state.consumers.get(name)?.values() ?? []).some((own) => own.expiresAt > now)) return false
        state.consumers.delete(name)
        state.deadLetters.delete(name)
        return true
      }),
    load: (name, version) => Effect.sync(() => Option.fromNullable(state.projections.get(name)?.get(version))),
    versions: (name) =>
      Effect.sync(() => versionsOf(name).map(({ complete, position, version }) => ({ version, complete, position }))),
    store: (name, saved) =>
      Effect.sync(() => {
        const versions = of(state.projections, name)
        if (versionsOf(name).some((one) => one.version > saved.version && one.complete)) return false
        const known = versions.get(saved.version)
        if (
          known === undefined ||
          (known.position.incarnation === saved.position.incarnation && known.position.offset <= saved.position.offset)
        ) {
          versions.set(saved.version, { ...saved, complete: saved.complete || known?.complete === true })
        }
        if (saved.complete) {
          for (const version of Array.from(versions.keys())) if (version < saved.version) versions.delete(version)
        }
        return true
      }),
    discard: (name) => Effect.sync(() => void state.projections.delete(name))
  }
}

const of = <K, V>(maps: Map<string, Map<K, V>>, name: string): Map<K, V> => {
  const known = maps.get(name)
  if (known !== undefined) return known
  const made = new Map<K, V>()
  maps.set(name, made)
  return made
}

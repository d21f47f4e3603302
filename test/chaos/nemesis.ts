/** What is done to the processes, the server and the connections between them. */
import { setTimeout as sleep } from "node:timers/promises"
import type { Loss, Proxy } from "../support/proxy.js"
import { someOf, stopFor, terminateBackends, until, type World } from "./harness.js"
import { now } from "./history.js"

/** All of it, for so long: each once, in an order of the seed's, and then at random. */
export const chaos = (seconds: number) => async (world: World): Promise<void> => {
  const deadline = Date.now() + seconds * 1000
  let told = Date.now()
  const faults = world.server !== undefined ? onPostgres : world.disk !== undefined ? onSmallDisk : onSqlite
  const sum = faults.reduce((sum, [weight]) => sum + weight, 0)
  const first = faults.map((fault) => [world.chance(), fault] as const).toSorted(([a], [b]) => a - b)
  while (Date.now() < deadline) {
    await sleep(100 + world.chance() * 700)
    let place = world.chance() * sum
    const fault = first.shift()?.[1] ?? faults.find(([weight]) => (place -= weight) < 0) ?? faults[0]!
    await fault[1](world)
    world.acknowledged()
    if (Date.now() - told > 10_000) {
      told = Date.now()
      const left = Math.max(0, Math.round((deadline - told) / 1000))
      world.settings.progress?.(`${world.acknowledged()} events acknowledged, ${left} s to go`)
    }
  }
}

/** A writer is killed at some moment after the first write of each of its lives. */
export const killWriters = (cycles: number) => async (world: World): Promise<void> => {
  let left = cycles
  await Promise.all(world.writers.map(async (writer) => {
    while (left > 0) {
      left--
      await until("a writer writes", 60_000, writer.hasBegun)
      await sleep(world.chance() * 60)
      await writer.kill()
      world.count("writers killed")
      await writer.restart()
      if (left % 100 === 0) world.settings.progress?.(`${left} cycles to go`)
    }
  }))
  await until("the writers write", 60_000, () => world.writers.every((writer) => writer.hasBegun()))
}

/** The server is killed at some moment after an event was acknowledged. */
export const killServer = (cycles: number) => async (world: World): Promise<void> => {
  for (let left = cycles; left > 0; left--) {
    await sleep(world.chance() * 200)
    await restartServer(world)
    const before = world.acknowledged()
    await until("something is acknowledged again", 60_000, () => world.acknowledged() > before)
    if (left % 20 === 0) world.settings.progress?.(`${left} cycles to go`)
  }
}

/** The acknowledgement of an append is lost, so often; now and then those of the store's own repetitions too. */
export const loseAcknowledgements = (times: number) => async (world: World): Promise<void> => {
  const proxy = world.proxy!
  while (proxy.lost().appends < times) {
    const before = world.acknowledged()
    const lost = allLost(proxy)
    // every third time the connection is cut before anybody knows
    const loss = world.chance() < 0.67 ? "answered" as const : "sent" as const
    proxy.loseAnswers(world.chance() < 0.02 ? 8 : 1, loss)
    await until("an acknowledgement is lost", 60_000, () => allLost(proxy) > lost)
    await until("something is acknowledged again", 60_000, () => world.acknowledged() > before)
  }
  proxy.loseAnswers(0, "answered")
}

const allLost = (proxy: Proxy): number => Object.values(proxy.lost()).reduce((sum, count) => sum + count, 0)

type Fault = readonly [weight: number, (world: World) => void | Promise<void>]

const anyOf = <A>(world: World, members: ReadonlyArray<A>): A => members[Math.floor(world.chance() * members.length)]!

const killWriter = async (world: World): Promise<void> => {
  const writer = anyOf(world, world.writers)
  await writer.kill()
  world.count("writers killed")
  await writer.restart()
}

const killConsumers = async (world: World): Promise<void> => {
  if (world.consumers.length === 0) return
  // mostly those whose death is noticed
  const holders = world.chance() < 0.7 ? await world.holders() : []
  const chosen = holders.length > 0 ? holders : [anyOf(world, world.consumers)]
  await Promise.all(chosen.map((consumer) => consumer.kill()))
  world.count("consumers killed", chosen.length)
  await Promise.all(chosen.map((consumer) => consumer.restart()))
}

const stopOne = (world: World): void => {
  const members = [...world.writers, ...world.subscribers, ...world.consumers]
  stopFor(world, anyOf(world, members), Math.round(50 + world.chance() * 950))
}

const restartServer = async (world: World): Promise<void> => {
  const begun = now()
  await world.server!.kill()
  world.count("servers killed")
  await sleep(world.chance() * 300)
  await world.server!.start()
  world.disturbed(begun, now())
}

/** Some answers in a row, until one of an append is among them. */
const loseAnswers = async (world: World, most: number, loss: Loss): Promise<void> => {
  const proxy = world.proxy!
  const kind = loss === "sent" ? "unknown" : "appends"
  for (const before = proxy.lost()[kind]; proxy.lost()[kind] === before;) {
    const lost = allLost(proxy)
    proxy.loseAnswers(1 + Math.floor(world.chance() * most), loss)
    await until("an answer is lost", 60_000, () => allLost(proxy) > lost)
  }
}

const onSqlite: ReadonlyArray<Fault> = [
  [4, killWriter],
  [3, killConsumers],
  [4, stopOne]
]

const onSmallDisk: ReadonlyArray<Fault> = [
  ...onSqlite,
  [2, async (world) => {
    const begun = now()
    const before = world.withoutRoom()
    world.disk!.fill()
    await sleep(100 + world.chance() * 400)
    // what the write-ahead log has room for goes on for a while
    await until("somebody finds no room", 60_000, () => world.withoutRoom() > before)
    world.disk!.empty()
    world.count("disk filled")
    world.disturbed(begun, now())
  }]
]

const onPostgres: ReadonlyArray<Fault> = [
  [4, killWriter],
  [3, killConsumers],
  [4, stopOne],
  [4, async (world) => {
    world.count("backends terminated", await terminateBackends(world.server!.url, world.chance, 0.3))
  }],
  [1, restartServer],
  [4, (world) => {
    const open = world.proxy!.connections.filter(({ closed }) => !closed)
    for (const connection of someOf(open, world.chance, 0.2)) {
      connection.cut()
      world.count("connections cut")
    }
  }],
  [2, (world) => {
    const open = world.proxy!.connections.filter(({ closed }) => !closed)
    for (const connection of someOf(open, world.chance, 0.1)) {
      connection.silent = true
      world.count("connections silent")
      // what ends is noticed; what does not is the next fault
      setTimeout(connection.cut, 500 + world.chance() * 2500).unref()
    }
  }],
  [3, (world) => loseAnswers(world, 9, "answered")],
  [2, (world) => loseAnswers(world, 3, "sent")]
]

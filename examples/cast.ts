/**
 * The cast: who acts next, and how, as a pure function of what is recorded. There is no model and no network; the run's
 * name is the seed, so a run has the same text however often it is stopped and continued.
 */
import { createHash } from "node:crypto"
import type { Event } from "../src/index.js"

/** What the conductor is to record next. `step` is the place in the turn, from 0. */
export interface Step {
  readonly turn: number
  readonly step: number
  readonly kind: (typeof Event.coreKinds)[number]
  readonly actor: Actor
  readonly payload: Event.JsonObject & { readonly text: string }
}

export type Actor = "conductor" | "ada" | "bo" | "cy" | "sky"

export const turns = 4

/** The step that follows the history of a run; `undefined` when the run is finished. */
export const nextStep = (runId: string, history: ReadonlyArray<Event.Event>): Step | undefined => {
  if (history.length === 0) return { turn: 0, step: 0, ...opening(runId) }
  const played = history.length - 1
  const turn = Math.floor(played / beats.length) + 1
  const step = played % beats.length
  if (turn <= turns) return { turn, step, ...beats[step]!(sceneOf(runId, turn, history)) }
  return played === turns * beats.length ? { turn: turns, step: beats.length, ...ending(history) } : undefined
}

type Line = Omit<Step, "turn" | "step">
interface Reading {
  readonly target: string
  readonly clouds: number
}
interface Scene {
  readonly turn: number
  readonly target: string
  /** What the sky said in this turn, once it was asked. */
  readonly clouds: number
  /** The clearest target of the earlier turns. */
  readonly leader: Reading | undefined
  /** One of the lines, another one in each turn. */
  readonly pick: (lines: ReadonlyArray<string>) => string
  readonly measure: () => number
}

const opening = (runId: string): Line => ({
  kind: "run.started",
  actor: "conductor",
  payload: {
    text: `One telescope, one hour of darkness, four wishes: ${targetsOf(runId).join(", ")}.`,
    scenario: "observatory",
    cast: ["ada", "bo", "cy"],
    targets: targetsOf(runId)
  }
})

/** A turn, beat by beat: Ada wishes, Bo asks the sky, Cy keeps the score. */
const beats: ReadonlyArray<(scene: Scene) => Line> = [
  ({ target }) => ({ kind: "turn.started", actor: "conductor", payload: { text: target, target } }),
  ({ pick }) => ({ kind: "agent.thought", actor: "ada", payload: { text: pick(thoughts) } }),
  ({ pick, target }) => ({
    kind: "agent.spoke",
    actor: "ada",
    payload: { text: sentence(pick(wishes).replace("*", target)) }
  }),
  ({ target }) => ({
    kind: "tool.called",
    actor: "bo",
    payload: { text: `clouds(${target})`, tool: "clouds", arguments: { target } }
  }),
  ({ measure, target }) => {
    const clouds = measure()
    return {
      kind: "tool.returned",
      actor: "sky",
      payload: { text: `${target}: ${clouds} %`, tool: "clouds", target, clouds }
    }
  },
  ({ clouds, pick }) => ({
    kind: "agent.spoke",
    actor: "bo",
    payload: { text: `${clouds} % cloud. ${pick(clouds < 30 ? clear : clouds < 65 ? veiled : overcast)}` }
  }),
  ({ clouds, leader, pick, target }) => ({
    kind: "agent.spoke",
    actor: "cy",
    payload: {
      text: leader === undefined
        ? `I write ${target} at the top of the page.`
        : clouds < leader.clouds
        ? sentence(`${target} takes the lead from ${leader.target}. ${pick(pleased)}`)
        : sentence(`${leader.target} stays ahead with ${leader.clouds} %. ${pick(patient)}`)
    }
  }),
  ({ clouds, leader, target, turn }) => {
    const ahead = leader === undefined || clouds < leader.clouds ? target : leader.target
    return {
      kind: "turn.finished",
      actor: "conductor",
      payload: { text: `after turn ${turn} ${ahead} leads`, leader: ahead }
    }
  }
]

const ending = (history: ReadonlyArray<Event.Event>): Line => {
  const { clouds, target } = clearest(readingsOf(history))!
  return {
    kind: "run.finished",
    actor: "conductor",
    payload: {
      text: `We look at ${target}, through ${clouds} % cloud.`,
      target,
      clouds,
      winner: target,
      reason: "every wish was heard"
    }
  }
}

const sceneOf = (runId: string, turn: number, history: ReadonlyArray<Event.Event>): Scene => {
  const readings = readingsOf(history)
  return {
    turn,
    target: targetsOf(runId)[turn - 1]!,
    clouds: readings[turn - 1]?.clouds ?? 100,
    leader: clearest(readings.slice(0, turn - 1)),
    pick: (lines) => shuffle(lines, runId)[turn - 1]!,
    measure: () => 3 + Math.floor(randomOf(runId, "sky", turn) * 95)
  }
}

const readingsOf = (history: ReadonlyArray<Event.Event>): ReadonlyArray<Reading> =>
  history.filter((event) => event.kind === "tool.returned")
    .map(({ payload }) => ({ target: String(payload["target"]), clouds: Number(payload["clouds"]) }))

const clearest = (readings: ReadonlyArray<Reading>): Reading | undefined =>
  readings.reduce<Reading | undefined>(
    (best, reading) => best && best.clouds <= reading.clouds ? best : reading,
    undefined
  )

const sentence = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)

const targetsOf = (runId: string): ReadonlyArray<string> => shuffle(sights, runId).slice(0, turns)

const shuffle = (lines: ReadonlyArray<string>, seed: string): ReadonlyArray<string> =>
  [...lines].sort((a, b) => randomOf(seed, a) - randomOf(seed, b))

/** A number from 0 up to 1 that depends on nothing but the parts. */
const randomOf = (...parts: ReadonlyArray<string | number>): number =>
  createHash("sha256").update(JSON.stringify(parts)).digest().readUInt32BE() / 2 ** 32

const sights = ["Saturn", "the Crab Nebula", "Andromeda", "Mizar", "the Ring Nebula", "Albireo", "the Moon", "Vega"]
const thoughts = [
  "They will say it is too low. It is not too low.",
  "If the wind holds for one hour, this is the one.",
  "I have waited since March for this.",
  "Nobody ever regretted asking.",
  "The eyepiece is warm already. A good sign."
]
const wishes = [
  "I should like to see *. Humour me.",
  "Let it be *: it will not stand so well again this year.",
  "My wish is *, and I brought biscuits.",
  "* first, arguments later.",
  "Has anybody here ever looked at * properly?"
]
const clear = [
  "You could read by it.",
  "Open the dome.",
  "I have nothing to complain about, which worries me.",
  "Not a shred between us and it."
]
const veiled = [
  "A veil, no more.",
  "It comes and goes.",
  "With patience and a filter.",
  "I have seen worse, and photographed it."
]
const overcast = [
  "You would photograph wool.",
  "I can see my own breath and little else.",
  "Bring an umbrella.",
  "Ask me again in spring."
]
const pleased = ["Biscuits for everybody.", "I turn the page.", "Noted in ink.", "I had hoped so."]
const patient = ["I keep the pencil ready.", "Next wish, please.", "The page is long.", "It was worth asking."]

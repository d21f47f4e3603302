/** The transcript: a run as people read it, in colour where a terminal shows it. */
import { Config, type ConfigError, Console, Context, Effect, Layer } from "effect"
import type { Event } from "../src/index.js"

/** Where the lines of a run are printed. */
export class Transcript extends Context.Tag("examples/Transcript")<Transcript, {
  /** Prints an event with its offset, and leaves a moment to read it. */
  readonly line: (event: Event.RecordedEvent) => Effect.Effect<void>
  /** Prints something that is not part of the run. */
  readonly note: (text: string) => Effect.Effect<void>
}>() {}

/**
 * Prints to the console, without colours when `NO_COLOR` is set or standard output is no terminal. `AGENTS_PACE` is the
 * pause after a line in milliseconds, 80 unless told.
 */
export const layer: Layer.Layer<Transcript, ConfigError.ConfigError> = Layer.effect(
  Transcript,
  Effect.gen(function*() {
    const noColor = yield* Config.string("NO_COLOR").pipe(Config.withDefault(""))
    const pace = yield* Config.integer("AGENTS_PACE").pipe(Config.withDefault(80))
    const pause = pace > 0 ? Effect.sleep(pace) : Effect.void
    const paint = noColor === "" && process.stdout.isTTY
      ? (style: number, text: string) => `\u001b[${style}m${text}\u001b[0m`
      : (_: number, text: string) => text
    return {
      line: (event) => {
        const offset = paint(dim, `#${event.offset}`.padStart(6))
        const actor = paint(colours[event.actor] ?? plain, event.actor.padEnd(9))
        return Console.log(`${offset}  ${actor}  ${paint(styles[event.kind] ?? plain, textOf(event))}`).pipe(
          Effect.zipRight(pause)
        )
      },
      note: (text) => Console.log(paint(dim, text))
    }
  })
)

const textOf = ({ kind, payload, turn }: Event.Event): string => {
  const text = typeof payload["text"] === "string" ? payload["text"] : `${kind} ${JSON.stringify(payload)}`
  switch (kind) {
    case "turn.started":
      return `turn ${turn}: ${text}`
    case "agent.thought":
      return `(${text})`
    case "tool.called":
      return `→ ${text}`
    case "tool.returned":
      return `← ${text}`
    default:
      return text
  }
}

const plain = 0
const bold = 1
const dim = 2
const colours: Readonly<Record<string, number>> = { conductor: bold, ada: 35, bo: 36, cy: 33, sky: 34 }
const styles: Readonly<Record<string, number>> = {
  "run.started": bold,
  "run.finished": bold,
  "turn.started": bold,
  "turn.finished": dim,
  "agent.thought": dim,
  "tool.called": dim,
  "tool.returned": dim
}

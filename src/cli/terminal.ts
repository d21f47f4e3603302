/** What people see: text that is safe to print, tables, colours, progress; and where it goes. */
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/** Whoever read standard output has gone, as `head` does when it has enough. */
export class ClosedPipe extends Data.TaggedError("ClosedPipe") {}

/** Standard output cannot be written. */
export class OutputFailed extends Data.TaggedError("OutputFailed")<{ readonly message: string }> {}

/** Standard input cannot be read. */
export class InputFailed extends Data.TaggedError("InputFailed")<{ readonly message: string }> {}

/** Writes text, and waits until it is on its way. */
export const write = (text: string): Effect.Effect<void, ClosedPipe | OutputFailed> =>
  text === "" ? Effect.void : Effect.async((resume) => {
    clearBar()
    process.stdout.write(text, (error) => {
      if (error === null || error === undefined) return resume(Effect.void)
      const code = "code" in error ? String(error.code) : ""
      resume(Effect.fail(
        code === "EPIPE" || code === "ERR_STREAM_DESTROYED"
          ? new ClosedPipe()
          : new OutputFailed({ message: `standard output: ${error.message}` })
      ))
    })
  })

/** Writes lines to standard output. */
export const print = (...lines: ReadonlyArray<string>): Effect.Effect<void, ClosedPipe | OutputFailed> =>
  write(lines.map((line) => `${line}\n`).join(""))

/** Writes a JSON value as one line. */
export const printJson = (value: unknown): Effect.Effect<void, ClosedPipe | OutputFailed> =>
  print(safeJson(JSON.stringify(value)))

/** Says something to the person, beside the output. */
export const say = (text: string): Effect.Effect<void> =>
  Effect.sync(() => {
    clearBar()
    process.stderr.write(`${safe(text)}\n`)
  })

/** The bytes of standard input. */
export const stdin: Stream.Stream<Uint8Array, InputFailed> = Stream.suspend(() => {
  const iterator: AsyncIterator<Uint8Array> = process.stdin[Symbol.asyncIterator]()
  return Stream.repeatEffectOption(Effect.flatMap(
    Effect.tryPromise({
      try: () => iterator.next(),
      catch: (error) => new InputFailed({ message: `standard input: ${String(error)}` })
    }).pipe(Effect.asSomeError),
    (next) => next.done === true ? Effect.fail(none) : Effect.succeed(next.value)
  )).pipe(Stream.ensuring(Effect.sync(() => process.stdin.destroy())))
})

/** On one line, without what a terminal would obey: control characters, and marks that turn the order of text round. */
export const safe = (text: string): string => text.replace(/[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu, " ")

/** JSON that a terminal can show: the same value, with what JSON leaves unescaped and a terminal would obey as escapes. */
export const safeJson = (json: string): string =>
  json.replace(
    /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
  )

/** Without the password, where the text has a URL with one. */
export const withoutPasswords = (text: string): string =>
  text.replace(/(\b[a-z][a-z0-9+.-]*:\/*[^\s/:@'"]*):[^\s'"]*@/gi, "$1:***@")
    .replace(/([?&][a-z]*password=)[^&\s'"]*/gi, "$1***")

/** Whether people look at standard output, and want colours. */
export const isColoured = (): boolean => (process.env["NO_COLOR"] ?? "") === "" && process.stdout.isTTY === true

const style = (code: number) => (text: string): string => isColoured() ? `\u001b[${code}m${text}\u001b[0m` : text
export const bold = style(1)
export const dim = style(2)
export const red = style(31)
export const green = style(32)
export const cyan = style(36)

/** `2026-11-23 23:20:01Z`. */
export const time = (millis: number): string => `${new Date(millis).toISOString().slice(0, 19).replace("T", " ")}Z`

/** `1,234`. */
export const count = (value: number): string => value.toLocaleString("en-US")

/** `1 event`, `2 events`. */
export const plural = (value: number, noun: string): string => `${count(value)} ${noun}${value === 1 ? "" : "s"}`

/** `12.3 MiB`. */
export const bytes = (value: number): string => {
  const exponent = Math.min(4, Math.max(0, Math.floor(Math.log2(Math.max(1, value)) / 10)))
  return exponent === 0
    ? plural(value, "byte")
    : `${(value / 1024 ** exponent).toFixed(1)} ${["", "KiB", "MiB", "GiB", "TiB"][exponent]}`
}

/** A column of a table: its title, and whether it holds numbers. */
export interface Column {
  readonly title: string
  readonly number?: boolean
}

/** Aligned lines. On a terminal no cell is wider than 40 columns. */
export const table = (
  columns: ReadonlyArray<Column>,
  rows: ReadonlyArray<ReadonlyArray<string>>
): ReadonlyArray<string> => {
  const cells = rows.map((row) => row.map((cell) => cut(safe(cell), process.stdout.isTTY ? 40 : Infinity)))
  const widths = columns.map(({ title }, index) =>
    Math.max(width(title), ...cells.map((row) => width(row[index] ?? "")))
  )
  const line = (row: ReadonlyArray<string>) =>
    row.map((cell, index) => {
      const space = " ".repeat(Math.max(0, widths[index]! - width(cell)))
      return columns[index]?.number === true ? space + cell : cell + space
    }).join("  ").trimEnd()
  return [bold(line(columns.map(({ title }) => title))), ...cells.map(line)]
}

/** Pairs, aligned. */
export const pairs = (entries: ReadonlyArray<readonly [string, string]>): ReadonlyArray<string> => {
  const widest = Math.max(...entries.map(([key]) => key.length))
  return entries.map(([key, value]) => `${dim(key.padEnd(widest))}  ${safe(value)}`)
}

/** Fills up to a width on the screen. */
export const pad = (text: string, columns: number): string => text + " ".repeat(Math.max(0, columns - width(text)))

/** How far long work is: `fraction` of the whole, where that is known. */
export interface Step {
  readonly done: number
  readonly total?: number | undefined
  readonly fraction?: number | undefined
}

/**
 * Tells of long work on standard error: a bar with the rate and the time left on a terminal, otherwise a line every five
 * seconds.
 */
export const progress = (
  label: string,
  noun: string
): Effect.Effect<(step: Step) => Effect.Effect<void>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const live = process.stderr.isTTY === true
    const began = yield* Clock.currentTimeMillis
    let told = began
    if (live) yield* Effect.addFinalizer(() => Effect.sync(clearBar))
    return (step) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        if (now - told < (live ? 100 : 5000)) return
        told = now
        const text = describe(label, noun, step, (now - began) / 1000)
        barShown = live
        process.stderr.write(live ? `${clearLine}${cut(text, (process.stderr.columns ?? 80) - 1)}` : `${text}\n`)
      })
  })

const describe = (label: string, noun: string, { done, fraction, total }: Step, seconds: number): string => {
  const part = fraction ?? (total === undefined || total === 0 ? undefined : done / total)
  const rate = `${count(Math.round(done / Math.max(0.001, seconds)))}/s`
  if (part === undefined || part <= 0) return `${label}  ${plural(done, noun)}  ${rate}`
  const whole = Math.min(1, part)
  const filled = Math.round(whole * barWidth)
  const bar = `[${"#".repeat(filled)}${"-".repeat(barWidth - filled)}]`
  const of = total === undefined ? plural(done, noun) : `${count(done)} of ${plural(total, noun)}`
  return `${label}  ${bar} ${Math.floor(whole * 100)} %  ${of}  ${rate}  ${duration(seconds / whole - seconds)} left`
}

const duration = (seconds: number): string => {
  const whole = Math.ceil(seconds)
  return whole < 60
    ? `${whole} s`
    : whole < 3600
    ? `${Math.floor(whole / 60)} min ${whole % 60} s`
    : `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`
}

// the bar and the output are on one screen
let barShown = false
const clearBar = (): void => {
  if (!barShown) return
  barShown = false
  process.stderr.write(clearLine)
}

/** On a terminal, no longer than its line. */
export const fit = (text: string): string => process.stdout.isTTY ? cut(text, process.stdout.columns ?? 80) : text

const barWidth = 24
const clearLine = "\r\u001b[K"
const none = Option.none<never>()

const width = (text: string): number => {
  let columns = 0
  for (const character of text) {
    columns += /\p{M}|[\u200b-\u200d]/u.test(character)
      ? 0
      : wide.test(character)
      ? 2
      : 1
  }
  return columns
}

// what terminals show two columns wide
const wide =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}\u3000-\u303f\uff01-\uff60]/u

const cut = (text: string, columns: number): string => {
  if (width(text) <= columns) return text
  let shown = ""
  let left = columns - 1
  for (const character of text) {
    left -= width(character)
    if (left < 0) break
    shown += character
  }
  return `${shown}…`
}

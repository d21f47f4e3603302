/** The results as a page. */
import type { Spread } from "./figures.js"
import type { Memory, Question } from "./large.js"
import type { Latency } from "./latency.js"
import type { Machine } from "./machine.js"
import type { Rate } from "./workloads.js"

export interface Results {
  readonly date: string
  readonly command: string
  readonly rounds: number
  readonly scale: number
  readonly machine: Machine
  readonly rates: ReadonlyArray<Rate>
  readonly memory: ReadonlyArray<Memory>
  readonly questions: ReadonlyArray<Question>
  readonly latencies: ReadonlyArray<Latency>
}

export const markdown = (results: Results): string => {
  const { command, date, machine, rounds, scale } = results
  return [
    "# Results",
    `\`${command}\`, ${date} UTC: ${rounds} rounds${
      scale === 1 ? "" : `, ${scale} of the sizes`
    }. What is said is the median (least–greatest).`,
    table(["", ""], [
      ["machine", `${machine.processor}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}`],
      ["versions", Object.entries(machine.versions).map(([name, version]) => `${name} ${version}`).join(", ")],
      ...Object.entries(machine.durability),
      ["4 KiB written and flushed", `${spread(machine.flush, 3)} ms`]
    ]),
    ...section("Events a second", results.rates, ratesOf),
    ...section("Peak memory while all is read, MiB", results.memory, memoryOf),
    ...section("Small and large ledgers, milliseconds", results.questions, questionsOf),
    ...section("W8 from an append to a subscriber, milliseconds", results.latencies, latenciesOf)
  ].join("\n\n") + "\n"
}

export const rateLine = ({ backend, ratio, sides, without, workload }: Rate): string =>
  `${backend}, ${workload}: ${
    [
      ...Object.entries(sides).map(([name, rate]) => `${name} ${spread(rate, 0)}`),
      ...Object.entries(without).map(([name, reason]) => `${name} ${reason}`)
    ].join(", ")
  }` +
  (ratio === undefined ? "" : `; ratio ${spread(ratio, 2)}`)

const section = <A>(
  title: string,
  rows: ReadonlyArray<A>,
  text: (rows: ReadonlyArray<A>) => string
): ReadonlyArray<string> => rows.length === 0 ? [] : [`## ${title}`, text(rows)]

const ratesOf = (rates: ReadonlyArray<Rate>): string => {
  const names = [...new Set(rates.flatMap(({ sides }) => Object.keys(sides)))]
  const reasons = rates.flatMap(({ backend, without, workload }) =>
    Object.entries(without).map(([name, reason]) => [name, backend, workload, reason])
  )
  return [
    table(
      ["backend", "workload", ...names, "ours / driver"],
      rates.map(({ backend, ratio, sides, workload }) => [
        backend,
        workload,
        ...names.map((name) => spread(sides[name], 0)),
        spread(ratio, 2)
      ])
    ),
    ...reasons.length === 0 ? [] : [table(["without a figure", "backend", "workload", "because"], reasons)]
  ].join("\n\n")
}

const memoryOf = (memory: ReadonlyArray<Memory>): string =>
  table(
    ["backend", "events", "ours", "driver", "difference"],
    memory.map(({ backend, driver, events, ours }) => [
      backend,
      number(events, 0),
      spread(ours, 0),
      spread(driver, 0),
      number(ours.median - driver.median, 0)
    ])
  )

const questionsOf = (questions: ReadonlyArray<Question>): string => {
  const sizes = Object.keys(questions[0]!.sizes).map(Number).sort((a, b) => a - b)
  return table(
    ["backend", "question", ...sizes.map((events) => `${number(events, 0)} events`), "large / small"],
    questions.map(({ backend, question, sizes: times }) => [
      backend,
      question,
      ...sizes.map((events) => spread(times[events], 2)),
      number(times[sizes.at(-1)!]!.median / times[sizes[0]!]!.median, 2)
    ])
  )
}

const latenciesOf = (latencies: ReadonlyArray<Latency>): string =>
  table(
    ["subscriber", "from the call, p50", "p99", "from its acknowledgement, p50", "p99"],
    latencies.map(({ fromAcknowledgement, fromCall, subscriber }) => [
      subscriber,
      ...[fromCall.p50, fromCall.p99, fromAcknowledgement.p50, fromAcknowledgement.p99].map((value) => number(value, 2))
    ])
  )

const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = head.map((name, column) => Math.max(3, name.length, ...rows.map((row) => row[column]!.length)))
  const line = (cells: ReadonlyArray<string>) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column]!)).join(" | ")} |`
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n")
}

const spread = (value: Spread | undefined, digits: number): string =>
  value === undefined
    ? ""
    : `${number(value.median, digits)} (${number(value.min, digits)}–${number(value.max, digits)})`

const number = (value: number, digits: number): string =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })

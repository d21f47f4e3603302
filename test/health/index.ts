/**
 * `npm run health -- --seconds 600 --backend sqlite|postgres|both`, with `--json`: mixed load on a ledger, while its memory,
 * files, connections, WAL and latencies are watched, for a part of the time behind a long snapshot. Both backends run at
 * the same time. Ends with 1 if anything grows that should not.
 */
import { parseArgs } from "node:util"
import { growth, mebibytes, type Report, type Settings, watch } from "./health.js"

const { values: args } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    backend: { type: "string", default: "both" },
    json: { type: "boolean", default: false }
  }
})

const say = (line: string): void => args.json ? void process.stderr.write(`${line}\n`) : console.log(line)
const backends = (["sqlite", "postgres"] as const).filter((backend) =>
  args.backend === backend || args.backend === "both"
)
const reports = await Promise.all(backends.map(async (backend: Settings["backend"]) => {
  const report = await watch({
    backend,
    seconds: Number(args.seconds),
    progress: (line) => say(`${backend.padEnd(8)} ${line}`)
  })
  return Object.assign(report, { problems: [...report.problems, ...(report.seconds < 60 ? [] : growth(report))] })
}))

const print = (report: Report): void => {
  const { backend, calls, connections, events, handles, heap, kept, problems, seconds, took, wal } = report
  const phases = ["before", "during", "after"] as const
  console.log(`\n${backend}: ${events} events in ${seconds} s`)
  console.log(`handles      ${handles.start}, at most ${handles.most}, ${handles.end} at the end`)
  console.log(`connections  ${connections.start}, at most ${connections.most}, ${connections.end} at the end`)
  console.log(`heap         ${mebibytes(heap.warm)} MiB after the warm-up, ${mebibytes(heap.end)} MiB at the end`)
  const sizes = (of: Report["kept"]): string => phases.map((phase) => `${mebibytes(of[phase])} MiB ${phase}`).join(", ")
  console.log(`WAL          at most ${sizes(wal)}, ${mebibytes(wal.closed)} MiB at the end`)
  if (backend === "postgres") console.log(`kept         at most ${sizes(kept)}`)
  console.log("median, p99 in ms   before the snapshot       during it           after it       calls")
  for (const [kind, of] of Object.entries(took)) {
    const times = phases.map((phase) => of[phase].map((millis) => millis.toFixed(1).padStart(9)).join(" "))
    console.log(`${kind.padEnd(19)} ${times.join(" ")}  ${calls[kind]}`)
  }
  for (const problem of problems) console.log(`✗ ${problem}`)
  console.log(problems.length === 0 ? `✓ ${backend}` : `✗ ${backend}`)
}

if (args.json) console.log(JSON.stringify(reports, undefined, 2))
else for (const report of reports) print(report)
process.exitCode = reports.length > 0 && reports.every(({ problems }) => problems.length === 0) ? 0 : 1

/**
 * `npm run chaos -- --seconds 60 --seed 1 --backend sqlite|postgres|both`, with `--producers`, `--subscribers`,
 * `--consumers`, `--small-disk` (SQLite; root only), `--json`. Instead of `--seconds` one fault again and again: `--kills N` (SIGKILL of
 * SQLite writers), `--server-kills N` (SIGKILL of the Postgres server), `--lost N` (acknowledgements). Ends with 1 if
 * the checker finds anything.
 */
import { randomInt } from "node:crypto"
import { parseArgs } from "node:util"
import { type Report, run, type Settings } from "./harness.js"
import { chaos, killServer, killWriters, loseAcknowledgements } from "./nemesis.js"

const { values: args } = parseArgs({
  options: {
    seconds: { type: "string", default: "30" },
    seed: { type: "string", default: String(randomInt(2 ** 31)) },
    backend: { type: "string", default: "both" },
    producers: { type: "string", default: "4" },
    subscribers: { type: "string", default: "2" },
    consumers: { type: "string", default: "2" },
    pause: { type: "string", default: "40" },
    "small-disk": { type: "boolean", default: false },
    kills: { type: "string" },
    "server-kills": { type: "string" },
    lost: { type: "string" },
    json: { type: "boolean", default: false }
  }
})

const say = (line: string): void => args.json ? void process.stderr.write(`${line}\n`) : console.log(line)
say(`seed ${args.seed}`)

const settings = (backend: Settings["backend"]): Settings => ({
  backend,
  seed: args.seed,
  writers: Number(args.producers),
  subscribers: Number(args.subscribers),
  consumers: Number(args.consumers),
  pause: Number(args.pause),
  smallDisk: args["small-disk"] && backend === "sqlite",
  progress: (line) => say(`${backend}: ${line}`)
})

const reports: Array<Report> = []
if (args.kills !== undefined) reports.push(await run(settings("sqlite"), killWriters(Number(args.kills))))
if (args["server-kills"] !== undefined) {
  reports.push(await run(settings("postgres"), killServer(Number(args["server-kills"]))))
}
if (args.lost !== undefined) {
  reports.push(await run({ ...settings("postgres"), pause: 2 }, loseAcknowledgements(Number(args.lost))))
}
if (reports.length === 0) {
  for (const backend of ["sqlite", "postgres"] as const) {
    if (args.backend !== backend && args.backend !== "both") continue
    reports.push(await run(settings(backend), chaos(Number(args.seconds))))
  }
}

if (args.json) console.log(JSON.stringify(reports, undefined, 2))
else {for (const report of reports) {
    const { violations, ...figures } = report
    console.log(JSON.stringify(figures, undefined, 2))
    for (const { detail, kind } of violations) console.log(`✗ ${kind}: ${detail}`)
    console.log(violations.length === 0 ? `✓ ${report.backend}: no violation` : `✗ ${report.backend}`)
  }}
process.exitCode = reports.length > 0 && reports.every(({ violations }) => violations.length === 0) ? 0 : 1

// What would be published: lints it (publint), resolves the types of every entry point (attw), then unpacks it beside
// nothing but `effect` and uses it: as a program, as TypeScript, without a driver and with one. Run after the build.
import { execFileSync, spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"

const { dependencies, name, peerDependencies } = JSON.parse(readFileSync("package.json", "utf8"))
const modules = readdirSync("src").filter((file) => file.endsWith(".ts") && file !== "index.ts")
  .map((file) => file.slice(0, -3))

const run = (command, args, options = {}) => {
  try {
    return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], ...options })
  } catch (error) {
    console.error(`${error.stdout ?? ""}${error.stderr ?? ""}\n✗ ${command} ${args.join(" ")}`)
    process.exit(1)
  }
}

const folder = mkdtempSync(join(tmpdir(), `${name}-`))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))

const [{ filename }] = JSON.parse(run("npm", ["pack", "--json", "--loglevel=error", "--pack-destination", folder]))
const tarball = join(folder, filename)

run("publint", ["--strict", tarball])
run("attw", [tarball, "--profile", "esm-only", "--format", "ascii", "--include-entrypoints", ...modules])

const link = (packages) => {
  for (const dependency of packages) {
    const place = join(folder, "node_modules", dependency)
    mkdirSync(join(place, ".."), { recursive: true })
    symlinkSync(resolve("node_modules", dependency), place, "junction")
  }
}

// `effect` and our own dependencies by link; the optional peers stay away
link(["effect", ...Object.keys(dependencies)])
const installed = join(folder, "node_modules", name)
mkdirSync(installed)
run("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"])

const evaluate = (program, env = {}) =>
  run(process.execPath, ["--input-type=module", "--eval", program], { cwd: folder, env: { ...process.env, ...env } })

evaluate(`
  import assert from "node:assert"
  import * as root from "${name}"
  assert.ok(Object.keys(root).length > 0)
  await assert.rejects(import("${name}/internal/ledger"), { code: "ERR_PACKAGE_PATH_NOT_EXPORTED" })
`)

// as a user's own TypeScript: the root's declarations resolve beside `effect` alone, and are those of the sources
const source = `
  import { Effect } from "effect"
  import { Event, Ledger, LedgerConfig } from "${name}"
  export const program = Effect.gen(function*() {
    const event = yield* Event.create({ runId: "r", turn: 0, kind: "run.started", actor: "ada", payload: {} })
    return (yield* Ledger.append(event)).offset
  }).pipe(Effect.provide(LedgerConfig.layer))
  // @ts-expect-error a receipt's offset is a number
  export const wrong: Effect.Effect<string, unknown> = program
`
writeFileSync(join(folder, "package.json"), "{ \"type\": \"module\" }")
writeFileSync(join(folder, "program.ts"), source)
const compile = "--strict --exactOptionalPropertyTypes --target ES2022 --module NodeNext --skipLibCheck false"
run(resolve("node_modules", ".bin", "tsc"), [...compile.split(" "), "program.ts"], { cwd: folder })

// the command line says what it needs, where it is missing
const bin = join(installed, ...Object.values(JSON.parse(readFileSync("package.json", "utf8")).bin)[0].split("/"))
const launched = spawnSync(process.execPath, [bin, "--version"], { cwd: folder, encoding: "utf8" })
if (launched.status !== 1 || !/npm install .*@effect\/cli@/.test(launched.stderr)) {
  console.error(`✗ the command line without its package: ${launched.status} ${launched.stdout}${launched.stderr}`)
  process.exit(1)
}

const append = `
  import assert from "node:assert"
  import { Effect, Exit } from "effect"
  import { program } from "./program.js"
  const exit = await Effect.runPromise(Effect.exit(program))
`
evaluate(`${append} assert.deepStrictEqual(exit, Exit.succeed(1))`, { DATABASE_URL: "" })

for (const DATABASE_URL of ["postgres://ada:secret@127.0.0.1:1/agents", ":memory:"]) {
  evaluate(
    `${append}
    const { error } = exit.cause
    assert.strictEqual(error._tag, "DriverMissing")
    assert.ok(error.message.includes("npm install " + error.package))
    assert.ok(${JSON.stringify(Object.keys(peerDependencies))}.includes(error.package), error.package)
    assert.ok(!JSON.stringify(exit).includes("secret"))`,
    { DATABASE_URL }
  )
}

link(["better-sqlite3", "@effect/sql-sqlite-node", "@effect/sql", "@effect/experimental", "@effect/platform"])
evaluate(
  `${append}
  assert.deepStrictEqual(exit, Exit.succeed(1))
  const { layerFile } = await import("${name}/SqliteLedger")
  const { Ledger } = await import("${name}")
  assert.strictEqual(await Effect.runPromise(Effect.provide(Ledger.latestOffset, layerFile("runs/a.db"))), 1)`,
  { DATABASE_URL: "sqlite:///runs/a.db" }
)

link(["@effect/cli", "@effect/printer", "@effect/printer-ansi"])
const told = run(process.execPath, [bin, "info", "--json", "--url", "runs/a.db"], { cwd: folder })
if (JSON.parse(told).head !== 1) throw new Error(told)

console.log(
  `${name}: ${modules.length} modules resolve, the root works beside effect alone, drivers and the command line when they are there`
)

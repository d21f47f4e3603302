import { describe, expect, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { fileURLToPath, pathToFileURL } from "node:url"

const root = new URL("../", import.meta.url)
const driver =
  /\/node_modules\/(?:@effect\/sql[^/]*|@effect\/experimental|@effect\/platform|pg|pg-[^/]+|better-sqlite3)\//

describe("drivers are loaded when they are selected, not before", () => {
  it("the root import and a ledger in memory load none", () => {
    const modules = loaded("")
    expect(modules.filter((url) => url.includes("/node_modules/effect/")).length).toBeGreaterThan(10)
    expect(modules).toContain(new URL("src/index.ts", root).href)
    expect(modules).toContain(new URL("src/internal/memoryStore.ts", root).href)
    expect(modules.filter((url) => driver.test(url))).toStrictEqual([])
    expect(modules).not.toContain(new URL("src/SqliteLedger.ts", root).href)
    expect(modules).not.toContain(new URL("src/PgLedger.ts", root).href)
  })

  it("SQLite loads its own, and not that of Postgres", () => {
    const packages = packagesOf(loaded(":memory:"))
    expect(packages).toContain("better-sqlite3")
    expect(packages).toContain("@effect/sql-sqlite-node")
    expect(packages.filter((name) => name === "@effect/sql-pg" || /^pg(?:-|$)/.test(name))).toStrictEqual([])
  })

  it("Postgres loads its own, and not that of SQLite", () => {
    const packages = packagesOf(loaded("postgresql://ada:secret@127.0.0.1:1/agents"))
    expect(packages).toContain("pg")
    expect(packages).toContain("@effect/sql-pg")
    expect(packages.filter((name) => name.includes("sqlite"))).toStrictEqual([])
  })
})

const packagesOf = (modules: ReadonlyArray<string>): ReadonlyArray<string> =>
  Array.from(
    new Set(
      modules.flatMap((url) => /\/node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*\/node_modules\/)/.exec(url)?.slice(1) ?? [])
    )
  )

/**
 * The URLs of all modules that a process has loaded when it has used the ledger at a URL. ES modules are seen by a
 * loader's hook that Node asks for each of them, CommonJS ones by the table in which Node keeps them.
 */
const loaded = (databaseUrl: string): ReadonlyArray<string> => {
  const hook = `
    let port
    export const initialize = (data) => { port = data.port }
    export const load = async (url, context, next) => { port.postMessage(url); return next(url, context) }
  `
  const program = `
    import { createRequire, register } from "node:module"
    import { pathToFileURL } from "node:url"
    import { MessageChannel, receiveMessageOnPort } from "node:worker_threads"
    const { port1, port2 } = new MessageChannel()
    register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(hook)}`)}, {
      data: { port: port2 },
      transferList: [port2]
    })
    const { Ledger, LedgerConfig } = await import(${JSON.stringify(new URL("src/index.ts", root).href)})
    const { Effect } = await import("effect")
    await Effect.runPromiseExit(Effect.provide(Ledger.latestOffset, LedgerConfig.layer))
    const modules = Object.keys(createRequire(import.meta.url).cache).map((file) => pathToFileURL(file).href)
    for (let next; (next = receiveMessageOnPort(port1)) !== undefined;) modules.push(next.message)
    console.log(JSON.stringify(modules.map((url) => url.split("?")[0])))
    process.exit(0)
  `
  const tsx = pathToFileURL(fileURLToPath(new URL("node_modules/tsx/dist/loader.mjs", root))).href
  const output = execFileSync(process.execPath, ["--import", tsx, "--input-type=module", "--eval", program], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, DATABASE_URL: databaseUrl, NODE_OPTIONS: "" }
  })
  return JSON.parse(output.trim().split("\n").at(-1) ?? "")
}

// What would be published: lints it (publint), resolves the types of every entry point (attw), then unpacks it beside
// nothing but `effect` and imports it. Run after the build.
import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"

const { dependencies, name } = JSON.parse(readFileSync("package.json", "utf8"))
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

// `effect` and our own dependencies by link; the optional peers stay away
for (const dependency of ["effect", ...Object.keys(dependencies)]) {
  const link = join(folder, "node_modules", dependency)
  mkdirSync(join(link, ".."), { recursive: true })
  symlinkSync(resolve("node_modules", dependency), link, "junction")
}
const installed = join(folder, "node_modules", name)
mkdirSync(installed)
run("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"])

const program = `
  import assert from "node:assert"
  import * as root from "${name}"
  assert.ok(Object.keys(root).length > 0)
  await assert.rejects(import("${name}/internal/ledger"), { code: "ERR_PACKAGE_PATH_NOT_EXPORTED" })
`
run(process.execPath, ["--input-type=module", "--eval", program], { cwd: folder })

console.log(`${name}: ${modules.length} modules resolve, the root imports beside effect alone`)

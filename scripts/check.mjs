// Every check, cheapest first. A step that passes is one line; the first that fails shows all it said.
import { spawnSync } from "node:child_process"

const steps = ["format:check", "lint", "types", "deps", "diagnostics", "docs", "package", "test"]

for (const step of steps) {
  const started = performance.now()
  const live = step === "test"
  const { error, status, stderr, stdout } = spawnSync("npm", ["run", "--silent", step], {
    stdio: live ? ["ignore", "inherit", "inherit"] : ["ignore", "pipe", "pipe"],
    encoding: "utf8",
    maxBuffer: Infinity,
    shell: process.platform === "win32"
  })
  if (status !== 0) {
    console.error(`${stdout ?? ""}${stderr ?? ""}${error ?? ""}\n✗ npm run ${step}`)
    process.exit(status ?? 1)
  }
  if (!live) console.log(`✓ ${step} (${((performance.now() - started) / 1000).toFixed(1)} s)`)
}

/** Processes that a test starts. */
import { build } from "esbuild"
import { type ChildProcess, spawn } from "node:child_process"
import { basename } from "node:path"
import { fileURLToPath } from "node:url"

/** Starts a script of this folder; whoever starts it ends it. */
export const startScript = async (
  script: string,
  args: ReadonlyArray<string>,
  env: Record<string, string>,
  execArgv: ReadonlyArray<string> = []
): Promise<ChildProcess> =>
  spawn(process.execPath, [...execArgv, await bundled(script), ...args], {
    env: { ...process.env, ...env },
    stdio: ["pipe", "pipe", "pipe"]
  })

/** Runs a script of this folder to its end; rejects with what it printed when it fails. */
export const runScript = async (
  script: string,
  args: ReadonlyArray<string>,
  env: Record<string, string>,
  execArgv: ReadonlyArray<string> = []
): Promise<string> => {
  const child = await startScript(script, args, env, execArgv)
  return new Promise((resolve, reject) => {
    let output = ""
    child.stdout?.on("data", (chunk) => output += String(chunk))
    child.stderr?.on("data", (chunk) => output += String(chunk))
    child.on("error", reject)
    child.on(
      "close",
      (code) => code === 0 ? resolve(output) : reject(new Error(`${script} ended with ${code}:\n${output}`))
    )
  })
}

const bundles = new Map<string, Promise<string>>()

// one file starts in an eighth of the time, and tests start many
const bundled = (script: string): Promise<string> => {
  const known = bundles.get(script)
  if (known !== undefined) return known
  const outfile = fileURLToPath(
    new URL(`../../build/test/${basename(script, ".ts")}-${process.pid}.mjs`, import.meta.url)
  )
  const bundle = build({
    entryPoints: [fileURLToPath(new URL(script, import.meta.url))],
    bundle: true,
    platform: "node",
    format: "esm",
    external: ["better-sqlite3", "pg-native"],
    banner: {
      js: "import { createRequire as requireFrom } from \"node:module\"; const require = requireFrom(import.meta.url)"
    },
    logLevel: "error",
    outfile
  }).then(() => outfile)
  bundles.set(script, bundle)
  return bundle
}

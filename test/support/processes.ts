/** Processes that a test starts. */
import { build } from "esbuild"
import { type ChildProcess, spawn } from "node:child_process"
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { basename, dirname, join } from "node:path"
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

/** Starts a script of this folder on a terminal of its own, which util-linux makes. */
export const startOnTerminal = async (
  script: string,
  args: ReadonlyArray<string>,
  env: Record<string, string>
): Promise<ChildProcess> =>
  spawn("script", ["-qec", [process.execPath, await bundled(script), ...args].join(" "), "/dev/null"], {
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

/**
 * Makes a script of this folder a program that is one file, in a folder of its own: with the driver in it, whose binary
 * lies beside it, and without a package to be found. Answers its path.
 */
export const bundleAlone = async (script: string, folder: string): Promise<string> => {
  const outfile = join(folder, "program.mjs")
  // the driver looks for its binary from the file that it is in
  await bundle(script, outfile, [], "const __filename = import.meta.filename")
  mkdirSync(join(folder, "build"))
  copyFileSync(
    join(dirname(createRequire(import.meta.url).resolve("better-sqlite3/package.json")), binary),
    join(folder, "build", basename(binary))
  )
  writeFileSync(join(folder, "package.json"), "{}")
  return outfile
}

const binary = "build/Release/better_sqlite3.node"

const bundles = new Map<string, Promise<string>>()

// one file starts in an eighth of the time, and tests start many
const bundled = (script: string): Promise<string> => {
  const known = bundles.get(script)
  if (known !== undefined) return known
  const outfile = fileURLToPath(
    new URL(`../../build/test/${basename(script, ".ts")}-${process.pid}.mjs`, import.meta.url)
  )
  const made = bundle(script, outfile, ["better-sqlite3"])
  bundles.set(script, made)
  return made
}

const bundle = async (
  script: string,
  outfile: string,
  external: ReadonlyArray<string>,
  banner = ""
): Promise<string> => {
  await build({
    entryPoints: [fileURLToPath(new URL(script, import.meta.url))],
    bundle: true,
    platform: "node",
    format: "esm",
    external: [...external, "pg-native"],
    banner: {
      js: "import { createRequire as requireFrom } from \"node:module\"; " +
        `const require = requireFrom(import.meta.url); ${banner}`
    },
    logLevel: "error",
    outfile
  })
  return outfile
}

/** Processes of {@link Task}s, from one bundle, so that their start and their memory are not those of a compiler. */
import { build } from "esbuild"
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { Task } from "./child.js"

/** Whoever starts it waits for its end. */
export const start = async (task: Task): Promise<ChildProcess> =>
  spawn(process.execPath, [await bundled()], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, LEDGER_TASK: JSON.stringify(task) }
  })

/** The number that a process printed. */
export const run = async (task: Task): Promise<number> => {
  const child = await start(task)
  let output = ""
  child.stdout?.on("data", (chunk) => output += String(chunk))
  return new Promise((resolve, reject) => {
    child.on("error", reject)
    child.on(
      "close",
      (code) => code === 0 ? resolve(Number(output)) : reject(new Error(`${task.task}: ended with ${code}`))
    )
  })
}

let bundle: Promise<string> | undefined

const bundled = (): Promise<string> => {
  const outdir = fileURLToPath(new URL("../build/bench", import.meta.url))
  bundle ??= build({
    entryPoints: [fileURLToPath(new URL("child.ts", import.meta.url))],
    bundle: true,
    // a side loads what is its own
    splitting: true,
    platform: "node",
    format: "esm",
    outExtension: { ".js": ".mjs" },
    external: ["better-sqlite3", "pg-native"],
    banner: {
      js: "import { createRequire as requireFrom } from \"node:module\"; const require = requireFrom(import.meta.url)"
    },
    logLevel: "error",
    outdir
  }).then(() => `${outdir}/child.mjs`)
  return bundle
}

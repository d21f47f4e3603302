/**
 * What README.md and docs show: every block compiles against the built package, and the first program prints what it
 * says.
 */
import { describe, expect, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { basename, dirname, join } from "node:path"
import { promisify } from "node:util"

const readme = readFileSync("README.md", "utf8")
const documents = ["README.md", ...readdirSync("docs").map((name) => join("docs", name))]
  .map((file) => ({ file, text: readFileSync(file, "utf8") }))

describe("README.md and docs", () => {
  it("have a first program that runs, and blocks that compile", { timeout: 180_000 }, async () => {
    await inEmptyProject(async (folder) => {
      const program = blockAfter("<!-- first program -->")
      expect(program.trimEnd().split("\n").length).toBeLessThanOrEqual(20)
      writeFileSync(join(folder, "main.mjs"), program)
      expect(await run(folder, "main.mjs")).toBe(blockAfter("<!-- its output -->"))

      const blocks = documents.flatMap(({ file, text }) =>
        Array.from(text.matchAll(/^```ts\n(.*?)^```/gms), ([, code], index) => ({
          name: `${basename(file, ".md")}-${index + 1}.ts`,
          code: code!
        }))
      )
      expect(blocks.length).toBeGreaterThan(1)
      for (const { code, name } of blocks) writeFileSync(join(folder, name), code)
      await compile(folder, { include: ["*.ts"], compilerOptions: { noEmit: true } })
    })
  })

  it("point to files and headings that exist", () => {
    const missing = documents.flatMap(({ file, text }) =>
      Array.from(text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g), ([, path, heading]) => {
        const target = path === "" ? file : join(dirname(file), path!)
        const found = existsSync(target) && (heading === undefined || headingsOf(target).includes(heading))
        return found ? [] : [`${file}: ${path}#${heading}`]
      }).flat()
    )
    expect(missing).toEqual([])
  })
})

/** As links name them. */
const headingsOf = (file: string): ReadonlyArray<string> =>
  Array.from(
    readFileSync(file, "utf8").matchAll(/^#+ (.*)$/gm),
    ([, title]) => title!.toLowerCase().replace(/[^\w\s-]/g, "").replace(/\s/g, "-")
  )

const blockAfter = (marker: string): string =>
  new RegExp(`^${marker}\\s*\`\`\`\\w+\\n(.*?)^\`\`\``, "ms").exec(readme)?.[1] ??
    expect.fail(`nothing after ${marker}`)

/** A folder that is a project of its own, with this package built and installed. It finds the peers beside the repository's. */
const inEmptyProject = async (use: (folder: string) => Promise<void>): Promise<void> => {
  mkdirSync("build", { recursive: true })
  const folder = mkdtempSync(join("build", "readme-"))
  try {
    const installed = join(folder, "node_modules", "effect-ledger")
    mkdirSync(installed, { recursive: true })
    copyFileSync("package.json", join(installed, "package.json"))
    writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }))
    await compile(folder, {
      include: ["../../src", "../../test/contract"],
      compilerOptions: { noEmit: false, rootDir: "../..", outDir: "node_modules/effect-ledger/dist" }
    })
    await use(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const compile = async (folder: string, config: object): Promise<void> => {
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ extends: "../../tsconfig.json", ...config }))
  await run(".", "node_modules/typescript/bin/tsc", "-p", folder)
}

const run = async (cwd: string, ...args: ReadonlyArray<string>): Promise<string> => {
  try {
    return (await promisify(execFile)(process.execPath, args, { cwd })).stdout
  } catch (error) {
    const { message, stderr, stdout } = error as { message: string; stdout?: string; stderr?: string }
    throw new Error(`${stdout ?? ""}${stderr ?? ""}${message}`, { cause: error })
  }
}

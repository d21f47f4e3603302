/**
 * Compiles the benchmark together with the library and runs it, as a program of yours would be compiled: a runner of
 * TypeScript gives every closure its name each time it is made, an eighth of what an append costs.
 */
import { build } from "esbuild"
import { fileURLToPath } from "node:url"

const local = (name) => fileURLToPath(new URL(name, import.meta.url))

// beside the sources, as they find their files by their own place
const outfile = local("built.mjs")
await build({
  entryPoints: [local("index.ts")],
  bundle: true,
  packages: "external",
  platform: "node",
  format: "esm",
  logLevel: "error",
  outfile
})
await import(outfile)

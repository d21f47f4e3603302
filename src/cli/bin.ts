#!/usr/bin/env node
/** The launcher: the command line's packages are optional, and where they are missing it says what to install. */
import("./main.js").catch((error: unknown) => {
  const missing = error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND"
  process.stderr.write(
    missing
      ? `effect-ledger: the command line needs a package that is not installed: npm install effect@3 @effect/cli@0.77\n`
      : `effect-ledger: ${String(error)}\n`
  )
  process.exitCode = 1
})

// Lazy `import()` is left out of the graph (options.exclude): it is how the factory reaches the drivers.
const SQL = "node_modules/@effect/sql[^/]*/"
const DRIVERS = [
  SQL,
  "node_modules/pg/",
  "node_modules/pg-[^/]+/",
  "node_modules/better-sqlite3/",
  "node_modules/@types/(pg|better-sqlite3)/"
]
const SQL_FILES = [
  "^src/(Sqlite|Pg)Ledger[.]ts$",
  "^src/internal/(transaction|sqlError|sqlStore|sqliteDatabase|sqliteStore|pgStore|pgListen|ancestorSqlite|ancestorPg)[.]ts$",
  "^src/internal/migrations/"
]

/** @type {import("dependency-cruiser").IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: "no-circular",
      comment: "arrows only go down",
      severity: "error",
      from: {},
      to: { circular: true }
    },
    {
      name: "no-driver-from-root",
      comment: "`import \"effect-ledger\"` must work with nothing installed but effect",
      severity: "error",
      from: { path: "^src/index[.]ts$" },
      to: { path: DRIVERS, reachable: true }
    },
    {
      name: "sql-only-in-stores",
      comment: "semantics once, storage below the port",
      severity: "error",
      from: { path: "^src/", pathNot: SQL_FILES },
      to: { path: SQL }
    },
    {
      name: "cli-stands-apart",
      comment: "who uses the library need not install what the command line needs",
      severity: "error",
      from: { path: "^src/(?!cli/)" },
      to: { path: ["^src/cli/", "node_modules/@effect/(cli|printer|printer-ansi|platform)/"] }
    },
    {
      name: "src-stands-alone",
      comment: "the library imports neither tests nor tools",
      severity: "error",
      from: { path: "^src/" },
      to: {
        path: [
          "^(test|bench|examples|scripts)/",
          "node_modules/@?vitest/",
          "node_modules/@effect/(vitest|platform-node)/"
        ]
      }
    },
    {
      name: "contract-is-published",
      comment: "test/contract ships as effect-ledger/testing: it may use src and itself only",
      severity: "error",
      from: { path: "^test/contract/" },
      to: { path: ["^test/(?!contract/)", "^(bench|examples|scripts)/", ...DRIVERS] }
    },
    {
      name: "no-unresolvable",
      severity: "error",
      from: {},
      to: { couldNotResolve: true }
    }
  ],
  options: {
    tsConfig: { fileName: "tsconfig.json" },
    tsPreCompilationDeps: true,
    doNotFollow: { path: "node_modules" },
    exclude: { dynamic: true },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default", "types"],
      mainFields: ["module", "main", "types"]
    }
  }
}

/** Where SQL may stand. (The import rules are checked by dependency-cruiser: `npm run deps`.) */
import { assert, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"

const sources = (folder: string): ReadonlyArray<string> =>
  Fs.readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? sources(Path.join(folder, entry.name)) : [Path.join(folder, entry.name)]
  )

const withSql = sources("src").filter((file) => {
  const code = Fs.readFileSync(file, "utf8").replaceAll(/\/\*[^]*?\*\/|^\s*\/\/.*$/gm, "")
  return /["'`](SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|BEGIN|COMMIT|ROLLBACK|PRAGMA|LOCK|TRUNCATE|WITH|SET)\b/
    .test(code)
})

it("SQL stands in the stores, the migrations and what reads the ancestor's databases, and nowhere else", () => {
  assert.deepStrictEqual(withSql.toSorted(), [
    "src/internal/ancestorPg.ts",
    "src/internal/ancestorSqlite.ts",
    "src/internal/migrations/pgRoles.ts",
    "src/internal/migrations/postgres.ts",
    "src/internal/migrations/sqlite.ts",
    "src/internal/pgInspect.ts",
    "src/internal/pgStore.ts",
    "src/internal/sqlConsumerStore.ts",
    "src/internal/sqlStore.ts",
    "src/internal/sqliteDatabase.ts",
    "src/internal/sqliteStore.ts",
    "src/internal/sqliteWriter.ts"
  ])
})

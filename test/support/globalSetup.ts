import type { ProvidedContext } from "vitest"
import type { TestProject } from "vitest/node"
import { startPostgres } from "./postgres.js"

declare module "vitest" {
  /** What tests read with `inject`. */
  export interface ProvidedContext {
    /** URL of a Postgres database that the tests may write to. */
    readonly databaseUrl: string
  }
}

/**
 * Vitest's global set-up: one Postgres server for the whole test run, unless TEST_DATABASE_URL names one. Tests get the
 * URL by `inject("databaseUrl")`.
 */
export default async (project: TestProject): Promise<(() => Promise<void>) | undefined> => {
  const key: keyof ProvidedContext = "databaseUrl"
  const given = process.env["TEST_DATABASE_URL"]?.trim()
  if (given !== undefined && given !== "") {
    project.provide(key, given)
    return undefined
  }
  const server = await startPostgres()
  project.provide(key, server.url)
  return server.stop
}

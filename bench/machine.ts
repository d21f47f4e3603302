/** What the figures were taken on. */
import Sqlite from "better-sqlite3"
import * as Fs from "node:fs"
import { createRequire } from "node:module"
import * as Os from "node:os"
import * as Path from "node:path"
import { Client } from "pg"
import { type Spread, spread } from "./figures.js"

export interface Machine {
  readonly processor: string
  readonly cores: number
  readonly memoryGiB: number
  readonly system: string
  /** Of Node, the databases and their drivers. */
  readonly versions: Readonly<Record<string, string>>
  readonly durability: Readonly<Record<string, string>>
  /** Writing 4 KiB to the end of a file and flushing it, in milliseconds. */
  readonly flush: Spread
}

export const describe = async (
  directory: string,
  url: string | undefined,
  others: Readonly<Record<string, string>> = {}
): Promise<Machine> => {
  const db = new Sqlite(":memory:")
  const sqlite = String(db.prepare("SELECT sqlite_version()").pluck().get())
  db.close()
  const server = url === undefined ? undefined : await settings(url)
  return {
    processor: Os.cpus()[0]?.model ?? "unknown",
    cores: Os.availableParallelism(),
    memoryGiB: Math.round(Os.totalmem() / 2 ** 30),
    system: `${Os.type()} ${Os.release()} ${Os.arch()}`,
    versions: {
      Node: process.version,
      ...Object.fromEntries(["effect", "better-sqlite3", "pg"].map((name) => [name, versionOf(name)])),
      SQLite: sqlite,
      ...server && { Postgres: server["server_version"]! },
      ...others
    },
    durability: {
      "SQLite FULL": "journal_mode = WAL, synchronous = FULL",
      "SQLite NORMAL": "journal_mode = WAL, synchronous = NORMAL",
      ...server && {
        Postgres: ["fsync", "synchronous_commit", "wal_sync_method", "full_page_writes"]
          .map((name) => `${name} = ${server[name]}`).join(", ")
      }
    },
    flush: flushing(directory)
  }
}

/** Of a package that is installed. */
export const versionOf = (name: string, from = import.meta.url): string => {
  const found = createRequire(from).resolve.paths(name)?.map((folder) => Path.join(folder, name, "package.json"))
    .find((file) => Fs.existsSync(file))
  return found === undefined
    ? "not installed"
    : (JSON.parse(Fs.readFileSync(found, "utf8")) as { readonly version: string }).version
}

const settings = async (url: string): Promise<Readonly<Record<string, string>>> => {
  const client = new Client({ connectionString: url })
  await client.connect()
  const { rows } = await client.query<{ readonly name: string; readonly setting: string }>(
    "SELECT name, setting FROM pg_settings"
  )
  await client.end()
  return Object.fromEntries(rows.map(({ name, setting }) => [name, setting]))
}

const flushing = (directory: string): Spread => {
  const file = Fs.openSync(Path.join(directory, "flushed"), "w")
  const bytes = Buffer.alloc(4096, 1)
  const times = Array.from({ length: 300 }, () => {
    const started = performance.now()
    Fs.writeSync(file, bytes)
    Fs.fsyncSync(file)
    return performance.now() - started
  })
  Fs.closeSync(file)
  return spread(times)
}

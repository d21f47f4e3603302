import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { afterAll } from "vitest"
import * as SqliteLedger from "../src/SqliteLedger.js"
import { suite } from "./contract/index.js"
import { sqliteClient } from "./support/contractSqlite.js"

const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-contract-"))
afterAll(() => Fs.rmSync(directory, { recursive: true, force: true }))

let files = 0
const newFile = () => Path.join(directory, `${++files}.db`)

suite("SQLite file", {
  layer: () => SqliteLedger.layerFile(newFile()),
  consumers: () => SqliteLedger.layerFile(newFile()),
  stored: () => SqliteLedger.layerFile(newFile()),
  client: () => sqliteClient(newFile())
})

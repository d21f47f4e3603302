import * as SqliteLedger from "../src/SqliteLedger.js"
import { suite } from "./contract/index.js"
import { sqliteClient } from "./support/contractSqlite.js"

suite("SQLite in memory", {
  layer: () => SqliteLedger.layerFile(":memory:"),
  consumers: () => SqliteLedger.layerFile(":memory:"),
  client: () => sqliteClient(":memory:")
})

import * as Layer from "effect/Layer"
import * as SqliteLedger from "../../src/SqliteLedger.js"
import { contractClient } from "./contractClient.js"

/** A ledger in the file, with the contract's view of its client. */
export const sqliteClient = (filename: string) =>
  contractClient({
    events: "ledger_events",
    notes: "notes",
    order: "place INTEGER PRIMARY KEY",
    lift: [
      "PRAGMA ignore_check_constraints = ON",
      "DROP TRIGGER IF EXISTS ledger_no_update",
      "DROP TRIGGER IF EXISTS ledger_no_delete"
    ]
  }).pipe(Layer.provideMerge(SqliteLedger.layerFile(filename)))

/** The SQLite set-up, by version. */
import { maxInt, maxTime, minTime } from "../fields.js"
import { largeBytes, type Names, spanRows } from "../sqlStore.js"

export const version = 3

export const create = (names: Names): ReadonlyArray<string> => [
  `CREATE TABLE ${names.meta} (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  version INTEGER NOT NULL,
  incarnation TEXT NOT NULL,
  lineage TEXT NOT NULL DEFAULT '[]'
) STRICT`,
  `CREATE TABLE ${names.events} (
  "offset" INTEGER PRIMARY KEY CHECK ("offset" > 0),
  id TEXT NOT NULL UNIQUE CHECK (length(id) BETWEEN 1 AND 64),
  run_id TEXT NOT NULL CHECK (length(run_id) BETWEEN 1 AND 255),
  turn INTEGER NOT NULL CHECK (turn BETWEEN 0 AND ${maxInt}),
  kind TEXT NOT NULL CHECK (
    length(kind) BETWEEN 3 AND 255 AND kind NOT GLOB '*[^a-z0-9.]*' AND kind GLOB '[a-z]*.[a-z]*'
    AND kind NOT GLOB '*.' AND kind NOT GLOB '*.[^a-z]*'
  ),
  actor TEXT NOT NULL CHECK (length(actor) BETWEEN 1 AND 255),
  payload TEXT NOT NULL CHECK (json_type(payload) = 'object'),
  created_at INTEGER NOT NULL CHECK (created_at BETWEEN ${minTime} AND ${maxTime}),
  schema_version INTEGER NOT NULL CHECK (schema_version BETWEEN 1 AND ${maxInt}),
  session_id TEXT CHECK (length(session_id) BETWEEN 1 AND 255),
  model_profile TEXT CHECK (length(model_profile) BETWEEN 1 AND 255),
  model_id TEXT CHECK (length(model_id) BETWEEN 1 AND 255),
  digest BLOB NOT NULL CHECK (length(digest) = 32)
) STRICT`,
  `CREATE INDEX ${names.of("run")} ON ${names.events} (run_id, "offset")`,
  `CREATE INDEX ${names.of("kind")} ON ${names.events} (kind, "offset")`,
  `CREATE INDEX ${names.of("actor")} ON ${names.events} (actor, "offset")`,
  `CREATE INDEX ${names.of("session")} ON ${names.events} (session_id, "offset") WHERE session_id IS NOT NULL`,
  `CREATE INDEX ${names.of("model")} ON ${names.events} (model_id, "offset") WHERE model_id IS NOT NULL`,
  // negative, so that a range of it is asked of this index and not of the table
  `CREATE INDEX ${names.of("large")} ON ${names.events} (-"offset") WHERE ${isLarge}`,
  `CREATE VIEW ${names.view} AS SELECT
  "offset", id, run_id, turn, kind, actor, json(payload) AS payload,
  strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
  schema_version, session_id, model_profile, model_id, lower(hex(digest)) AS digest
FROM ${names.events}`,
  ...guards(names),
  // the times of so many events, for reads by time: an index would cost SQLite a quarter of a batch
  `CREATE TABLE ${names.spans} (
  through INTEGER PRIMARY KEY,
  earliest INTEGER NOT NULL,
  latest INTEGER NOT NULL
) STRICT`,
  `CREATE TRIGGER ${names.of("span")} AFTER INSERT ON ${names.events} WHEN NEW."offset" % ${spanRows} = 0
BEGIN INSERT INTO ${names.spans} SELECT NEW."offset", min(created_at), max(created_at) FROM ${names.events}
  WHERE "offset" > NEW."offset" - ${spanRows} AND "offset" <= NEW."offset"; END`,
  `CREATE TABLE ${names.of("consumers")} (
  name TEXT NOT NULL,
  part INTEGER NOT NULL,
  parts INTEGER NOT NULL,
  incarnation TEXT,
  "offset" INTEGER NOT NULL,
  digest TEXT,
  token INTEGER NOT NULL,
  holder TEXT,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (name, part)
) STRICT`,
  `CREATE TABLE ${names.of("members")} (
  name TEXT NOT NULL,
  member TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (name, member)
) STRICT`,
  `CREATE TABLE ${names.of("dead_letters")} (
  name TEXT NOT NULL,
  "offset" INTEGER NOT NULL,
  reason TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  failed_at INTEGER NOT NULL,
  PRIMARY KEY (name, "offset")
) STRICT`,
  `CREATE TABLE ${names.of("projections")} (
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  complete INTEGER NOT NULL,
  incarnation TEXT NOT NULL,
  "offset" INTEGER NOT NULL,
  digest TEXT,
  state TEXT NOT NULL,
  PRIMARY KEY (name, version)
) STRICT`
]

// octet_length, which programs with an older SQLite do not know, would keep them from opening the file
export const isLarge = `length(CAST(payload AS BLOB)) > ${largeBytes}`

/** Append-only in the database too; the insert guard is there because REPLACE deletes without asking the others. */
export const guards = (names: Names): ReadonlyArray<string> => [
  `CREATE TRIGGER ${names.of("no_update")} BEFORE UPDATE ON ${names.events}
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END`,
  `CREATE TRIGGER ${names.of("no_delete")} BEFORE DELETE ON ${names.events}
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END`,
  `CREATE TRIGGER ${names.of("only_append")} BEFORE INSERT ON ${names.events}
WHEN NEW."offset" IS NOT (SELECT coalesce(max("offset"), 0) + 1 FROM ${names.events})
  OR EXISTS (SELECT 1 FROM ${names.events} WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: the id is recorded, or the offset is not the next'); END`
]

export const dropGuards = (names: Names): ReadonlyArray<string> =>
  ["no_update", "no_delete", "only_append"].map((trigger) => `DROP TRIGGER ${names.of(trigger)}`)

/** The SQL that gives roles of Postgres their rights to a ledger. */
import * as Either from "effect/Either"
import { InvalidQuery } from "../../LedgerError.js"
import { badName, names as makeNames } from "../sqlStore.js"
import { appendFunction, appendOneFunction, setUpLock } from "./postgres.js"

export interface Roles {
  readonly owner?: string | undefined
  readonly writer: string
  readonly reader: string
  readonly prefix?: string | undefined
  readonly schema?: string | undefined
}

/** The statements, to be run in one transaction; or the field that is not as it should be. */
export const statements = (roles: Roles): Either.Either<ReadonlyArray<string>, InvalidQuery> => {
  const { owner, prefix = "ledger_", reader, schema = "public", writer } = roles
  const given = Object.entries(owner === undefined ? { writer, reader } : { owner, writer, reader })
  for (const [index, [path, role]] of given.entries()) {
    const reason = refusal(role)
    if (reason !== undefined) return Either.left(new InvalidQuery({ path, reason }))
    const same = given.slice(0, index).find(([, other]) => other === role)
    if (same !== undefined) {
      return Either.left(new InvalidQuery({ path, reason: `expected another role than the ${same[0]}` }))
    }
  }
  if (makeNames(prefix) === undefined) return Either.left(new InvalidQuery({ path: "prefix", reason: badName }))
  const names = makeNames(prefix, schema)
  if (names === undefined) return Either.left(new InvalidQuery({ path: "schema", reason: badName }))

  const { events, meta, of, spans, view } = names
  const kept = ["consumers", "members", "dead_letters", "projections"].map(of)
  const log = [events, meta, spans, view]
  const appends = [appendFunction(names), appendOneFunction(names)]
  const limited = `${quoted(writer)}, ${quoted(reader)}`
  const list = (roles: ReadonlyArray<unknown>) =>
    roles.map((role) => `'${String(role).replaceAll("'", "''")}'`).join(", ")
  return Either.right([
    `-- two that run at once would both make the roles
SELECT pg_catalog.pg_advisory_xact_lock(${setUpLock})`,
    `DO $$
DECLARE wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY[${list(given.map(([, role]) => role))}] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
    END IF;
  END LOOP;
END $$`,
    ...(owner === undefined ? [] : [
      `-- who reads for long holds up a change of the owner, and that everybody else
SET LOCAL lock_timeout = '10s'`,
      `GRANT USAGE, CREATE ON SCHEMA "${schema}" TO ${quoted(owner)}`,
      ...[meta, of("lock"), events, spans, ...kept].map((table) => `ALTER TABLE ${table} OWNER TO ${quoted(owner)}`),
      `ALTER VIEW ${view} OWNER TO ${quoted(owner)}`,
      ...["refuse", "span"].map((name) => `ALTER FUNCTION ${of(name)} OWNER TO ${quoted(owner)}`),
      ...appends.map((append) =>
        `-- it runs with the rights of its owner
ALTER FUNCTION ${append} OWNER TO ${quoted(owner)}`
      )
    ]),
    `REVOKE ALL ON ${[...log, of("lock"), ...kept].join(", ")}
FROM PUBLIC, ${limited}`,
    `REVOKE ALL ON FUNCTION ${appends.join(", ")} FROM PUBLIC, ${limited}`,
    `GRANT USAGE ON SCHEMA "${schema}" TO ${limited}`,
    `GRANT SELECT ON ${[...log, ...kept].join(", ")}
TO ${limited}`,
    `GRANT EXECUTE ON FUNCTION ${appends.join(", ")} TO ${quoted(writer)}`,
    `-- what consumers and persisted projections keep
GRANT INSERT, UPDATE, DELETE ON ${kept.join(", ")}
TO ${quoted(writer)}`,
    `-- rights that come from elsewhere are not taken away by any of this
DO $$
DECLARE limited text;
BEGIN
  FOREACH limited IN ARRAY ARRAY[${list([writer, reader])}] LOOP
    IF EXISTS (
      SELECT FROM pg_catalog.pg_class AS c
      WHERE c.oid = ANY (ARRAY['${events}', '${meta}', '${of("lock")}']::regclass[]) AND (
        pg_has_role(limited, c.relowner, 'MEMBER')
        OR has_table_privilege(limited, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
      )
    ) THEN
      RAISE EXCEPTION 'the role % is a superuser, the owner, or a member of a role that may change the ledger', limited;
    END IF;
  END LOOP;
  IF ${
      appends.map((append) => `has_function_privilege(${list([reader])}, '${append}'::regproc, 'EXECUTE')`).join(" OR ")
    } THEN
    RAISE EXCEPTION 'the role % is a member of a role that may append', ${list([reader])};
  END IF;
END $$`
  ])
}

/** The statements as one text. */
export const script = (statements: ReadonlyArray<string>): string =>
  ["BEGIN", ...statements, "COMMIT"].map((text) => `${text};\n`).join("")

/** `undefined`: the name of a role that can be made, and that stands in the text as nothing else. */
const refusal = (role: unknown): string | undefined => {
  if (typeof role !== "string") return "expected the name of a role"
  const length = Buffer.byteLength(role)
  if (length < 1 || length > 63) return `expected 1 to 63 bytes, found ${length}`
  // what would end a quotation, here or where the text is pasted
  if (/[\p{Cc}\p{Cs}\\]|\$\$/u.test(role)) return "expected no control characters, no backslash and no $$"
  // "public" means everybody, also where it is quoted
  return /^(public|none|pg_.*)$/.test(role) ? `expected no name that Postgres reserves, found ${role}` : undefined
}

const quoted = (role: string): string => `"${role.replaceAll("\"", "\"\"")}"`

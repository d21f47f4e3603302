/** Whether what guards a ledger in Postgres is still as the set-up made it. */
import * as Effect from "effect/Effect"
import type { StoreError } from "../LedgerError.js"
import type { Problem, StoredRow } from "../LedgerStore.js"
import * as migrations from "./migrations/postgres.js"
import { misplacedStatement, misspannedStatement, type Names, problem } from "./sqlStore.js"

type Query = (text: string, params: ReadonlyArray<unknown>) => Effect.Effect<ReadonlyArray<StoredRow>, StoreError>

/** What is missing or was changed, and rows and checkpoints where none may stand. Any role that may select can ask. */
export const inspect = (names: Names, query: Query): Effect.Effect<ReadonlyArray<Problem>, StoreError> => {
  const events = [names.schema, `${names.prefix}events`]
  const created = migrations.create(names)
  return Effect.map(
    Effect.all([
      query(functions, [names.schema]),
      query(triggers, events),
      query(constraints, events),
      query(indices, events),
      query(
        `${misplacedStatement(names, (column) => `encode(${column}, 'hex')`)} UNION ALL ${misspannedStatement(names)}`,
        []
      )
    ]),
    ([functions, triggers, constraints, indices, misplaced]) =>
      [
        ...created.flatMap((text) => functionProblem(text, functions)),
        ...created.flatMap((text) => indexProblem(text, indices)),
        ...triggerProblems(names, triggers.find(([name]) => name === `${names.prefix}append_only`)),
        ...triggers.some((trigger) => trigger.slice(0, 4).join() === spanTrigger(names))
          ? []
          : ["the trigger that keeps the times of spans is missing, or was changed"],
        ...constraintProblems(
          created.find((text) => text.startsWith(`CREATE TABLE ${names.events} `))!,
          new Set(constraints.map(([definition]) => plain(definition)))
        ),
        ...misplaced.map(([what]) => what)
      ].map(problem)
  )
}

/** Joins the events table, whose schema and name are the first two parameters. */
export const ownTable = (oid: string, and = ""): string =>
  `pg_catalog.pg_class AS c ON c.oid = ${oid} JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace ` +
  `WHERE n.nspname = $1 AND c.relname = $2 ${and}`

const functions = `SELECT p.proname::text, p.prosrc, p.prosecdef::text, array_to_json(p.proconfig)::text ` +
  `FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = $1`
// whether it fires without a condition and for every column, and its function is the one beside the table
const triggers = `SELECT t.tgname::text, t.tgenabled::text, t.tgtype::text, p.proname::text, ` +
  `(t.tgqual IS NULL AND t.tgattr::text = '' AND p.pronamespace = c.relnamespace)::text ` +
  `FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid JOIN ${ownTable("t.tgrelid")}`
const constraints = `SELECT pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint AS k ` +
  `JOIN ${ownTable("k.conrelid", "AND k.convalidated")}`
const indices = `SELECT i.relname::text, pg_catalog.pg_get_indexdef(i.oid) FROM pg_catalog.pg_index AS x ` +
  `JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid ` +
  `JOIN ${ownTable("x.indrelid", "AND x.indisvalid AND x.indisready")}`

const functionProblem = (text: string, found: ReadonlyArray<StoredRow>): ReadonlyArray<string> => {
  const [, name, head = "", body] = /^CREATE FUNCTION \S+"(\w+)"\((.*?)AS \$\$(.*)\$\$$/s.exec(text) ?? []
  if (name === undefined) return []
  const settings = Array.from(
    head.matchAll(/\bSET (\w+) = (.+?)(?=\s+SET\b|\s*$)/gs),
    ([, setting, value]) => `${setting}=${value!.replaceAll("'", "")}`
  )
  const asMade = [name, body, String(head.includes("SECURITY DEFINER")), settings.toSorted().join()].join("\n")
  return found.some(([name, body, definer, set]) =>
      [name, body, definer, (JSON.parse(String(set ?? "[]")) as Array<string>).toSorted().join()].join("\n") === asMade
    )
    ? []
    : [`the function "${name}" is missing, or was changed`]
}

const indexProblem = (text: string, found: ReadonlyArray<StoredRow>): ReadonlyArray<string> => {
  const [, name, keys] = /^CREATE INDEX "(\w+)" ON \S+ (.*)$/s.exec(text) ?? []
  if (name === undefined) return []
  const definition = found.find(([other]) => other === name)?.[1]
  if (definition === undefined) return [`the index "${name}" is missing, or not valid`]
  const [, others] = /^CREATE INDEX .* USING btree (.*)$/s.exec(String(definition)) ?? []
  return plain(others) === plain(keys) ? [] : [`the index "${name}" was changed`]
}

/** BEFORE, for each statement, DELETE, UPDATE and TRUNCATE, as the catalogue writes it. */
const guardType = 2 + 8 + 16 + 32

/** AFTER, for each row, INSERT. What its condition lets by is seen by the spans that are missing. */
const spanTrigger = ({ prefix }: Names): string => [`${prefix}span`, "A", 1 + 4, `${prefix}span`].join()

const triggerProblems = (names: Names, guard: StoredRow | undefined): ReadonlyArray<string> => {
  if (guard === undefined) return ["the trigger that refuses changes is missing"]
  const [, enabled, type, calls, always] = guard
  return [
    ...enabled === "A" ? [] : ["the trigger that refuses changes is not ENABLE ALWAYS"],
    ...Number(type) === guardType && calls === `${names.prefix}refuse` && always === "true"
      ? []
      : ["the trigger that refuses changes was changed"]
  ]
}

const constraintProblems = (table: string, found: ReadonlySet<string>): ReadonlyArray<string> => {
  const checks = Array.from(
    table.matchAll(/CHECK \((.*)\)(?: NOT NULL)?(?: UNIQUE)?,?$/gm),
    ([, check]) => plain(`CHECK ${check!.replace(/(\S+) BETWEEN (\S+) AND (\S+)/, "$1 >= $2 AND $1 <= $3")}`)
  )
  const missing = checks.filter((check) => !found.has(check)).length
  return [
    ...found.has(plain("PRIMARY KEY (offset)")) ? [] : ["the primary key is missing, or was changed"],
    ...found.has(plain("UNIQUE (id)")) ? [] : ["the unique constraint of the id is missing, or was changed"],
    ...missing === 0 ? [] : [`${missing} of ${checks.length} check constraints are missing, or were changed`]
  ]
}

/** Without what a server adds when it prints an expression, in which its versions differ: parentheses, quotes and casts. */
const plain = (definition: unknown): string => String(definition).replaceAll(/::\w+|[\s()'"]/g, "")

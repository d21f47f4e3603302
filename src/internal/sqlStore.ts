/** What the SQL of both databases has in common: names, columns, and the queries that read a page. */
import { IncompatibleStore, StoreFailure } from "../LedgerError.js"
import type {
  AppendGroup,
  GroupResult,
  Head,
  Outcome,
  Page,
  PageRequest,
  Problem,
  Row,
  StoreCondition,
  StoredRow,
  StoreFilter
} from "../LedgerStore.js"

/** The identifiers of one ledger, ready to stand in SQL. */
export interface Names {
  readonly prefix: string
  readonly schema: string | undefined
  readonly events: string
  readonly meta: string
  readonly spans: string
  readonly view: string
  /** Quotes one of this ledger's identifiers, with its schema where there is one. */
  readonly of: (suffix: string) => string
}

/** `undefined` when the prefix (or schema) cannot stand in an identifier. */
export const names = (prefix: string, schema?: string): Names | undefined => {
  if (!identifier.test(prefix) || (schema !== undefined && !identifier.test(schema))) return undefined
  const of = (suffix: string) => `${schema === undefined ? "" : `"${schema}".`}"${prefix}${suffix}"`
  return { prefix, schema, events: of("events"), meta: of("meta"), spans: of("spans"), view: of("view"), of }
}

const identifier = /^[a-z_][a-z0-9_]{0,39}$/

/** Why {@link names} refuses. */
export const badName =
  "a prefix or schema is 1 to 40 lowercase letters, digits and underscores, and does not begin with a digit"

/** The row that says which history this is. Without it nothing can be said of the ledger, not even that it is empty. */
export const setUpRow = (row: StoredRow | undefined): StoredRow => {
  if (row === undefined) {
    throw new StoreFailure({
      method: "read",
      cause: new Error("the ledger's set-up record is missing"),
      advice: "restore it from a backup"
    })
  }
  return row
}

/** The lineage that a set-up row holds. */
export const lineageOf = (text: unknown): ReadonlyArray<Head> => JSON.parse(String(text)) as ReadonlyArray<Head>

/** The lineage of who goes on from this head. */
export const lineageFrom = (head: Head, lineage: ReadonlyArray<Head>): ReadonlyArray<Head> => [head, ...lineage]

/** Rows that no reader sees, and checkpoints in this log at events that are not there. `hex` writes a digest as digits. */
export const misplacedStatement = (names: Names, hex: (column: string) => string): string =>
  `SELECT 'a row stands at the offset ' || "offset" FROM ${names.events} WHERE "offset" < 1` +
  ([["consumers", "consumer"], ["projections", "projection"]] as const).map(([table, what]) =>
    ` UNION ALL SELECT 'the ${what} ' || c.name || ' has a checkpoint at another event than stands at ' || c."offset" ` +
    `FROM ${names.of(table)} AS c JOIN ${names.meta} AS m ON m.incarnation = c.incarnation ` +
    `WHERE c."offset" > 0 AND c.digest IS NOT NULL AND NOT EXISTS (` +
    `SELECT 1 FROM ${names.events} AS e WHERE e."offset" = c."offset" AND ${hex("e.digest")} = c.digest)`
  ).join("")

/** The spans that do not say what their events do, and those that are missing. */
export const misspannedStatement = (names: Names): string =>
  `SELECT 'the times of the span that ends at ' || s.through || ' are not those of its events' FROM ${names.spans} AS s ` +
  `WHERE NOT EXISTS (SELECT 1 FROM (SELECT min(created_at) AS earliest, max(created_at) AS latest FROM ${names.events} ` +
  `WHERE "offset" > s.through - ${spanRows} AND "offset" <= s.through) AS e ` +
  `WHERE e.earliest = s.earliest AND e.latest = s.latest) ` +
  `UNION ALL SELECT 'a span is missing, so that reads by time take long' FROM (SELECT count(DISTINCT through) AS spans ` +
  `FROM ${names.spans}) AS s WHERE s.spans < (SELECT coalesce(max("offset"), 0) / ${spanRows} FROM ${names.events})`

/** A problem that stands at no offset. */
export const problem = (what: unknown): Problem => ({ offset: null, what: String(what) })

/** What is found, and what is not supported, where a set-up has another version. */
export const otherVersion = (found: number, supported: number): IncompatibleStore =>
  new IncompatibleStore({
    found: `a ledger of ${Number.isNaN(found) ? "an unknown set-up version" : `set-up version ${found}`}`,
    supported: `set-up version ${supported}: use a release of effect-ledger that knows the other`
  })

/** Where a ledger was to be opened and not made. */
export const noLedger = ({ prefix, schema }: Names): StoreFailure =>
  new StoreFailure({
    method: "open",
    cause: new Error(
      `there is no ledger with the prefix ${prefix}${schema === undefined ? "" : ` in schema ${schema}`}`
    )
  })

/** The columns of a stored row, in the order of `StoredRow`. */
export const columns =
  `"offset", id, run_id, turn, kind, actor, payload, created_at, schema_version, session_id, model_profile, model_id`

/** A statement, and the values of its parameters. */
export interface Statement {
  readonly text: string
  readonly params: ReadonlyArray<unknown>
}

interface Range {
  readonly after: number
  readonly through: number
}

/** A statement, and the range of offsets that it looks at: without `skip` it is known, and with it, it begins `at`. */
interface PageStatement extends Statement {
  readonly range: (at: number) => Range
  readonly order: string
  /** Where it is worth beginning, as a table `skip` with one row `at`. */
  readonly skip: Statement | undefined
  /** It is made of branches, so that asking twice would cost twice. */
  readonly merged: boolean
  /** Where the head's row is to say whether a payload may be large: no rows need not mean that it is. */
  readonly within: Range | undefined
}

/**
 * The statement that reads a page. A filter whose arrays have several members becomes one keyset branch for each member,
 * merged by offset: `IN (…) ORDER BY` would sort everything that matches. A filter that no index answers alone looks at
 * a bounded range of offsets, so that no statement runs for as long as the ledger is large; where each filter has a time,
 * the range begins where one of those times may be. If only `small` ones are wanted, there are no rows where a payload
 * within the range is large.
 */
const pageStatement = (names: Names, request: PageRequest, dialect: Dialect, small: boolean): PageStatement => {
  const table = names.events
  const params = new Params(dialect)
  const bind = (value: unknown): string => params.bind(value)
  const branches = request.filters.flatMap(expand)
  const isBounded = branches.length > maxBranches || !branches.every(isSelective)
  const skip = isBounded && request.filters.every(isTimed) ? skipStatement(names, request, params) : undefined
  const span = skip !== undefined ? 2 * spanRows : isBounded ? scanSpan : Number.MAX_SAFE_INTEGER
  const range = request.backward
    ? (at: number) => ({ after: Math.max(request.after, at - span), through: at })
    : (at: number) => ({ after: at, through: Math.min(request.through, at + span) })
  const { after, through } = range(request.backward ? request.through : request.after)
  const order = `ORDER BY "offset" ${request.backward ? "DESC" : "ASC"}`
  // without a filter every offset is there, so that the limit is the bound; as a range with two ends it would be taken
  // for a small one by a planner without statistics, which then sorts all of it for every page
  const dense = branches.length === 0
  const limit = dense ? Math.max(0, Math.min(request.limit, through - after)) : request.limit
  const at = "(SELECT at FROM skip)"
  const within = () =>
    dense
      ? request.backward ? `"offset" <= ${bind(through)}` : `"offset" > ${bind(after)}`
      : skip === undefined
      ? `"offset" > ${bind(after)} AND "offset" <= ${bind(through)}`
      : request.backward
      ? `"offset" <= ${at} AND "offset" > ${at} - ${span} AND "offset" > ${bind(request.after)}`
      : `"offset" > ${at} AND "offset" <= ${at} + ${span} AND "offset" <= ${bind(request.through)}`
  const any = (filters: ReadonlyArray<StoreFilter>) =>
    balanced(filters.map((filter) => `(${predicate(filter, params)})`))
  // backwards the head may be anywhere below `through`
  const looked = skip !== undefined
    ? request
    : dense && !request.backward
    ? { after, through: after + limit }
    : { after, through }
  const gate = () => small ? `NOT ${hasLarge(names, looked, dialect, bind)} AND ` : ""
  const merged = branches.length > 1 && branches.length <= maxBranches
  const rows = merged
    ? `SELECT ${columns} FROM ${table} WHERE ${gate()}"offset" IN (SELECT "offset" FROM (${
      branches.map((branch, index) =>
        `SELECT "offset" FROM (SELECT "offset" FROM ${table} WHERE ${
          predicate(branch, params)
        } AND ${within()} ${order} LIMIT ${bind(limit)}) AS b${index}`
      ).join(" UNION ")
    }) AS u ${order} LIMIT ${bind(limit)}) ${order}`
    : dialect.limited(
      `SELECT ${columns} FROM ${table} WHERE ${gate()}${
        branches.length === 0 ? "" : `(${any(branches.length > 1 ? request.filters : branches)}) AND `
      }${within()} ${order}`,
      limit,
      bind(limit)
    )
  return {
    text: rows,
    params: params.values.slice(skip?.params.length),
    range,
    order,
    skip,
    merged,
    within: small && !dense ? looked : undefined
  }
}

/** Whether a payload within the range is large, asked of the index of those, whose offsets are negative. */
const hasLarge = ({ events }: Names, { after, through }: Range, dialect: Dialect, bind: (value: unknown) => string) =>
  `EXISTS (SELECT 1 FROM ${events} WHERE ${dialect.isLarge} AND -"offset" < ${bind(-after)} AND -"offset" >= ${
    bind(-through)
  })`

const isTimed = (filter: StoreFilter): boolean => filter.createdFrom !== undefined || filter.createdUntil !== undefined

/**
 * Where the first span begins that may hold what is asked for, and is not before the request; backwards, where the last
 * one ends. Beyond the last span nothing is known, and where one is missing nothing is skipped.
 */
const skipStatement = (names: Names, { after, backward, filters, through }: PageRequest, params: Params): Statement => {
  const from = params.bind(backward ? through : after)
  const mayHold = () =>
    balanced(filters.map(({ createdFrom, createdUntil }) =>
      [
        ...createdFrom === undefined ? [] : [`latest >= ${params.bind(createdFrom)}`],
        ...createdUntil === undefined ? [] : [`earliest < ${params.bind(createdUntil)}`]
      ].join(" AND ")
    ))
  const found = backward
    ? `CASE WHEN max(through) < ${params.bind(through)} THEN NULL ELSE coalesce(max(through) FILTER (WHERE through < ` +
      `${params.bind(through + spanRows)} AND (${mayHold()})), 0) END`
    : `coalesce(min(through - ${spanRows}) FILTER (WHERE through > ${
      params.bind(after)
    } AND (${mayHold()})), max(through))`
  const text = `SELECT ${backward ? "min" : "max"}(at) AS at FROM (SELECT CAST(${from} AS bigint) AS at UNION ALL ` +
    `SELECT CASE WHEN count(DISTINCT through) * ${spanRows} = max(through) THEN ${found} END FROM ${names.spans}) AS s`
  return { text, params: params.values.slice() }
}

/** Reads a page: yields statements until it has the rows of one that answers it. */
export type Pages = (request: PageRequest) => Generator<Statement, Page, ReadonlyArray<StoredRow>>

/**
 * A page is cut where its payloads reach {@link pageBytes}; the last row may go over, so that there is always one. To add
 * up their sizes costs as much as a tenth to a third of a read, so that it is not done before a large payload was met.
 */
export const pages = (names: Names, dialect: Dialect): Pages => {
  let metLarge = false
  return function*(request) {
    if (!metLarge && request.limit <= largestPage) {
      const statement = pageStatement(names, request, dialect, true)
      const rows = yield withHead(names, request, dialect, statement, statement.text, 1)
      if (!isRefused(request, rows)) return toPage(request, statement, rows)
      metLarge = true
    }
    const statement = pageStatement(names, request, dialect, false)
    const { merged, order, text } = statement
    // it is made of branches, so that asking twice would cost twice
    if (!merged) {
      const whole =
        `SELECT * FROM (${text}) AS p WHERE (SELECT sum(octet_length(payload)) FROM (${text}) AS s) < ${pageBytes}`
      const page = toPage(request, statement, yield withHead(names, request, dialect, statement, whole, 2))
      if (page.rows.length > 0 || isEmpty(request, page.head)) return page
    }
    const cut =
      `SELECT ${columns} FROM (SELECT p.*, sum(octet_length(payload)) OVER (${order}) - octet_length(payload) ` +
      `AS before FROM (${text}) AS p) AS q WHERE before < ${pageBytes} ${order}`
    return toPage(request, statement, yield withHead(names, request, dialect, statement, cut, 1))
  }
}

/** With one row more, so that the head is that of the rows' own snapshot. */
const withHead = (
  names: Names,
  request: PageRequest,
  dialect: Dialect,
  { params, skip, within }: PageStatement,
  rows: string,
  times: number
): Statement => {
  const before = skip?.params ?? []
  const own: Array<unknown> = []
  const bind = (value: unknown): string => dialect.placeholder(before.length + params.length + own.push(value))
  const { events, meta } = names
  const head = `SELECT CAST(0 AS bigint) AS "offset", incarnation, ` +
    `CAST((SELECT "offset" FROM ${events} ORDER BY "offset" DESC LIMIT 1) AS text), NULL, ` +
    `(SELECT ${dialect.hex("digest")} FROM ${events} WHERE "offset" = ${bind(request.after)}), ` +
    `${skip === undefined ? "NULL" : "CAST((SELECT at FROM skip) AS text)"}, ` +
    `${within === undefined ? "NULL" : `CASE WHEN ${hasLarge(names, within, dialect, bind)} THEN 'large' END`}, ` +
    `${Array.from({ length: 5 }, () => "NULL").join(", ")} FROM ${meta}`
  return {
    text: `${skip === undefined ? "" : `WITH skip AS MATERIALIZED (${skip.text}) `}${head} ` +
      `UNION ALL SELECT * FROM (${rows}) AS page`,
    params: dialect.isPositional
      ? [...before, ...own, ...Array.from({ length: times }, () => params).flat()]
      : [...before, ...params, ...own]
  }
}

/** Whether there are no rows because one of their payloads may be large. */
const isRefused = (request: PageRequest, rows: ReadonlyArray<StoredRow>): boolean => {
  const [, , head, , , , large] = setUpRow(rows[0])
  return rows.length === 1 && (request.filters.length === 0 ? !isEmpty(request, Number(head ?? 0)) : large !== null)
}

/** Whether the request's range of offsets holds none. */
const isEmpty = ({ after, through }: PageRequest, head: number): boolean => after >= Math.min(through, head)

const toPage = (request: PageRequest, statement: PageStatement, all: ReadonlyArray<StoredRow>): Page => {
  // wherever the database puts it
  const place = all.findIndex((row) => Number(row[0]) === 0)
  const [, incarnation, last, , digest, at] = setUpRow(all[place])
  const head = Number(last ?? 0)
  const range = statement.range(Number(at ?? (request.backward ? request.through : request.after)))
  const rows = trimmed(range, all.toSpliced(place, 1))
  return {
    incarnation: String(incarnation),
    head,
    digest: digest as string | null,
    rows,
    next: nextOf(request, range, rows, head)
  }
}

/** Without the rows at the end that a hole has let in. */
const trimmed = (range: Range, rows: Array<StoredRow>): Array<StoredRow> => {
  const isBeyond = ([offset]: StoredRow) => Number(offset) <= range.after || Number(offset) > range.through
  while (rows.length > 0 && isBeyond(rows[rows.length - 1]!)) rows.pop()
  return rows
}

/** Where to go on after a page, see `Page.next`. */
const nextOf = (
  request: PageRequest,
  range: Range,
  rows: ReadonlyArray<StoredRow>,
  head: number
): number | null => {
  const cut = rows.length >= request.limit || payloadLength(rows) * 3 >= pageBytes
  const last = cut ? Number(rows[rows.length - 1]![0]) : request.backward ? range.after + 1 : range.through
  return (request.backward ? last <= request.after + 1 : last >= Math.min(request.through, head)) ? null : last
}

// SQLite takes expressions up to 1,000 levels deep, and every OR of a chain is one
const balanced = (terms: ReadonlyArray<string>): string =>
  terms.length <= maxBranches
    ? terms.join(" OR ")
    : `(${balanced(terms.slice(0, terms.length >> 1))}) OR (${balanced(terms.slice(terms.length >> 1))})`

/** How a database writes the place of a parameter, and "is one of" a parameter that holds them all. */
export interface Dialect {
  /** Placeholders are taken in the order of the text, and none twice. */
  readonly isPositional: boolean
  /** The bytes of a column in hexadecimal digits. */
  readonly hex: (column: string) => string
  readonly placeholder: (number: number) => string
  readonly oneOf: (column: string, placeholder: string) => string
  readonly list: (members: ReadonlyArray<string>) => unknown
  /** The first rows of a query, so many as the placeholder says. */
  readonly limited: (rows: string, limit: number, placeholder: string) => string
  /** What is true of a payload of more than {@link largeBytes}, as the index of those has it. */
  readonly isLarge: string
}

/** The parameters of a statement, as its text is written. */
export class Params {
  readonly values: Array<unknown> = []
  constructor(readonly dialect: Dialect) {}
  bind(value: unknown): string {
    return this.dialect.placeholder(this.values.push(value))
  }
}

/** A filter as SQL, `true` when it is empty. */
export const predicate = (filter: StoreFilter, params: Params): string => {
  const { dialect } = params
  const terms: Array<string> = []
  const oneOf = (column: string, members: ReadonlyArray<string> | undefined) => {
    if (members === undefined) return
    // as one parameter, as a statement takes only so many
    terms.push(
      members.length === 1
        ? `${column} = ${params.bind(members[0])}`
        : dialect.oneOf(column, params.bind(dialect.list(members)))
    )
  }
  oneOf("run_id", filter.runId === undefined ? undefined : [filter.runId])
  for (const [key, column] of arrays) oneOf(column, filter[key])
  if (filter.createdFrom !== undefined) terms.push(`created_at >= ${params.bind(filter.createdFrom)}`)
  if (filter.createdUntil !== undefined) terms.push(`created_at < ${params.bind(filter.createdUntil)}`)
  return terms.length === 0 ? "true" : terms.join(" AND ")
}

/** The array fields and their columns, the most selective first. */
export const arrays = [
  ["sessionIds", "session_id"],
  ["modelIds", "model_id"],
  ["actors", "actor"],
  ["kinds", "kind"]
] as const

/** How many bytes of payload make a page, and how many rows can not be as many unless one of them is large. */
const pageBytes = 2 ** 23
const largestPage = 1000
export const largeBytes = Math.floor(pageBytes / largestPage)
const scanSpan = 50_000

/** How many events make a span, of which the earliest and the latest time are kept. */
export const spanRows = 4096
/** How many selects one statement may combine: SQLite takes 500. */
export const maxBranches = 50

/** One branch for each member of the filter's most selective array: each is one range of one index. */
export const expand = (filter: StoreFilter): ReadonlyArray<StoreFilter> => {
  if (filter.runId !== undefined) return [filter]
  const key = arrays.map(([field]) => field).find((field) => filter[field] !== undefined)
  return key === undefined ? [filter] : filter[key]!.map((member) => Object.assign({}, filter, { [key]: [member] }))
}

// whether an index finds the rows of a branch without passing over many others
const isSelective = (branch: StoreFilter): boolean =>
  branch.runId !== undefined || branch.sessionIds !== undefined || branch.modelIds !== undefined ||
  (Object.keys(branch).length === 1 && (branch.actors !== undefined || branch.kinds !== undefined))

/** In UTF-16 units: a third of the bytes at least. */
const payloadLength = (rows: ReadonlyArray<StoredRow>): number => {
  let length = 0
  for (const row of rows) length += String(row[6]).length
  return length
}

/** Rows with distinct ids, of one or more groups, that are written together. */
export interface Call {
  readonly rows: ReadonlyArray<Row>
  readonly condition: StoreCondition | undefined
}

/**
 * Groups without a condition are written together by calls that are bounded in rows and in the length of their payloads,
 * no id twice in one. A group with a condition is one call, as the condition is about all of its events.
 */
export const callsOf = (
  groups: ReadonlyArray<AppendGroup>,
  maxRows = Number.MAX_SAFE_INTEGER,
  maxLength = Number.MAX_SAFE_INTEGER
): ReadonlyArray<Call> => {
  const calls: Array<Call> = []
  let rows: Array<Row> = []
  let ids = new Set<string>()
  let length = 0
  const flush = () => {
    if (rows.length > 0) calls.push({ rows, condition: undefined })
    rows = []
    ids = new Set()
    length = 0
  }
  for (const group of groups) {
    if (group.condition !== undefined) {
      flush()
      calls.push(group)
      continue
    }
    for (const row of group.rows) {
      if (ids.has(row.id) || rows.length >= maxRows || length + row.payload.length > maxLength) flush()
      rows.push(row)
      ids.add(row.id)
      length += row.payload.length
    }
  }
  flush()
  return calls
}

/** The results of the groups, from the outcomes of their rows, or the offset that refused a row's group. */
export const resultsOf = (
  groups: ReadonlyArray<AppendGroup>,
  outcomes: ReadonlyArray<Outcome | number>
): ReadonlyArray<GroupResult> => {
  let start = 0
  return groups.map((group) => {
    const own = outcomes.slice(start, start += group.rows.length)
    const refused = own[0]!
    return typeof refused === "number"
      ? { _tag: "Refused", offset: refused }
      : { _tag: "Written", outcomes: own as ReadonlyArray<Outcome> }
  })
}

export const hasAppended = (result: GroupResult): boolean =>
  result._tag === "Written" && result.outcomes.some(({ status }) => status === "appended")

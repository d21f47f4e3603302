/** The Postgres set-up, by version. A changed function gets a new version, and so a new name. */
import { maxInt, maxTime, minTime } from "../fields.js"
import { largeBytes, type Names, spanRows } from "../sqlStore.js"

export const version = 4

/** The advisory lock of whoever sets something up in a database. */
export const setUpLock = "7308906542197"

/** The functions that append, a batch and one event alone, by the version of the set-up that made them. */
export const appendFunction = (names: Names): string => names.of(`append_v${version}`)
export const appendOneFunction = (names: Names): string => names.of(`append_v${version}_one`)

export const create = (names: Names): ReadonlyArray<string> => {
  const { events, meta } = names
  const text = (column: string, max: number) =>
    `${column} text COLLATE "C" CHECK (length(${column}) BETWEEN 1 AND ${max})`
  const index = (name: string, column: string, where = "") =>
    `CREATE INDEX "${names.prefix}${name}" ON ${events} (${column}, "offset")${where}`
  return [
    `CREATE TABLE ${meta} (
  one int4 PRIMARY KEY CHECK (one = 1),
  version int4 NOT NULL,
  incarnation text COLLATE "C" NOT NULL,
  lineage text COLLATE "C" NOT NULL DEFAULT '[]'
)`,
    // empty: appends lock it, so that the lock needs a privilege and nobody else's query waits
    `CREATE TABLE ${names.of("lock")} ()`,
    `CREATE TABLE ${events} (
  "offset" int8 PRIMARY KEY CHECK ("offset" > 0),
  ${text("id", 64)} NOT NULL UNIQUE,
  ${text("run_id", 255)} NOT NULL,
  turn int4 NOT NULL CHECK (turn BETWEEN 0 AND ${maxInt}),
  kind text COLLATE "C" NOT NULL CHECK (length(kind) <= 255 AND kind ~ '^[a-z][a-z0-9]*(\\.[a-z][a-z0-9]*)+$' AND kind !~ '\\n'),
  ${text("actor", 255)} NOT NULL,
  payload text COLLATE "C" NOT NULL CHECK (json_typeof(payload::json) = 'object'),
  created_at int8 NOT NULL CHECK (created_at BETWEEN ${minTime} AND ${maxTime}),
  schema_version int4 NOT NULL CHECK (schema_version BETWEEN 1 AND ${maxInt}),
  ${text("session_id", 255)},
  ${text("model_profile", 255)},
  ${text("model_id", 255)},
  digest bytea NOT NULL CHECK (length(digest) = 32)
) WITH (
  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
  autovacuum_analyze_scale_factor = 0.02, autovacuum_freeze_min_age = 0
)`,
    index("run", "run_id"),
    index("kind", "kind"),
    index("actor", "actor"),
    index("session", "session_id", " WHERE session_id IS NOT NULL"),
    index("model", "model_id", " WHERE model_id IS NOT NULL"),
    // negative, so that a range of it is asked of this index: the planner takes the few rows in it for a third of all
    `CREATE INDEX "${names.prefix}large" ON ${events} ((-"offset")) WHERE ${isLarge}`,
    `CREATE VIEW ${names.view} AS SELECT
  "offset", id, run_id, turn, kind, actor, payload::json AS payload, to_timestamp(created_at / 1000.0) AS created_at,
  schema_version, session_id, model_profile, model_id, encode(digest, 'hex') AS digest
FROM ${events}`,
    `CREATE FUNCTION ${names.of("refuse")}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'restrict_violation'; END $$`,
    `CREATE TRIGGER "${names.prefix}append_only" BEFORE UPDATE OR DELETE OR TRUNCATE ON ${events}
FOR EACH STATEMENT EXECUTE FUNCTION ${names.of("refuse")}()`,
    enableGuard(names),
    // the times of so many events, for reads by time: an index would cost SQLite a quarter of a batch; no key,
    // as a restore of the data alone brings the rows that the trigger has made
    `CREATE TABLE ${names.spans} (through int8 NOT NULL, earliest int8 NOT NULL, latest int8 NOT NULL)`,
    `CREATE FUNCTION ${names.of("span")}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO ${names.spans} SELECT NEW."offset", min(created_at), max(created_at) FROM ${events}
  WHERE "offset" > NEW."offset" - ${spanRows} AND "offset" <= NEW."offset";
  RETURN NULL;
END $$`,
    `CREATE TRIGGER "${names.prefix}span" AFTER INSERT ON ${events} FOR EACH ROW WHEN (NEW."offset" % ${spanRows} = 0)
EXECUTE FUNCTION ${names.of("span")}()`,
    `ALTER TABLE ${events} ENABLE ALWAYS TRIGGER "${names.prefix}span"`,
    append(names),
    appendOne(names),
    `REVOKE EXECUTE ON FUNCTION ${appendFunction(names)}, ${appendOneFunction(names)} FROM PUBLIC`,
    // what readers keep: written again and again, so that there is room for it beside the old version of a row
    `CREATE TABLE ${names.of("consumers")} (
  name text COLLATE "C" NOT NULL,
  part int4 NOT NULL,
  parts int4 NOT NULL,
  incarnation text COLLATE "C",
  "offset" int8 NOT NULL,
  digest text COLLATE "C",
  token int8 NOT NULL,
  holder text COLLATE "C",
  expires_at int8 NOT NULL,
  PRIMARY KEY (name, part)
) WITH (fillfactor = 50)`,
    `CREATE TABLE ${names.of("members")} (
  name text COLLATE "C" NOT NULL,
  member text COLLATE "C" NOT NULL,
  expires_at int8 NOT NULL,
  PRIMARY KEY (name, member)
) WITH (fillfactor = 50)`,
    `CREATE TABLE ${names.of("dead_letters")} (
  name text COLLATE "C" NOT NULL,
  "offset" int8 NOT NULL,
  reason text COLLATE "C" NOT NULL,
  attempts int4 NOT NULL,
  failed_at int8 NOT NULL,
  PRIMARY KEY (name, "offset")
)`,
    `CREATE TABLE ${names.of("projections")} (
  name text COLLATE "C" NOT NULL,
  version int4 NOT NULL,
  complete int4 NOT NULL,
  incarnation text COLLATE "C" NOT NULL,
  "offset" int8 NOT NULL,
  digest text COLLATE "C",
  state text COLLATE "C" NOT NULL,
  PRIMARY KEY (name, version)
) WITH (fillfactor = 50)`
  ]
}

export const isLarge = `octet_length(payload) > ${largeBytes}`

export const enableGuard = (names: Names): string =>
  `ALTER TABLE ${names.events} ENABLE ALWAYS TRIGGER "${names.prefix}append_only"`

export const disableGuard = (names: Names): string =>
  `ALTER TABLE ${names.events} DISABLE TRIGGER "${names.prefix}append_only"`

/**
 * Appends a batch of rows with distinct ids, given as arrays of their columns. Answers JSON text: `last` is the last
 * offset before the batch, where something was appended; `known` lists the rows that were recorded already as
 * `[place, offset, same content]` (places from 1); `conflict` is the offset that refused the condition.
 *
 * The lock comes first and everything that is looked at comes in later statements, whose snapshots see what the previous
 * holder committed. Unless told to look first, it inserts at once, as a lookup is a sixth of what an event costs. What is
 * known is probed row by row, with sequential scans off: a join decays to a scan of the table
 * in sessions that live longer than its statistics. So no plan depends on the arrays, and each is made once a session:
 * to plan anew took a fifth of a single append. A condition is built with only the fields that it has. It runs with the
 * rights of its owner, so that a role that may call it needs no right to insert: no other row can be made by it.
 */
const append = (names: Names): string => {
  const { events } = names
  const insert = insertInto(events)
  return `CREATE FUNCTION ${appendFunction(names)}(
  ids text[], run_ids text[], turns int4[], kinds text[], actors text[], payloads text[], times int8[],
  schema_versions int4[], session_ids text[], model_profiles text[], model_ids text[], digests bytea[],
  condition json, commits text, lock_millis int4, channel text, look_first boolean
) ${attributes} AS $$
DECLARE
  last int8;
  places int8[];
  offsets int8[];
  same boolean[];
  filter json;
  field record;
  member text;
  terms text;
  driver text;
  members text[];
  conflict int8;
  found int8;
BEGIN
  ${locked(names)}
  -- nearly always nothing is known, and the insert finds that out by itself
  IF condition IS NULL AND NOT look_first THEN
    SELECT e."offset" INTO last FROM ${events} AS e ORDER BY e."offset" DESC LIMIT 1;
    last := coalesce(last, 0);
    BEGIN
      ${insert}
      SELECT last + u.place, ${given} FROM ${unnested};
      IF channel IS NOT NULL THEN
        PERFORM pg_notify(channel, 'appended');
      END IF;
      RETURN '{"last":' || last || '}';
    EXCEPTION WHEN unique_violation THEN
      -- one of them is, and none is written
    END;
  END IF;
  SELECT array_agg(p.place ORDER BY p.place), array_agg(p.known ORDER BY p.place) INTO places, offsets
  FROM (
    SELECT u.place, (SELECT e."offset" FROM ${events} AS e WHERE e.id = u.id) AS known
    FROM unnest(ids) WITH ORDINALITY AS u(id, place)
  ) AS p WHERE p.known IS NOT NULL;
  IF places IS NOT NULL THEN
    SELECT array_agg((SELECT ${sameAs((column) => `u.${column}`)} FROM ${events} AS e WHERE e."offset" = k.known)
      ORDER BY u.place) INTO same
    FROM unnest(run_ids, turns, kinds, actors, payloads, schema_versions, session_ids, model_profiles, model_ids,
      digests) WITH ORDINALITY AS u(run_id, turn, kind, actor, payload, schema_version, session_id, model_profile,
      model_id, digest, place)
    JOIN unnest(places, offsets) AS k(place, known) ON k.place = u.place;
  END IF;

  IF coalesce(cardinality(places), 0) < cardinality(ids) THEN
    SELECT e."offset" INTO last FROM ${events} AS e ORDER BY e."offset" DESC LIMIT 1;
    last := coalesce(last, 0);

    IF condition IS NOT NULL THEN
      IF (condition->>'after')::int8 > last THEN
        RETURN json_build_object('conflict', last);
      END IF;
      FOR filter IN SELECT * FROM json_array_elements(condition->'noneMatch') LOOP
        terms := format(' AND e."offset" > %s', (condition->>'after')::int8);
        IF places IS NOT NULL THEN
          terms := terms || format(' AND e."offset" <> ALL (%L::int8[])',
            ARRAY(SELECT k.known FROM unnest(offsets, same) AS k(known, same) WHERE k.same));
        END IF;
        IF filter->>'createdFrom' IS NOT NULL THEN
          terms := terms || format(' AND e.created_at >= %s', (filter->>'createdFrom')::int8);
        END IF;
        IF filter->>'createdUntil' IS NOT NULL THEN
          terms := terms || format(' AND e.created_at < %s', (filter->>'createdUntil')::int8);
        END IF;
        driver := NULL;
        members := ARRAY[NULL]::text[];
        IF filter->>'runId' IS NOT NULL THEN
          driver := 'run_id';
          members := ARRAY[filter->>'runId'];
        END IF;
        FOR field IN SELECT * FROM (VALUES
          (1, 'sessionIds', 'session_id'), (2, 'modelIds', 'model_id'), (3, 'actors', 'actor'), (4, 'kinds', 'kind')
        ) AS f(n, name, col) WHERE filter->f.name IS NOT NULL ORDER BY f.n LOOP
          IF driver IS NULL THEN
            driver := field.col;
            members := ARRAY(SELECT json_array_elements_text(filter->field.name));
          ELSE
            terms := terms || format(' AND e.%I = ANY (%L::text[])', field.col,
              ARRAY(SELECT json_array_elements_text(filter->field.name)));
          END IF;
        END LOOP;
        FOREACH member IN ARRAY members LOOP
          EXECUTE 'SELECT e."offset" FROM ${events} AS e WHERE true' ||
            CASE WHEN driver IS NULL THEN '' ELSE format(' AND e.%I = %L', driver, member) END ||
            terms || ' ORDER BY e."offset" LIMIT 1' INTO found;
          conflict := least(conflict, found);
        END LOOP;
      END LOOP;
      IF conflict IS NOT NULL THEN
        RETURN json_build_object('conflict', conflict);
      END IF;
    END IF;

    IF places IS NULL THEN
      ${insert}
      SELECT last + u.place, ${given} FROM ${unnested};
    ELSE
      ${insert}
      SELECT last + row_number() OVER (ORDER BY u.place), ${given} FROM ${unnested}
      WHERE NOT EXISTS (SELECT 1 FROM unnest(places) AS k(place) WHERE k.place = u.place);
    END IF;
    IF channel IS NOT NULL THEN
      PERFORM pg_notify(channel, 'appended');
    END IF;
  END IF;

  IF places IS NULL THEN
    RETURN '{"last":' || last || '}';
  END IF;
  RETURN json_build_object('last', last, 'known',
    (SELECT json_agg(json_build_array(k.place, k.known, k.same) ORDER BY k.place)
     FROM unnest(places, offsets, same) AS k(place, known, same)));
END $$`
}

/** One event alone, without arrays: a tenth of its time. Answers as the other does. */
const appendOne = (names: Names): string => {
  const { events } = names
  const given = (column: string) => `given_${column}`
  return `CREATE FUNCTION ${appendOneFunction(names)}(
  ${rowColumns.map(([column, type]) => `${given(column)} ${type}`).join(", ")},
  commits text, lock_millis int4, channel text
) ${attributes} AS $$
DECLARE
  known int8;
  same boolean;
  last int8;
BEGIN
  ${locked(names)}
  SELECT e."offset", ${sameAs(given)} INTO known, same FROM ${events} AS e WHERE e.id = given_id;
  IF known IS NOT NULL THEN
    RETURN '{"known":[[1,' || known || ',' || same || ']]}';
  END IF;
  SELECT e."offset" INTO last FROM ${events} AS e ORDER BY e."offset" DESC LIMIT 1;
  last := coalesce(last, 0);
  ${insertInto(events)}
  VALUES (last + 1, ${rowColumns.map(([column]) => given(column)).join(", ")});
  IF channel IS NOT NULL THEN
    PERFORM pg_notify(channel, 'appended');
  END IF;
  RETURN '{"last":' || last || '}';
END $$`
}

/** The columns of a row but its offset, in the order of the functions' parameters. */
const rowColumns = [
  ["id", "text"],
  ["run_id", "text"],
  ["turn", "int4"],
  ["kind", "text"],
  ["actor", "text"],
  ["payload", "text"],
  ["created_at", "int8"],
  ["schema_version", "int4"],
  ["session_id", "text"],
  ["model_profile", "text"],
  ["model_id", "text"],
  ["digest", "bytea"]
] as const

const insertInto = (events: string): string =>
  `INSERT INTO ${events} ("offset", ${rowColumns.map(([column]) => column).join(", ")})`

const attributes = `RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
SET lock_timeout = '10s'`

/** How both functions begin. */
const locked = (names: Names): string =>
  `IF commits = 'off' OR (commits = 'on' AND current_setting('synchronous_commit') = 'off') THEN
    PERFORM set_config('synchronous_commit', commits, true);
  END IF;
  -- an attribute of the function, so that the caller's setting is back when it returns
  IF lock_millis <> 10000 THEN
    PERFORM set_config('lock_timeout', lock_millis::text, true);
  END IF;
  LOCK TABLE ${names.of("lock")} IN EXCLUSIVE MODE;`

/** Whether a recorded row has the content that was given: it has where the digests are the same, which is soon seen. */
const sameAs = (given: (column: string) => string): string =>
  `e.digest = ${given("digest")} OR ` + [
    ...["run_id", "turn", "kind", "actor", "payload", "schema_version"].map((column) =>
      `e.${column} = ${given(column)}`
    ),
    ...["session_id", "model_profile", "model_id"].map((column) => `e.${column} IS NOT DISTINCT FROM ${given(column)}`)
  ].join(" AND ")

const given = `u.id, u.run_id, u.turn, u.kind, u.actor, u.payload, u.created_at, u.schema_version, u.session_id,
      u.model_profile, u.model_id, u.digest`

const unnested = `unnest(ids, run_ids, turns, kinds, actors, payloads, times, schema_versions, session_ids,
      model_profiles, model_ids, digests) WITH ORDINALITY AS u(id, run_id, turn, kind, actor, payload, created_at,
      schema_version, session_id, model_profile, model_id, digest, place)`

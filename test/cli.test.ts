/** The command line: the program itself, as a process, on real files and a real server. */
import { afterAll, beforeAll, describe, expect, inject, it } from "@effect/vitest"
import Sqlite from "better-sqlite3"
import { Effect, Fiber, Logger, LogLevel, Redacted, Schedule } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { Client } from "pg"
import { Consumer, type Event, Ledger, LedgerConfig } from "../src/index.js"
import { event, events } from "./contract/fixtures.js"
import { startOnTerminal, startScript } from "./support/processes.js"

const program = "../../src/cli/bin.ts"
const root = Fs.mkdtempSync(join(tmpdir(), "effect-ledger-cli-"))
const databaseUrl = inject("databaseUrl")
const schemas: Array<string> = []
let postgres: Client

beforeAll(async () => {
  postgres = new Client(databaseUrl)
  await postgres.connect()
})
afterAll(async () => {
  Fs.rmSync(root, { recursive: true, force: true })
  for (const schema of schemas) await postgres.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)
  await postgres.end()
})

interface Where {
  readonly url: string
  readonly schema?: string
}

const newFile = (): Where => ({ url: join(Fs.mkdtempSync(join(root, "t-")), "a.db") })
const newSchema = (): Where => {
  const schema = `cli_${randomBytes(4).toString("hex")}`
  schemas.push(schema)
  return { url: databaseUrl, schema }
}

const environment = ({ schema = "", url }: Partial<Where>): Record<string, string> => ({
  DATABASE_URL: url ?? "",
  LEDGER_SCHEMA: schema,
  LEDGER_PREFIX: "",
  LEDGER_DURABILITY: "",
  NO_COLOR: ""
})

const begin = (where: Partial<Where>, args: ReadonlyArray<string>, execArgv?: ReadonlyArray<string>) =>
  startScript(program, args, environment(where), execArgv)

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

const ended = async (starting: ReturnType<typeof begin>, input = ""): Promise<Ended> => {
  const child = await starting
  let out = ""
  let err = ""
  child.stdout!.setEncoding("utf8").on("data", (text) => out += text)
  child.stderr!.setEncoding("utf8").on("data", (text) => err += text)
  child.stdin!.on("error", () => {}).end(input)
  const [code] = await once(child, "close")
  return { code, out, err }
}

/** Runs the program to its end. */
const run = (where: Partial<Where>, ...args: ReadonlyArray<string>) => ended(begin(where, args))
const runWith = (input: string, where: Partial<Where>, ...args: ReadonlyArray<string>) =>
  ended(begin(where, args), input)

/** Runs it, expects success, and answers the JSON values that it printed. */
const json = async (where: Partial<Where>, ...args: ReadonlyArray<string>): Promise<ReadonlyArray<any>> => {
  const { code, err, out } = await run(where, ...args, "--json")
  expect({ code, err }).toEqual({ code: 0, err: "" })
  return out.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line))
}

/** Runs it as a user who owns nothing, where the tests are run by root. */
const runAsOther = (where: Partial<Where>, ...args: ReadonlyArray<string>) =>
  ended(startScript("ordinaryUser.ts", args, environment(where)))

/** Whether a program of the system is there. Where it is not, what needs it is skipped. */
const has = (name: string, version = /./): boolean =>
  version.test(spawnSync(name, ["--version"], { encoding: "utf8" }).stdout ?? "")

const within = <A, E>(
  { schema, url }: Where,
  effect: Effect.Effect<A, E, Effect.Effect.Context<typeof Consumer.status> | Ledger.Ledger>
) => Effect.runPromise(Effect.provide(effect, LedgerConfig.layerUrl(Redacted.make(url), { schema })))

const fill = (where: Where, held: ReadonlyArray<Event.Event>) => within(where, Ledger.appendAll(held))

const until = async (condition: () => boolean | Promise<boolean>): Promise<void> => {
  const deadline = Date.now() + 20_000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error("it did not come true")
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const three = [
  event("one", { runId: "run-1", kind: "run.started", actor: "ada", payload: { text: "begin\nhere" } }),
  event("two", { runId: "run-2", actor: "bo", modelId: "m-1", turn: 2, payload: { text: "hello", tone: "warm" } }),
  event("three", { runId: "run-1", actor: "cy", turn: 1, payload: { n: 3 } })
]

/** Answers what is asked on a terminal: what was shown, and the exit code. */
const answered = async (where: Where, args: ReadonlyArray<string>, question: string, answer: string) => {
  const child = await startOnTerminal(program, args, environment(where))
  let shown = ""
  child.stdout!.setEncoding("utf8").on("data", (text) => shown += text)
  await until(() => shown.includes(question))
  const closed = once(child, "close")
  child.stdin!.write(answer)
  const [code] = await closed
  return { code, shown: shown.slice(shown.lastIndexOf(question)) }
}

describe.each([["SQLite", newFile], ["Postgres", newSchema]] as const)("on %s", (backend, newWhere) => {
  it("append: once, whatever is repeated, and never silently otherwise", async () => {
    const where = newWhere()
    const one = ["append", "--run", "r", "--kind", "agent.spoke", "--actor", "ada", "--id", "one"]
    expect(await json(where, ...one, "--text", "hi", "--at", "2026-01-01T00:00:00+02:00"))
      .toEqual([{ status: "appended", id: "one", offset: 1 }])
    expect(await run(where, ...one, "--text", "hi")).toEqual({ code: 0, out: "already recorded #1 one\n", err: "" })
    const other = await run(where, ...one, "--payload", "{\"text\":\"ho\"}")
    expect(other.code).toBe(1)
    expect(other.err).toContain("recorded with other content, at #1")
    const [line] = await json(where, "tail")
    expect(line).toMatchObject({ offset: 1, created_at: "2025-12-31T22:00:00.000Z", payload: { text: "hi" } })

    const lines = [line, { ...line, offset: undefined, digest: undefined, id: "two" }].map((line) =>
      JSON.stringify(line)
    )
    expect(await runWith(lines.join("\n"), where, "append"))
      .toEqual({ code: 0, out: "1 appended, 1 duplicate, 0 divergent, 0 invalid\n", err: "" })
    const damaged = await runWith(`${lines[1]!.replace("two", "three")}\n{`, where, "append")
    expect(damaged.code).toBe(1)
    expect(damaged.err).toContain("line 2: ")
    expect((await json(where, "info"))[0]).toMatchObject({ head: 3 })
  })

  it("info, runs, show and tail tell what is there", async () => {
    const where = newWhere()
    await fill(where, three)
    const [[info], runs, twoRuns, told, table] = await Promise.all([
      json(where, "info"),
      json(where, "runs"),
      json(where, "runs", "--kind", "run.started"),
      run(where, "info"),
      run(where, "runs")
    ])
    expect(info).toMatchObject({
      backend: backend.toLowerCase(),
      prefix: "ledger_",
      schema: where.schema ?? null,
      head: 3,
      runs: 2,
      durability: "full",
      set_up_version: backend === "Postgres" ? 4 : 3
    })
    expect(info.bytes).toBeGreaterThan(10_000)
    expect(info.incarnation).toBe(await within(where, Ledger.incarnation))
    expect(told.out).toMatch(/^head +3$/m)
    expect(runs).toEqual([
      {
        run_id: "run-1",
        events: 2,
        first: "2026-01-01T00:00:00.000Z",
        last: "2026-01-01T00:00:00.000Z",
        first_offset: 1,
        last_offset: 3,
        actors: ["ada", "cy"],
        models: []
      },
      expect.objectContaining({ run_id: "run-2", events: 1, models: ["m-1"] })
    ])
    expect((await json(where, "runs", "--through", "2")).map(({ events, run_id }) => [run_id, events]))
      .toEqual([["run-2", 1], ["run-1", 1]])
    expect(twoRuns.map(({ events, run_id }) => [run_id, events])).toEqual([["run-1", 2]])
    expect(table.out.split("\n").slice(0, 2)).toEqual([
      "RUN    EVENTS  FIRST                 LAST                  ACTORS   MODELS",
      "run-1       2  2026-01-01 00:00:00Z  2026-01-01 00:00:00Z  ada, cy"
    ])
    const [shown, lines, tail, filtered, none, missing] = await Promise.all([
      run(where, "show", "run-1"),
      json(where, "show", "run-1"),
      run(where, "tail", "-n", "2"),
      json(where, "tail", "--after", "1", "--actor", "bo", "--actor", "cy", "--until", "2026-01-02"),
      run(where, "tail", "--from", "2026-01-02"),
      run(where, "show", "nobody")
    ])
    expect(shown.out).toBe(
      "run-1\n\nturn 0  2026-01-01\n     #1  00:00:00Z  ada         run.started     begin\n         here\n\n" +
        "turn 1  2026-01-01\n     #3  00:00:00Z  cy          agent.spoke     {\"n\":3}\n\n2 events\n"
    )
    expect(lines.map(({ id, offset }) => [offset, id])).toEqual([[1, "one"], [3, "three"]])
    expect(tail.out.split("\n").map((line) => line.slice(0, 30))).toEqual([
      "2026-01-01 00:00:00Z #2 run-2/",
      "2026-01-01 00:00:00Z #3 run-1/",
      ""
    ])
    expect(filtered.map(({ offset }) => offset)).toEqual([2, 3])
    expect(none).toEqual({ code: 0, out: "", err: "" })
    expect(missing).toEqual({ code: 1, out: "", err: "effect-ledger: there is no run \"nobody\"\n" })
  })

  it("export and import: equal, and again nothing but duplicates", async () => {
    const [from, to] = [newWhere(), newWhere()]
    await fill(from, three)
    const file = join(Fs.mkdtempSync(join(root, "x-")), "all.jsonl.gz")
    expect((await json(from, "export", file))[0]).toMatchObject({ file, count: 3, offset: 3, head: 3 })
    expect((await json(to, "import", file))[0]).toMatchObject({ appended: 3, duplicates: 0 })
    expect((await json(to, "import", file))[0]).toMatchObject({ appended: 0, duplicates: 3 })
    const [all, again, clouds] = await Promise.all([
      run(from, "export"),
      run(to, "export", "-"),
      run(from, "export", "--cloudevents", "urn:example:x", "--run", "run-2")
    ])
    expect(again).toEqual(all)
    expect(all.out.split("\n")).toHaveLength(4)
    expect(JSON.parse(clouds.out)).toMatchObject({ specversion: "1.0", source: "urn:example:x", id: "two" })
    const cut = `${all.out.split("\n")[0]!.replace("begin", "began").replace(/"digest":"[^"]*",/, "")}\nno\n`
    const refused = await runWith(cut, to, "import", "-", "--skip-invalid")
    expect(refused.code).toBe(1)
    expect(refused.out).toMatch(/^0 appended, 0 duplicates, 1 divergent, 1 invalid\ndivergent: one\ninvalid: line 2: /)
  })

  it("tail -f: the past, then what others append, and Ctrl-C says where it stopped", async () => {
    const where = newWhere()
    await fill(where, three)
    const child = await begin(where, ["tail", "-f", "--json", "--actor", "ada"])
    let [out, err] = ["", ""]
    child.stdout!.on("data", (data) => out += String(data))
    child.stderr!.on("data", (data) => err += String(data))
    await until(() => out.includes("\n"))
    const more = Array.from(
      { length: 40 },
      (_, index) => event(`more-${index}`, { actor: index % 2 === 0 ? "ada" : "bo" })
    )
    await within(where, Effect.forEach(more, Ledger.append))
    await until(() => out.split("\n").length > 21)
    const closed = once(child, "close")
    child.kill("SIGINT")
    expect((await closed)[0]).toBe(0)
    const ids = out.trim().split("\n").map((line) => JSON.parse(line).id)
    expect(ids).toEqual(["one", ...more.filter(({ actor }) => actor === "ada").map(({ id }) => id)])
    const [, offset] = /^stopped after offset (\d+): --after \1 goes on from there\n$/.exec(err) ?? []
    // it may not have been told of the last, which does not match
    expect(["42", "43"]).toContain(offset)
    expect(await run(where, "tail", "--after", offset!, "--actor", "ada")).toEqual({ code: 0, out: "", err: "" })
  })

  it("consumers: where they stand, what they gave up on, and their reset", async () => {
    const where = newWhere()
    await fill(where, three)
    await within(
      where,
      Logger.withMinimumLogLevel(LogLevel.None)(Effect.gen(function*() {
        const running = yield* Effect.fork(Consumer.run({
          name: "words",
          handler: ({ offset }) => offset === 2 ? Effect.fail("no \u001b[31mway") : Effect.void,
          onFailure: "deadLetter"
        }))
        yield* Effect.repeat(Consumer.status, {
          schedule: Schedule.spaced("20 millis"),
          until: ([consumer]) => consumer?.offset === 3
        })
        yield* Fiber.interrupt(running)
      }))
    )
    const [status, letters, table] = await Promise.all([
      json(where, "consumers"),
      json(where, "consumers", "dead-letters", "words"),
      run(where, "consumers", "dead-letters", "words")
    ])
    expect(status).toEqual([
      { name: "words", partition: 0, partitions: 1, offset: 3, lag: 0, holder: null, dead_letters: 1 }
    ])
    expect(letters).toEqual([expect.objectContaining({ offset: 2, attempts: 1 })])
    expect(table.out).toContain("no  [31mway")
    // the flags of a command below another stand on either side of its name
    const other = newWhere()
    await fill(other, three)
    const flags = ({ schema, url }: Where) => ["--url", url, ...schema === undefined ? [] : ["--schema", schema]]
    const elsewhere = await run(where, "consumers", ...flags(other), "reset", "words")
    expect(elsewhere).toEqual({ code: 1, out: "", err: "effect-ledger: there is no consumer \"words\"\n" })
    expect(await json(other, "consumers", ...flags(where), "dead-letters", "words")).toEqual(letters)
    const twice = await run(where, "consumers", ...flags(other), "reset", "words", ...flags(where))
    expect(twice).toEqual({ code: 2, out: "", err: "effect-ledger: --url is given twice\n" })
    expect(await json(where, "consumers")).toEqual(status)
    expect(await json(where, "consumers", "reset", "words")).toEqual([{ name: "words", reset: true }])
    expect(await json(where, "consumers")).toEqual([])
    expect((await run(where, "consumers", "reset", "words")).code).toBe(1)
  })

  it("snapshot, verify, incarnate: a copy that is sound, and what is not", async () => {
    const [where, copy] = [newWhere(), newFile()]
    await fill(where, three)
    const [made] = await json(where, "snapshot", copy.url)
    expect(made).toMatchObject({ head: 3, count: 3, parent: { offset: 3 } })
    const [from, to, info, other] = await Promise.all([
      json(where, "verify"),
      run(copy, "verify"),
      json(copy, "info"),
      run({ url: newFile().url }, "snapshot", copy.url)
    ])
    expect(from[0]).toMatchObject({ sound: true, head: 3, checked: 3, digest: made.digest, count: 0, problems: [] })
    expect(to).toEqual({ code: 0, out: `3 events checked, digest ${made.digest}\nsound\n`, err: "" })
    expect(info[0].incarnation).toBe(made.incarnation)
    expect(other.code).toBe(1)
    const [again] = await json(copy, "incarnate")
    expect(again.parents.map(({ incarnation, offset }: any) => [incarnation, offset])).toEqual([
      [made.incarnation, 3],
      [made.parent.incarnation, 3]
    ])
    const bytes = Fs.readFileSync(copy.url)
    // a checkpoint has moved everything into the file
    bytes[bytes.indexOf("hello")] = 0x48
    Fs.writeFileSync(copy.url, bytes)
    const damaged = await run(copy, "verify")
    expect(damaged.code).toBe(1)
    expect(damaged.out).toMatch(/^#2 {2}/)
    expect(damaged.err).toBe("effect-ledger: 1 problem found\n")
    const report = await run(copy, "verify", "--json")
    expect({ code: report.code, ...JSON.parse(report.out) })
      .toMatchObject({ code: 1, sound: false, count: 1, problems: [{ offset: 2 }] })
    if (where.schema === undefined) {
      const there = newSchema()
      await json(where, "snapshot", there.url, "--to-schema", there.schema!)
      expect((await run(there, "export")).out).toBe((await run(where, "export")).out)
    }
  })

  it("reset: not without being asked for", async () => {
    const where = newWhere()
    await fill(where, three)
    const refused = await run(where, "reset")
    expect(refused.code).toBe(2)
    expect(refused.err).toContain("This deletes 3 events")
    const [{ head, incarnation }] = await json(where, "info") as [any]
    expect(head).toBe(3)
    const [answer] = await json(where, "reset", "--yes")
    expect(answer.deleted).toBe(3)
    const [after] = await json(where, "info")
    expect(after).toMatchObject({ head: 0, incarnation: answer.incarnation })
    expect(after.incarnation).not.toBe(incarnation)
  })

  it("what is not there is not made by looking", async () => {
    const where = newWhere()
    const commands = [["info"], ["runs"], ["tail", "-f"], ["export"], ["consumers"], ["verify"], ["reset", "--yes"]]
    await Promise.all(commands.map(async (args) => {
      const { code, err, out } = await run(where, ...args)
      expect({ args, code, out }).toEqual({ args, code: 1, out: "" })
      expect(err).toMatch(/there is no (file|ledger)/)
    }))
    if (where.schema === undefined) expect(Fs.existsSync(where.url)).toBe(false)
    else {
      const { rows } = await postgres.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", [where.schema])
      expect(rows).toEqual([])
    }
  })
})

it.skipIf(!has("script", /util-linux/))(
  "reset asks on a terminal, and takes nothing but the ledger's name",
  async () => {
    const where = newFile()
    await fill(where, three)
    const question = "Type a.db to go on: "
    for (
      const [typed, code, said] of [
        ["yes\r", 1, "that is not its name: nothing was deleted"],
        ["\r", 1, "nothing was deleted"],
        ["A.DB\r", 1, "nothing was deleted"],
        // Ctrl-C
        ["a.db\u0003", 130, ""]
      ] as const
    ) {
      const { shown, ...ended } = await answered(where, ["reset"], question, typed)
      expect({ typed, ...ended }).toEqual({ typed, code })
      expect(shown).toContain(said)
      expect(await within(where, Ledger.latestOffset)).toBe(3)
    }
    const { code, shown } = await answered(where, ["reset"], question, "a.db\r")
    expect(code).toBe(0)
    expect(shown).toContain("deleted 3 events")
    expect(await within(where, Ledger.latestOffset)).toBe(0)
  }
)

it("a SQLite file without a ledger is left as it is, byte for byte", async () => {
  const { url } = newFile()
  new Sqlite(url).exec("CREATE TABLE mine (a); INSERT INTO mine VALUES (1)").close()
  const before = Fs.readFileSync(url)
  expect((await run({ url }, "info")).err).toContain("there is no ledger with the prefix ledger_")
  expect(Fs.readFileSync(url).equals(before)).toBe(true)
})

it("who only looks needs the right to read and no more, and leaves every byte as it is", async () => {
  const [where, copy] = [newFile(), newFile()]
  const folder = dirname(copy.url)
  await fill(where, three)
  await json(where, "snapshot", copy.url)
  const before = Fs.readFileSync(copy.url)
  Fs.chmodSync(root, 0o755)
  Fs.chmodSync(copy.url, 0o444)
  Fs.chmodSync(folder, 0o555)
  const commands = [["info"], ["runs"], ["show", "run-1"], ["tail"], ["export"], ["verify"]]
  await Promise.all(commands.map(async (args) => {
    const ended = await runAsOther(copy, ...args)
    expect({ args, ...ended }).toMatchObject({ args, code: 0, err: "", out: expect.stringMatching(/./) })
    expect(await run(copy, ...args)).toEqual(ended)
  }))
  expect(Fs.readFileSync(copy.url).equals(before)).toBe(true)
  expect(Fs.readdirSync(folder)).toEqual(["a.db"])
  Fs.chmodSync(folder, 0o755)
})

it("a ledger of another set-up version is named by it, and not read", async () => {
  const where = newFile()
  await fill(where, three)
  new Sqlite(where.url).exec("UPDATE ledger_meta SET version = 7").close()
  const { code, err, out } = await run(where, "info")
  expect({ code, out }).toEqual({ code: 1, out: "" })
  expect(err).toContain("a ledger of set-up version 7")
})

it("without a place it says what to set, and flags that are wrong are exit code 2", async () => {
  await Promise.all(
    ([
      [["info"], "DATABASE_URL"],
      [["info", "--url", "memory:"], "DATABASE_URL"],
      [["info", "--url", "mysql://ada:secret@host/db"], "mysql"],
      [["info", "--url", "postgresql://ada:secret@host:port/db"], "cannot be read"],
      [["nothing"], "Invalid subcommand"],
      [["show"], "Missing argument"],
      [["tail", "--limit", "x"], "not a integer"],
      [["tail", "--from", "yesterday"], "ISO 8601"],
      [["info", "postgres://ada:secret@host/db"], "unknown argument"],
      [["--wizard"], "no wizard"]
    ] as const).map(async ([args, said]) => {
      const { code, err, out } = await run({}, ...args)
      expect({ args, code, out }).toEqual({ args, code: 2, out: "" })
      expect(err).toContain(said)
      expect(err).not.toContain("secret")
    })
  )
  const where = newFile()
  await fill(where, three)
  await Promise.all(
    [
      ["tail", "--kind", "Nope"],
      ["tail", "--after", "-1"],
      ["runs", "--limit", "0"],
      ["append", "--run", "r", "--kind", "a.b", "--actor", "a", "--payload", "{"],
      ["append", "--run", "r", "--kind", "a.b", "--actor", "a", "--payload", "[]"]
    ].map(async (args) => {
      const { code, err } = await run(where, ...args, "--json")
      expect({ args, code }).toEqual({ args, code: 2 })
      expect(JSON.parse(err)).toMatchObject({ error: expect.any(String), message: expect.any(String) })
    })
  )
  expect((await run(where, "tail", "--after", "9")).code).toBe(1)
})

it("used wrongly, nothing was done: no ledger was made, and none was looked at", async () => {
  const where = newFile()
  const copy = join(dirname(where.url), "copy.db")
  await Promise.all(
    ([
      [["append", "--run", "r"], "--kind, --actor"],
      [["append", "--run", "r", "--kind", "no", "--actor", "a"], "kind"],
      [["append", "--schema", "s", "--run", "r", "--kind", "a.b", "--actor", "a"], "--schema is for Postgres"],
      [["import-ancestor", "mysql://host/db"], "mysql"],
      [["import-ancestor", "postgresql://ada:secret@host:port/db"], "cannot be read"],
      [["import-ancestor", ":memory:"], "memory"],
      [["export", "--cloudevents", "not a URI"], "--cloudevents: expected a URI reference"],
      [["snapshot", copy, "--to-schema", "s"], "--to-schema is for Postgres"],
      [["snapshot", "postgresql://ada:secret@host:port/db"], "cannot be read"],
      [["snapshot", "memory:"], "memory"],
      [["snapshot", copy, "--to-prefix", "Bad-"], "a prefix or schema is"]
    ] as const).map(async ([args, said]) => {
      const { code, err, out } = await run(where, ...args)
      expect({ args, code, out, err }).toEqual({ args, code: 2, out: "", err: expect.stringContaining(said) })
      expect(err).not.toContain("secret")
    })
  )
  expect(Fs.readdirSync(dirname(where.url))).toEqual([])
  // of the environment, where several kinds of ledger may be meant, a file takes what is for files
  await fill(where, three)
  expect((await json({ ...where, schema: "s" }, "info"))[0]).toMatchObject({ name: "a.db", schema: null })
})

it("with --json an import that fails says in JSON how far it came, and then why", async () => {
  const [from, to] = [newFile(), newFile()]
  await fill(from, three)
  const { out: trace } = await run(from, "export")
  const { code, err, out } = await runWith(`${trace}{\n`, to, "import", "-", "--json")
  expect({ code, out }).toEqual({ code: 1, out: "" })
  expect(err.trimEnd().split("\n").map((line) => JSON.parse(line))).toEqual([
    { stopped_after: "line 3", appended: 3, duplicates: 0, divergent: 0, invalid: 0 },
    { error: "InvalidTrace", message: expect.stringContaining("line 4") }
  ])
})

it("a password is in nothing that it says", async () => {
  const url = new URL(databaseUrl)
  url.password = "open-sesame"
  const urls = [url.href, `${url.href}?password=open-sesame`, `${databaseUrl}?password=open-sesame`]
  const commands = [["info", "--json"], ["info", "--log-level", "all"]]
  await Promise.all(urls.flatMap((wrong) =>
    commands.map(async (args) => {
      const { code, err, out } = await run({ url: wrong }, ...args)
      expect(code).toBe(1)
      expect(err + out).not.toContain("open-sesame")
      expect(err).toContain("password")
    })
  ))
  const where = newSchema()
  await fill(where, three)
  const { out } = await run(where, "info")
  expect(out).toContain(new URL(databaseUrl).host)
  expect(out).not.toContain(new URL(databaseUrl).password)
})

it("a closed pipe is no error", async () => {
  const where = newFile()
  await fill(where, events(5000))
  for (const args of [["export"], ["tail", "--after", "0"], ["show", "run-1"], ["tail", "--json", "-n", "9999"]]) {
    const child = await begin(where, args)
    let err = ""
    child.stderr!.on("data", (data) => err += String(data))
    child.stdout!.once("data", () => child.stdout!.destroy())
    const [code] = await once(child, "close")
    expect({ args, code, err }).toEqual({ args, code: 0, err: "" })
  }
}, 30_000)

it("Ctrl-C in an import says how far it came, and the same command goes on", async () => {
  const [from, to] = [newFile(), newFile()]
  await fill(from, events(5000))
  await fill(to, [])
  const { out } = await run(from, "export")
  const child = await begin(to, ["import", "-"])
  let err = ""
  child.stderr!.on("data", (data) => err += String(data))
  // never ended: it waits for more
  child.stdin!.write(out.split("\n").slice(0, 3500).join("\n"))
  await until(async () => await within(to, Ledger.latestOffset) >= 3000)
  const closed = once(child, "close")
  child.kill("SIGINT")
  expect((await closed)[0]).toBe(130)
  expect(err).toMatch(/^stopped after line \d+: 3,\d{3} appended, .*the same command goes on from here\n$/)
  const again = await runWith(out, to, "import", "-")
  expect(again.code).toBe(0)
  expect(await within(to, Ledger.latestOffset)).toBe(5000)
  expect((await run(to, "export")).out).toBe(out)
})

it("what is stored never commands the terminal", async () => {
  const where = newFile()
  const commanding = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/u
  const nasty = "\u001b]0;owned\u0007 \u009b31m \u202e \r\n\u0008 \u2028"
  await fill(where, [
    event("x", { runId: nasty, actor: nasty, modelId: nasty, payload: { text: nasty, [nasty]: nasty } }),
    event(nasty, { runId: nasty, payload: { [nasty]: [nasty] } })
  ])
  const commands = [["runs"], ["show", nasty], ["tail"], ["export"], ["runs", "--json"], ["show", nasty, "--json"]]
  await Promise.all(commands.map(async (args) => {
    const { code, err, out } = await run(where, ...args)
    expect({ args, code, err }).toEqual({ args, code: 0, err: "" })
    expect(out).toContain("owned")
    expect(out.replaceAll("\n", "")).not.toMatch(commanding)
  }))
  const line = (await json(where, "export")).find(({ id }) => id === "x")
  expect(line).toMatchObject({ run_id: nasty, payload: { [nasty]: nasty } })
  const missing = await run(where, "show", `${nasty}!`)
  expect(missing.err.trimEnd()).not.toMatch(commanding)
})

it("colours and bars are for terminals, and colours not with NO_COLOR", async () => {
  const where = newFile()
  await fill(where, events(20_000))
  const { out: trace } = await run(where, "export")
  const terminal = ["--import", "data:text/javascript,process.stdout.isTTY=process.stderr.isTTY=true"]
  const runs = (env: Record<string, string>) =>
    ended(startScript(program, ["runs"], { ...environment(where), ...env }, terminal))
  expect((await run(where, "runs")).out).not.toContain("\u001b")
  expect((await runs({})).out).toContain("\u001b[1mRUN")
  expect((await runs({ NO_COLOR: "1" })).out).not.toContain("\u001b")
  expect((await ended(begin(where, ["runs", "--help"], terminal))).out).toContain("\u001b[")
  const file = join(Fs.mkdtempSync(join(root, "x-")), "all.jsonl")
  Fs.writeFileSync(file, trace)
  // long enough for a report
  const { err } = await ended(begin(newFile(), ["import", file], terminal))
  const clear = "\r\u001b[K"
  expect(err.startsWith(clear) && err.endsWith(clear)).toBe(true)
  expect(err.split(clear)[1]).toMatch(/^import {2}\[#+-*\] \d+ % {2}[\d,]+ events {2}[\d,]+\/s {2}\d+ s left$/)
})

it("import-ancestor reads what the Python ledgers wrote", async () => {
  const [old, where] = [newFile(), newFile()]
  const database = new Sqlite(old.url)
  database.exec(
    `CREATE TABLE events ("offset" INTEGER PRIMARY KEY, id TEXT, run_id TEXT, turn INTEGER, kind TEXT, actor TEXT, payload TEXT, created_at TEXT)`
  )
  const insert = database.prepare("INSERT INTO events VALUES (?, ?, 'r', 0, ?, 'ada', '{}', '2026-01-01 00:00:00.5')")
  insert.run(1, "one", "agent.spoke")
  insert.run(4, "two", "Not a kind")
  database.close()
  const stopped = await run(where, "import-ancestor", old.url)
  expect(stopped.code).toBe(1)
  expect(stopped.err).toContain("offset 4")
  expect((await json(where, "import-ancestor", old.url, "--skip-invalid"))[0])
    .toMatchObject({ appended: 0, duplicates: 1, invalid: 1 })
  expect((await json(where, "tail"))[0]).toMatchObject({ id: "one", created_at: "2026-01-01T00:00:00.500Z" })
})

it.runIf(process.getuid?.() === 0)(
  "an ancestor's file that its writer would be shut out of is left alone",
  async () => {
    const [old, where] = [newFile(), newFile()]
    const database = new Sqlite(old.url)
    database.pragma("journal_mode = WAL")
    database.exec("CREATE TABLE events (n)")
    database.close()
    for (const { url } of [old, where]) Fs.chmodSync(dirname(url), 0o777)
    Fs.chmodSync(root, 0o755)
    const { code, err } = await runAsOther(where, "import-ancestor", old.url)
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining("the file is another user's") })
    expect(Fs.readdirSync(dirname(old.url))).toEqual(["a.db"])
  }
)

it("help names every command, each has its own, and completions find them", async () => {
  const [help, bare, version, script] = await Promise.all([
    run({}, "--help"),
    run({}),
    run({}, "--version"),
    run({}, "--completions", "bash")
  ])
  expect(bare).toEqual(help)
  expect(version.out.trim()).toBe(JSON.parse(Fs.readFileSync("package.json", "utf8")).version)
  const complete = (...words: ReadonlyArray<string>) =>
    execFileSync("bash", [
      "-c",
      `${script.out}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _effect-ledger_bash_completions effect-ledger; echo "\${COMPREPLY[*]}"`,
      "bash",
      ...words
    ], { encoding: "utf8" }).trim().split(" ")
  const commands = complete("effect-ledger", "").filter((word) => !word.startsWith("-"))
  expect(commands.length).toBeGreaterThanOrEqual(10)
  expect(complete("effect-ledger", "tail", "--f")).toEqual(["--follow", "--from"])
  expect(complete("effect-ledger", "consumers", "re")).toEqual(["reset"])
  expect(complete("effect-ledger", "--w")).toEqual([""])
  await Promise.all(commands.map(async (command) => {
    expect(help.out).toMatch(new RegExp(`^  ${command} `, "m"))
    const { code, err, out } = await run({}, command, "--help")
    expect({ command, code, err }).toEqual({ command, code: 0, err: "" })
    expect(out).toContain(`$ effect-ledger ${command} `)
    expect(out).toContain("--url")
    expect(out).not.toContain("\u001b")
    expect(out).not.toContain("user-defined")
  }))
  for (const shell of ["zsh", "fish"]) {
    const { code, out } = await run({}, "--completions", shell)
    expect(code).toBe(0)
    for (const command of commands) expect(out).toContain(command)
    expect(out).not.toContain("wizard")
  }
})

const typed = [["ru", "runs"], ["tail --fo", "tail --follow"], ["consumers re", "consumers reset"]] as const

it.skipIf(!has("zsh"))("zsh completes what is typed", async () => {
  const folder = Fs.mkdtempSync(join(root, "zsh-"))
  const { out } = await run({}, "--completions", "zsh")
  Fs.writeFileSync(join(folder, "completions"), out)
  Fs.writeFileSync(
    join(folder, "interactive"),
    `autoload -U compinit; compinit -u -D; source ${folder}/completions
effect-ledger() { print -r "given <$*>" }; print -r "ready to complete"`
  )
  // a shell on a terminal of its own, as only such a one completes
  Fs.writeFileSync(
    join(folder, "typing"),
    `zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "source ${folder}/interactive"
zpty -r shell shown "*ready to complete*"
for text in "$@"; do
  zpty -n -w shell "effect-ledger $text"$'\t\n'
  zpty -r shell shown "*given <*>*"
  print -r -- "\${\${shown##*given <}%%>*}"
done
zpty -d shell`
  )
  const completed = execFileSync("zsh", ["-f", join(folder, "typing"), ...typed.map(([text]) => text)], {
    encoding: "utf8",
    timeout: 20_000
  })
  expect(completed.trimEnd().split("\n")).toEqual(typed.map(([, completed]) => completed))
}, 30_000)

it.skipIf(!has("fish"))("fish completes what is typed", async () => {
  const { out } = await run({}, "--completions", "fish")
  for (const [text, completed] of typed) {
    const offered = execFileSync("fish", ["--no-config", "-c", `${out}\ncomplete -C "effect-ledger ${text}"`], {
      encoding: "utf8"
    })
    expect(offered.split("\n").map((line) => line.split("\t")[0])).toEqual([completed.split(" ").at(-1), ""])
  }
})

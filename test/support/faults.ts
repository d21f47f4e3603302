/** Places that fail on purpose, and what is expected of the errors. */
import { Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { assert, beforeEach } from "vitest"
import { Event } from "../../src/index.js"

let made = 0

/** A new event, with a payload of about so many bytes. */
export const event = (bytes = 0): Effect.Effect<Event.Event> =>
  Effect.suspend(() =>
    Effect.orDie(Event.create({
      id: `e${++made}`,
      runId: "run",
      turn: 1,
      kind: "agent.spoke",
      actor: "ada",
      payload: { n: made, text: "x".repeat(bytes) }
    }))
  )

/** The error that the effect fails with: of this tag, saying this, within the time, and without the secret. */
export const fails = <A, E extends { readonly _tag: string; readonly message: string }, R>(
  effect: Effect.Effect<A, E, R>,
  tag: NoInfer<E>["_tag"],
  says: RegExp,
  seconds = 5,
  secret?: string
): Effect.Effect<E, never, R> =>
  effect.pipe(
    Effect.timeoutFail({
      duration: `${seconds} seconds`,
      onTimeout: () => ({ _tag: "Timeout", message: `no answer within ${seconds} seconds` })
    }),
    Effect.flip,
    Effect.catchAll((value) =>
      Effect.succeed({ _tag: "Success", message: JSON.stringify(value)?.slice(0, 200) ?? "undefined" })
    ),
    Effect.map((error) => {
      assert.match(`${error._tag}: ${error.message}`, new RegExp(`^${tag}: .*(?:${says.source})`, `s${says.flags}`))
      if (secret !== undefined) assert.notInclude(`${error.message} ${JSON.stringify(error)}`, secret)
      return error as E
    })
  )

/** A folder that everybody may enter. */
export const folder = Effect.acquireRelease(
  Effect.sync(() => {
    const path = Fs.mkdtempSync(Path.join(Fs.realpathSync(Os.tmpdir()), "effect-ledger-faults-"))
    Fs.chmodSync(path, 0o777)
    return path
  }),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)

const mount = (path: string, kilobytes: number): boolean =>
  spawnSync("mount", ["-t", "tmpfs", "-o", `size=${kilobytes}k`, "tmpfs", path]).status === 0

const umount = (path: string) => spawnSync("umount", [path])

/** Why no small file system can be had; undefined where it can. */
export const noMount = (): string | undefined => {
  const path = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-ledger-mount-"))
  const mounted = mount(path, 64)
  if (mounted) umount(path)
  Fs.rmdirSync(path)
  return mounted ? undefined : "no file system can be mounted here: that takes root"
}

/** The tests of this block are skipped, and say why, where no small file system can be mounted. */
export const needsMount = (): void => {
  const reason = noMount()
  beforeEach((context) => context.skip(reason !== undefined, reason))
}

/** A file system with so little room. */
export const smallDisk = (kilobytes: number) =>
  Effect.tap(folder, (path) =>
    Effect.acquireRelease(
      Effect.sync(() => assert.isTrue(mount(path, kilobytes), "mounted")),
      () => Effect.sync(() => umount(path))
    ))

/** Leaves no room on the file system that the folder is; the answer gives it back. */
export const fill = (path: string): () => void => {
  const filler = Path.join(path, "filler")
  try {
    for (;;) Fs.appendFileSync(filler, Buffer.alloc(4096))
  } catch {
    return () => Fs.rmSync(filler)
  }
}

/** Runs the effect as somebody whom the modes of files bind; root is not. */
export const asNobody = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  process.geteuid?.() === 0
    ? Effect.acquireUseRelease(
      Effect.sync(() => process.seteuid!(65534)),
      () => effect,
      () => Effect.sync(() => process.seteuid!(0))
    )
    : effect

/** Runs the effect while the file may not be written; root can only be kept from it by the file system, or be nobody. */
export const whileReadOnly = <A, E, R>(path: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const immutable = (sign: string) => spawnSync("chattr", [`${sign}i`, path]).status === 0
  return Effect.acquireUseRelease(
    Effect.sync(() => {
      Fs.chmodSync(path, 0o444)
      return process.geteuid?.() === 0 && immutable("+")
    }),
    (refused) => refused ? effect : asNobody(effect),
    (refused) =>
      Effect.sync(() => {
        if (refused) immutable("-")
        Fs.chmodSync(path, 0o666)
        // what a reader leaves is as read-only as it was
        for (const suffix of ["-wal", "-shm"]) Fs.rmSync(path + suffix, { force: true })
      })
  )
}

/** Another process that holds a SQLite file as the statement says, until the scope ends or it is told to let go. */
export const holder = (path: string, statement: string) =>
  Effect.acquireRelease(
    Effect.promise(() =>
      new Promise<{ readonly letGo: Effect.Effect<void> }>((resolve, reject) => {
        const child = spawn(process.execPath, [
          "-e",
          "const db = require('better-sqlite3')(process.argv[1]); db.exec(process.argv[2]); console.log('held');" +
          "process.stdin.on('close', () => process.exit()).resume()",
          path,
          statement
        ], { stdio: ["pipe", "pipe", "inherit"] })
        const ended = new Promise<void>((done) => child.once("exit", () => done()))
        child.once("error", reject)
        child.stdout.once("data", () =>
          resolve({
            letGo: Effect.promise(() => {
              child.stdin.end()
              return ended
            })
          }))
      })
    ),
    ({ letGo }) => letGo
  )

/** A way to a port that can fall silent: what it holds then is never answered, and what is new is accepted. */
export const proxy = (port: number) =>
  Effect.acquireRelease(
    Effect.async<{ readonly port: number; silent: boolean; readonly close: () => void }>((resume) => {
      const sockets = new Set<Net.Socket>()
      const state = { port: 0, silent: false, close: () => {} }
      const server = Net.createServer((client) => {
        sockets.add(client.on("error", () => {}))
        if (state.silent) return
        const upstream = Net.connect(port, "127.0.0.1")
        sockets.add(upstream.on("error", () => client.destroy()))
        client.on("data", (data) => state.silent || upstream.write(data)).on("close", () => upstream.destroy())
        upstream.on("data", (data) => state.silent || client.write(data)).on("close", () =>
          state.silent || client.destroy())
      }).listen(0, "127.0.0.1", () =>
        resume(Effect.succeed(Object.assign(state, {
          port: (server.address() as Net.AddressInfo).port,
          close: () => {
            server.close()
            for (const socket of sockets) {
              socket.destroy()
            }
          }
        }))))
    }),
    (state) =>
      Effect.sync(state.close)
  )

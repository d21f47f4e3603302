/** Copies a log into a SQLite file: beside its place, checked there, and renamed when it is whole. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { SnapshotRefused, type StoreError, StoreFailure } from "../LedgerError.js"
import { type Head, LedgerStore } from "../LedgerStore.js"
import * as SqliteLedger from "../SqliteLedger.js"
import {
  copy,
  corrupt,
  type Failure,
  lineageOf,
  type Options,
  progress,
  resultOf,
  type Snapshot,
  type Store
} from "./snapshotCopy.js"
import { toStoreError } from "./sqlError.js"
import { findDriver } from "./sqliteDriver.js"
import * as sqliteStore from "./sqliteStore.js"
import { run as verify, scan, type Seen } from "./verify.js"

export const toFile = (
  store: Store,
  filename: string,
  { onProgress, prefix = "ledger_", replace = false }: Options
): Effect.Effect<Snapshot, Failure> =>
  Effect.scoped(Effect.gen(function*() {
    const { file: source } = yield* store.location
    const target = yield* attempt(() => resolve(filename))
    if (source !== null && (yield* attempt(() => isSame(source, target)))) {
      return yield* new SnapshotRefused({ reason: "is the ledger itself" })
    }
    yield* mayReplace(store, target, prefix, replace)
    const temporary = yield* beside(target)
    const plain = source !== null && findDriver() !== undefined && (yield* sqliteStore.holdsOnlyLedger(source, prefix))
    const made = yield* Effect.scoped(
      plain ? byEngine(store, source, temporary, prefix, onProgress) : byPages(store, temporary, prefix, onProgress)
    )
    yield* sqliteStore.settleFile(temporary)
    yield* Effect.tryPromise({
      try: () => syncFile(temporary),
      catch: (error) => toStoreError("snapshot", error, false)
    })
    yield* settle(target, prefix, replace)
    yield* attempt(() => {
      Fs.renameSync(temporary, target)
      syncFolder(Path.dirname(target))
    })
    return made
  }))

/** SQLite copies the file as it is at one moment, and what came of it is read. */
const byEngine = Effect.fnUntraced(function*(
  store: Store,
  source: string,
  temporary: string,
  prefix: string,
  onProgress: Options["onProgress"]
): Effect.fn.Return<Snapshot, Failure, Scope.Scope> {
  const before = yield* store.head
  yield* sqliteStore.copyFile(source, temporary, prefix)
  const { store: made } = yield* open(temporary, prefix)
  const parent = yield* made.head
  if (parent.incarnation !== before.incarnation || parent.offset < before.offset) {
    return yield* failure("the ledger was replaced while it was copied")
  }
  const seen = yield* scan(made, {
    head: parent,
    onPage: (_, copied) => progress(onProgress, copied, parent),
    onProblem: corrupt
  })
  yield* sound(made)
  const { incarnation } = yield* made.incarnate()
  return resultOf(parent, incarnation, seen)
})

/** From any other store. Until it is whole no release opens it. */
const byPages = Effect.fnUntraced(function*(
  store: Store,
  temporary: string,
  prefix: string,
  onProgress: Options["onProgress"]
): Effect.fn.Return<Snapshot, Failure, Scope.Scope> {
  const parent = yield* store.head
  const lineage = yield* lineageOf(store, parent)
  const { context, store: made } = yield* open(temporary, prefix)
  yield* Effect.provide(sqliteStore.toggleUnfinished(prefix), context)
  const { incarnation } = yield* made.incarnate(lineage)
  const seen: Seen = yield* copy(store, made, parent, onProgress)
  const checked = yield* verify(made, {})
  if (checked.count > 0 || checked.digest !== seen.digest) {
    return yield* failure(`the copy is not what was written: ${checked.problems[0]?.what ?? "other digests"}`)
  }
  yield* Effect.provide(sqliteStore.toggleUnfinished(prefix), context)
  return resultOf(parent, incarnation, seen)
})

const sound = (made: Store): Effect.Effect<void, StoreError> =>
  Effect.flatMap(made.inspect, ([problem]) => problem === undefined ? Effect.void : failure(problem.what))

const failure = (why: string): StoreFailure => new StoreFailure({ method: "snapshot", cause: new Error(why) })

const open = (file: string, prefix: string) =>
  Effect.map(
    Layer.build(Layer.fresh(SqliteLedger.layerFile(file, { prefix, durability: "relaxed", cacheBytes: 0 }))),
    (context) => ({ store: Context.get(context, LedgerStore), context })
  )

/** Without `replace`, only an earlier snapshot of this log is replaced, on which nobody has gone on. */
const mayReplace = (
  store: Store,
  target: string,
  prefix: string,
  replace: boolean
): Effect.Effect<void, StoreError | SnapshotRefused> =>
  Effect.gen(function*() {
    const stat = yield* attempt(() => Fs.statSync(target, { throwIfNoEntry: false }))
    if (stat === undefined || (stat.isFile() && stat.size === 0)) return
    if (!stat.isFile()) return yield* new SnapshotRefused({ reason: "is not a file" })
    if (replace) return
    const refused = (what: string) => new SnapshotRefused({ reason: `${what}: ask to replace it, or name another` })
    const unreadable = () => refused("holds something else than a ledger that can be opened")
    if (!(yield* Effect.orElseSucceed(sqliteStore.holdsOnlyLedger(target, prefix), () => false))) {
      return yield* unreadable()
    }
    const { head, lineage } = yield* Effect.flatMap(
      LedgerStore,
      (store) => Effect.all({ head: store.head, lineage: store.lineage })
    ).pipe(
      // it is to stay as it is until there is something to replace it with
      Effect.provide(SqliteLedger.layerReadonly(target, { prefix, cacheBytes: 0 })),
      Effect.mapError(unreadable)
    )
    const origins = new Set((yield* lineageOf(store, yield* store.head)).map(({ incarnation }) => incarnation))
    const [parent] = lineage
    if (head.offset === 0) return
    if (parent === undefined || !origins.has(parent.incarnation)) return yield* refused("holds another ledger")
    if (!isEnd(parent, head)) return yield* refused("holds a copy that others have gone on with")
  })

const isEnd = (parent: Head, head: Head): boolean => parent.offset === head.offset && parent.digest === head.digest

/** What stands there keeps nothing outside its file, which a log beside the new file would damage. */
const settle = (
  target: string,
  prefix: string,
  replace: boolean
): Effect.Effect<void, StoreError | SnapshotRefused> =>
  Effect.gen(function*() {
    if (yield* attempt(() => (Fs.statSync(target, { throwIfNoEntry: false })?.size ?? 0) > 0)) {
      yield* Effect.scoped(open(target, prefix)).pipe(
        Effect.zipRight(sqliteStore.settleFile(target)),
        Effect.catchAll((error) =>
          replace && error._tag !== "StoreUnavailable"
            ? Effect.void
            : new SnapshotRefused({ reason: `cannot be replaced while somebody has it open (${error.message})` })
        )
      )
    }
    yield* attempt(() => {
      for (const suffix of sidecars) Fs.rmSync(target + suffix, { force: true })
    })
  })

const sidecars = ["-wal", "-shm", "-journal"]

/** The path with every link followed, in a folder that is there. */
const resolve = (filename: string): string => {
  const path = Path.resolve(filename)
  if (Fs.existsSync(path)) return Fs.realpathSync(path)
  Fs.mkdirSync(Path.dirname(path), { recursive: true })
  return Path.join(Fs.realpathSync(Path.dirname(path)), Path.basename(path))
}

/** Whether any of the files of one database is one of the other's. */
const isSame = (source: string, target: string): boolean => {
  const identities = (file: string) =>
    ["", ...sidecars].flatMap((suffix) => {
      const stat = Fs.statSync(file + suffix, { throwIfNoEntry: false })
      return stat === undefined ? [] : [`${stat.dev} ${stat.ino}`]
    })
  const own = new Set(identities(source))
  const names = new Set(["", ...sidecars].map((suffix) => Fs.realpathSync(source) + suffix))
  return names.has(target) || identities(target).some((identity) => own.has(identity))
}

/** Names in use by this process. */
const active = new Set<string>()

/** A name of nothing, in the folder of the target. What processes that died have left there is removed. */
const beside = (target: string): Effect.Effect<string, StoreError, Scope.Scope> => {
  const folder = Path.dirname(target)
  const begin = `.${Path.basename(target)}.snapshot-${Os.hostname()}-`
  return Effect.acquireRelease(
    attempt(() => {
      for (const name of Fs.readdirSync(folder)) {
        const pid = name.startsWith(begin) ? Number(/^\d+/.exec(name.slice(begin.length))?.[0]) : Number.NaN
        if (pid > 0 && !isAlive(pid, Path.join(folder, name))) Fs.rmSync(Path.join(folder, name), { force: true })
      }
      const file = Path.join(folder, `${begin}${process.pid}-${randomUUID()}`)
      active.add(file)
      return file
    }),
    (file) =>
      Effect.sync(() => {
        active.delete(file)
        for (const suffix of ["", ...sidecars]) Fs.rmSync(file + suffix, { force: true })
      })
  )
}

const isAlive = (pid: number, file: string): boolean => {
  // a process in a container has the number that its predecessor had
  if (pid === process.pid) return Array.from(active).some((own) => file.startsWith(own))
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH"
  }
}

const syncFile = async (file: string): Promise<void> => {
  if (sidecars.some((suffix) => Fs.existsSync(file + suffix))) throw new Error("the copy could not be closed")
  const handle = await Fs.promises.open(file, "r+")
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const syncFolder = (folder: string): void => {
  // not on Windows, where a folder cannot be opened
  if (process.platform === "win32") return
  const handle = Fs.openSync(folder, "r")
  try {
    Fs.fsyncSync(handle)
  } finally {
    Fs.closeSync(handle)
  }
}

const attempt = <A>(body: () => A): Effect.Effect<A, StoreError> =>
  Effect.try({ try: body, catch: (error) => toStoreError("snapshot", error, false) })

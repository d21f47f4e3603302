/** Files of lines: compressed by their name, read and written in constant memory, and never there by half. */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { randomBytes } from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { pipeline, type Readable, type Transform, type Writable } from "node:stream"
import * as Streams from "node:stream/promises"
import * as Zlib from "node:zlib"
import { TraceFailure } from "../LedgerError.js"
import { ZstdFrames } from "./zstdFrames.js"

/** The bytes of a file, decompressed. */
export const readBytes = (path: string): Stream.Stream<Uint8Array, TraceFailure> =>
  Stream.unwrapScoped(Effect.map(
    Effect.acquireRelease(
      attempt(path, () => openToRead(path)),
      // not the iterator's own end: that waits for the bytes that it was asked for
      (readable) => Effect.sync(() => readable.destroy())
    ),
    (readable) => {
      const iterator: AsyncIterator<Uint8Array> = readable[Symbol.asyncIterator]()
      return Stream.repeatEffectChunkOption(Effect.flatMap(
        Effect.tryPromise({
          try: () => iterator.next(),
          catch: (cause) => Option.some(new TraceFailure({ path, cause }))
        }),
        (next) => next.done === true ? Effect.fail(Option.none()) : Effect.succeed(Chunk.of(next.value))
      ))
    }
  ))

export interface Sink {
  /** Answers when the text is on its way to the file: no more than one waits in memory. */
  readonly write: (text: string) => Effect.Effect<void, TraceFailure>
  /** Bytes in the file so far, compressed. */
  readonly bytes: () => number
}

/**
 * Gives `use` a file beside the path; when it succeeds, the file is complete on the disk and takes the path's name,
 * otherwise it is removed.
 */
export const writeWhole = <A, E, R>(
  path: string,
  use: (sink: Sink) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | TraceFailure, R> =>
  Effect.acquireUseRelease(
    attempt(path, () => openToWrite(path)),
    (opened) => Effect.zipLeft(use(opened), Effect.uninterruptible(attemptPromise(path, opened.finish))),
    (opened, exit) => Exit.isSuccess(exit) ? Effect.void : Effect.promise(opened.discard)
  )

const openToRead = (path: string): Readable => {
  const decompress = compression(path)?.decompress()
  const file = Fs.createReadStream(path)
  // what goes wrong in one of them reaches the last, which is the one that is read
  return decompress === undefined ? file : pipeline([file, ...decompress], () => {}) as unknown as Transform
}

const openToWrite = (path: string): Sink & {
  readonly finish: () => Promise<void>
  readonly discard: () => Promise<void>
} => {
  if (Fs.statSync(path, { throwIfNoEntry: false })?.isFile() === false) throw new Error("is no regular file")
  const compress = compression(path)?.compress()
  const partial = `${path}.${randomBytes(6).toString("hex")}.partial`
  const file = Fs.createWriteStream(partial, { flags: "wx", flush: true })
  const first: Writable = compress ?? file
  const done = compress === undefined ? Streams.finished(file) : Streams.pipeline(compress, file)
  // it is looked at where the next write or the end fails
  done.catch(() => {})
  return {
    write: (text) =>
      attemptPromise(
        path,
        () =>
          new Promise<void>((resolve, reject) => {
            first.write(text, (error) => error ? done.then(() => reject(error), reject) : resolve())
          })
      ),
    bytes: () => file.bytesWritten,
    finish: async () => {
      first.end()
      await done
      await Fs.promises.rename(partial, path)
      await syncFolder(Path.dirname(path))
    },
    discard: async () => {
      first.destroy()
      file.destroy()
      await new Promise<void>((resolve) => file.closed ? resolve() : file.once("close", () => resolve()))
      await Fs.promises.rm(partial, { force: true })
    }
  }
}

// the new name lasts once the folder does; not every system can be asked for that
const syncFolder = async (path: string): Promise<void> => {
  try {
    const folder = await Fs.promises.open(path, "r")
    await folder.sync().finally(() => folder.close())
  } catch {
    // the file itself is on the disk
  }
}

interface Compression {
  readonly compress: () => Transform
  readonly decompress: () => ReadonlyArray<Transform>
}

const compression = (path: string): Compression | undefined => {
  if (/\.gz$/i.test(path)) return { compress: () => Zlib.createGzip(), decompress: () => [Zlib.createGunzip()] }
  if (!/\.zst$/i.test(path)) return undefined
  const { constants, createZstdCompress, createZstdDecompress } = Zlib as unknown as Partial<Zstd>
  if (createZstdCompress === undefined || createZstdDecompress === undefined) {
    throw new Error(`zstd needs Node 22.15 or a later one, this is ${process.version}; .gz works here`)
  }
  return {
    // with a checksum, so that a damaged file is noticed
    compress: () => createZstdCompress({ params: { [constants?.ZSTD_c_checksumFlag ?? 201]: 1 } }),
    decompress: () => [new ZstdFrames(), createZstdDecompress()]
  }
}

/** What Node's zlib has from 22.15 on. */
interface Zstd {
  readonly constants: { readonly ZSTD_c_checksumFlag: number }
  readonly createZstdCompress: (options: { readonly params: Readonly<Record<number, number>> }) => Transform
  readonly createZstdDecompress: () => Transform
}

const attempt = <A>(path: string, body: () => A): Effect.Effect<A, TraceFailure> =>
  Effect.try({ try: body, catch: (cause) => new TraceFailure({ path, cause }) })

const attemptPromise = <A>(path: string, body: () => Promise<A>): Effect.Effect<A, TraceFailure> =>
  Effect.tryPromise({ try: body, catch: (cause) => new TraceFailure({ path, cause }) })

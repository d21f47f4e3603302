/**
 * The frames of a zstd file (RFC 8878, section 3.1), each in chunks of its own. Node's decompressor takes a file that is cut
 * off for a whole one, and leaves out a frame that begins in the middle of a chunk: either way lines would be missing and
 * nobody told.
 */
import { Transform, type TransformCallback } from "node:stream"

export class ZstdFrames extends Transform {
  private part: "magic" | "descriptor" | "header" | "block" | "content" | "checksum" | "length" | "skipped" = "magic"
  /** Bytes of the part that are still to come. */
  private missing = 4
  /** Those that have come, of parts that are to be read. */
  private readonly seen: Array<number> = []
  private frames = 0
  private checksum = false
  private last = false

  override _transform(chunk: Buffer, _: BufferEncoding, callback: TransformCallback): void {
    let start = 0
    let at = 0
    while (at < chunk.length || this.missing === 0) {
      const taken = Math.min(this.missing, chunk.length - at)
      if (this.part !== "content" && this.part !== "skipped") this.seen.push(...chunk.subarray(at, at + taken))
      at += taken
      this.missing -= taken
      if (this.missing > 0) break
      if (!this.next()) {
        callback(new Error("is not zstd"))
        return
      }
      this.seen.length = 0
      if (this.part === "magic") {
        this.push(chunk.subarray(start, at))
        start = at
      }
    }
    callback(null, chunk.subarray(start))
  }

  override _flush(callback: TransformCallback): void {
    const whole = this.frames > 0 && this.part === "magic" && this.seen.length === 0
    callback(whole ? null : new Error("unexpected end of file"))
  }

  /** Begins the next part, now that all of one is there. */
  private next(): boolean {
    switch (this.part) {
      case "magic": {
        const magic = this.number()
        if (magic === 0xfd2fb528) return this.begin("descriptor", 1)
        return magic >= 0x184d2a50 && magic <= 0x184d2a5f && this.begin("length", 4)
      }
      case "descriptor": {
        const descriptor = this.number()
        const single = (descriptor & 32) !== 0
        this.checksum = (descriptor & 4) !== 0
        const sizeLength = descriptor >> 6 === 0 ? (single ? 1 : 0) : 1 << (descriptor >> 6)
        return this.begin("header", (single ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]! + sizeLength)
      }
      case "block": {
        const block = this.number()
        this.last = (block & 1) === 1
        // one byte, to be repeated
        return this.begin("content", (block >> 1 & 3) === 1 ? 1 : block >> 3)
      }
      case "header":
        return this.begin("block", 3)
      case "content":
        if (!this.last) return this.begin("block", 3)
        return this.checksum ? this.begin("checksum", 4) : this.endFrame()
      case "checksum":
        return this.endFrame()
      case "length":
        return this.begin("skipped", this.number())
      case "skipped":
        return this.begin("magic", 4)
    }
  }

  private begin(part: ZstdFrames["part"], length: number): boolean {
    this.part = part
    this.missing = length
    return true
  }

  private endFrame(): boolean {
    this.frames++
    return this.begin("magic", 4)
  }

  private number(): number {
    return this.seen.reduceRight((sum, byte) => sum * 256 + byte, 0)
  }
}

/** A subscriber that tells when it sees each event. */
import { Effect, Stream } from "effect"
import { Ledger } from "../src/index.js"

/** Milliseconds, monotonic, and the same for all processes. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6

/** Ends after so many events. Where it has caught up `see` is called with offset 0. */
export const seenBy = (count: number, see: (offset: number, at: number) => void) =>
  Ledger.follow().pipe(
    Stream.takeUntil((one) => one._tag === "CaughtUp" && one.head >= count),
    Stream.runForEach((one) =>
      Effect.sync(() => {
        if (one._tag === "Recorded") see(one.event.offset, now())
        else if (one._tag === "CaughtUp") see(0, 0)
      })
    )
  )

/** A ledger that is opened for reading: whatever would write is refused before a database sees it. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Ledger } from "../Ledger.js"
import { type SetupError, StoreFailure } from "../LedgerError.js"
import { LedgerStore } from "../LedgerStore.js"
import * as internal from "./ledger.js"

/** `Ledger` and `LedgerStore` over the store that `open` answers, and nothing with which somebody could write. */
export const layer = <R>(
  open: Effect.Effect<Context.Context<LedgerStore>, SetupError, R>,
  options: internal.Options
): Layer.Layer<Ledger | LedgerStore, SetupError, Exclude<R, Scope.Scope>> =>
  Layer.scopedContext(Effect.gen(function*() {
    const store = withoutWrites(Context.get(yield* open, LedgerStore))
    const { ledger } = yield* internal.make(store, options)
    return Context.make(Ledger, ledger).pipe(Context.add(LedgerStore, store))
  }))

const withoutWrites = (store: Context.Tag.Service<LedgerStore>): Context.Tag.Service<LedgerStore> => ({
  ...store,
  append: () => refused("append"),
  reset: refused("reset"),
  incarnate: () => refused("incarnate"),
  // to write together is what it is for
  transaction: () => refused("transaction")
})

const refused = (method: string): Effect.Effect<never, StoreFailure> =>
  Effect.suspend(() =>
    new StoreFailure({
      method,
      cause: new Error("the ledger was opened for reading only"),
      advice: "open it with a Layer that writes"
    })
  )

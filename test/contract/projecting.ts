/** Projections: folds over the log, in memory and persisted. */
import { expect, it } from "@effect/vitest"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ConsumerStore } from "../../src/ConsumerStore.js"
import type { RecordedEvent } from "../../src/Event.js"
import { Ledger } from "../../src/Ledger.js"
import * as Projection from "../../src/Projection.js"
import type { Services } from "./Backend.js"
import { event, events } from "./fixtures.js"
import { collect, eventually, failure, open } from "./handle.js"

/** How much each actor said, and the last to speak. */
const said = (version = 1) =>
  Projection.make({
    name: "said",
    version,
    filter: { kinds: ["agent.spoke"] },
    initial: { counts: {} as Readonly<Record<string, number>>, last: "" },
    apply: ({ counts }, { actor }: RecordedEvent) => ({
      counts: { ...counts, [actor]: (counts[actor] ?? 0) + version },
      last: actor
    }),
    schema: Schema.Struct({
      counts: Schema.Record({ key: Schema.String, value: Schema.Number }),
      last: Schema.String
    })
  })

type Handle = { readonly context: Context.Context<Services | ConsumerStore> }

const provide = <A, E, R>({ context }: Handle, effect: Effect.Effect<A, E, R | Services | ConsumerStore>) =>
  Effect.provide(effect, context)

const mixed = (count: number, prefix: string) =>
  Array.from({ length: count }, (_, n) =>
    event(`${prefix}-${n}`, {
      actor: ["ada", "bob", "cy"][n % 3]!,
      kind: n % 4 === 0 ? "agent.thought" : "agent.spoke"
    }))

export const projecting = (layer: () => Layer.Layer<Services | ConsumerStore, unknown>): void => {
  it.scopedLive("in memory: follows the log, and a receipt's offset can be waited for", () =>
    Effect.gen(function*() {
      const handle = yield* open(layer())
      yield* handle.ledger.appendAll(mixed(2500, "past"))
      const live = yield* provide(handle, Projection.open(said()))
      const after = yield* live.awaitOffset(2500)
      expect(after).toMatchObject({ offset: 2500, lag: 0 })
      for (const one of events(5, "live", { actor: "dan" })) {
        const { offset } = yield* handle.ledger.append(one)
        expect((yield* live.awaitOffset(offset)).state.last).toBe("dan")
      }
      const log = yield* handle.ledger.events
      const oracle = log.filter(({ kind }) => kind === "agent.spoke").reduce(said().apply, said().initial)
      expect((yield* live.current).state).toStrictEqual(oracle)
    }))

  it.scopedLive("changes give what is, then what becomes of it, and a slow reader the latest", () =>
    Effect.gen(function*() {
      const handle = yield* open(layer())
      const live = yield* provide(handle, Projection.open(said()))
      const read = yield* Effect.makeLatch()
      const reading = yield* live.changes.pipe(
        Stream.tap(() => read.await),
        Stream.takeUntil(({ offset }) => offset === 50),
        collect,
        Effect.fork
      )
      yield* handle.ledger.appendAll(events(20))
      for (const one of events(30, "more")) yield* handle.ledger.append(one)
      yield* live.awaitOffset(50)
      yield* read.open
      const seen = yield* reading
      expect(seen.length).toBeLessThan(30)
      expect(seen[seen.length - 1]).toMatchObject({ offset: 50, state: { counts: { ada: 50 } } })
    }))

  it.scopedLive("persisted: opens where it was saved, and comes to what a fold in memory comes to", () =>
    Effect.gen(function*() {
      const handle = yield* open(layer())
      let applied = 0
      const counted = Projection.make({
        ...said(),
        apply: (state: ReturnType<typeof said>["initial"], one: RecordedEvent) => {
          applied++
          return said().apply(state, one)
        }
      })
      yield* handle.ledger.appendAll(mixed(300, "past"))
      const scope = yield* Scope.make()
      const first = yield* provide(handle, Scope.extend(Projection.openPersisted(counted), scope))
      yield* first.awaitOffset(300)
      yield* Scope.close(scope, Exit.void)
      expect(yield* provide(handle, Projection.status("said"))).toStrictEqual([
        { version: 1, offset: 300, lag: 0, complete: true }
      ])
      yield* handle.ledger.appendAll(mixed(100, "later"))
      applied = 0
      const second = yield* provide(handle, Projection.openPersisted(counted, { saveInterval: "10 millis" }))
      const { state } = yield* second.awaitOffset(400)
      expect(applied).toBe(75)
      const memory = yield* provide(handle, Projection.open(said()))
      expect(state).toStrictEqual((yield* memory.awaitOffset(400)).state)
      yield* eventually(provide(handle, Projection.status("said")), ([saved]) => saved?.offset === 400)
    }))

  it.scopedLive("a new version is built beside the old one, which is gone when it has caught up", () =>
    Effect.gen(function*() {
      const handle = yield* open(layer())
      yield* handle.ledger.appendAll(events(30))
      const often = { saveInterval: "10 millis" } as const
      const status = provide(handle, Projection.status("said"))
      const old = yield* Scope.make()
      const first = yield* provide(handle, Scope.extend(Projection.openPersisted(said(1), often), old))
      yield* eventually(status, ([saved]) => saved?.complete === true)

      // the new one is held at offset 20
      const building = yield* Scope.make()
      const half = yield* Scope.extend(Projection.openPersisted(said(2), often), building).pipe(
        Effect.provideService(Ledger, {
          ...handle.ledger,
          follow: (options) =>
            Stream.tap(
              handle.ledger.follow(options),
              (one) => one._tag === "Recorded" && one.event.offset === 20 ? Effect.never : Effect.void
            )
        }),
        (effect) => provide(handle, effect)
      )
      const built = { offset: 19, lag: 11 }
      yield* half.awaitOffset(19)
      expect(yield* half.current).toMatchObject({ ...built, state: { counts: { ada: 38 } } })
      yield* eventually(status, (all) => all[1]?.offset === 19)
      expect(yield* status).toStrictEqual([
        { version: 1, offset: 30, lag: 0, complete: true },
        { version: 2, ...built, complete: false }
      ])
      // meanwhile the old one can be opened where it is, goes on, and is saved
      const opened = yield* provide(handle, Projection.openPersisted(said(1)))
      expect(yield* opened.current).toMatchObject({ offset: 30, lag: 0, state: { counts: { ada: 30 } } })
      const { offset } = yield* handle.ledger.append(event("more"))
      expect((yield* first.awaitOffset(offset)).state.counts).toStrictEqual({ ada: 31 })
      yield* eventually(status, ([saved, next]) => saved?.offset === offset && next?.lag === 12)

      // another program goes on building where that one ended
      yield* Scope.close(building, Exit.void)
      let applied = 0
      const counted = Projection.make({
        ...said(2),
        apply: (state: ReturnType<typeof said>["initial"], one: RecordedEvent) => {
          applied++
          return said(2).apply(state, one)
        }
      })
      const second = yield* provide(handle, Projection.openPersisted(counted, often))
      expect((yield* second.awaitOffset(offset)).state.counts).toStrictEqual({ ada: 62 })
      expect(applied).toBe(12)
      const versions = Effect.map(status, (all) => all.map(({ complete, version }) => ({ complete, version })))
      yield* eventually(versions, ([one]) => one?.version === 2 && one.complete)
      // the old program goes on, and saves no more
      const { offset: last } = yield* handle.ledger.append(event("most"))
      expect((yield* first.awaitOffset(last)).state.counts).toStrictEqual({ ada: 32 })
      yield* Scope.close(old, Exit.void)
      expect(yield* versions).toStrictEqual([{ complete: true, version: 2 }])
    }))

  it.scopedLive("opened in a transaction that is rolled back, it is not behind what never was", () =>
    Effect.gen(function*() {
      const handle = yield* open(layer())
      yield* handle.ledger.appendAll(events(30))
      const scope = yield* Effect.scope
      let live: Projection.Live<ReturnType<typeof said>["initial"]> | undefined
      const opening = Effect.gen(function*() {
        yield* handle.ledger.append(event("undone"))
        live = yield* provide(handle, Scope.extend(Projection.open(said()), scope))
        expect((yield* live.current).lag).toBe(31)
        return yield* Effect.fail("undo")
      })
      expect(yield* failure(handle.store.transaction(opening))).toBe("undo")
      expect(yield* live!.awaitOffset(30)).toMatchObject({ offset: 30, lag: 0, state: { counts: { ada: 30 } } })
    }))

  it.scopedLive("the saved state of another log is refused until it is discarded", () =>
    Effect.gen(function*() {
      const handle = yield* open(layer())
      yield* handle.ledger.appendAll(events(5))
      const scope = yield* Scope.make()
      const live = yield* provide(handle, Scope.extend(Projection.openPersisted(said()), scope))
      yield* live.awaitOffset(5)
      yield* Scope.close(scope, Exit.void)
      yield* handle.admin.reset
      yield* handle.ledger.appendAll(events(7, "other"))
      const error = yield* failure(provide(handle, Projection.openPersisted(said())))
      expect(error).toMatchObject({ _tag: "LedgerReplaced" })
      yield* provide(handle, Projection.discard("said"))
      const again = yield* provide(handle, Projection.openPersisted(said()))
      expect((yield* again.awaitOffset(7)).state.counts).toStrictEqual({ ada: 7 })
    }))

  it.scopedLive("what cannot go on fails, for everybody who asks", () =>
    Effect.gen(function*() {
      const handle = yield* open(layer())
      yield* handle.ledger.appendAll(events(5))
      const failing = Projection.make({
        ...said(),
        apply: (state: ReturnType<typeof said>["initial"], one: RecordedEvent) => {
          if (one.offset === 3) throw new Error("three")
          return state
        }
      })
      const live = yield* provide(handle, Projection.open(failing))
      const waiting = yield* Effect.fork(failure(live.awaitOffset(5)))
      const expected = { _tag: "ProjectionFailed", name: "said", version: 1, offset: 3 }
      expect(yield* Fiber.join(waiting)).toMatchObject(expected)
      expect(yield* failure(live.current)).toMatchObject(expected)
      expect(yield* failure(Stream.runDrain(live.changes))).toMatchObject(expected)
      for (const [bad, path] of [[{ ...said(), name: "" }, "name"], [{ ...said(), version: 0 }, "version"]] as const) {
        expect(yield* failure(provide(handle, Projection.open(bad)))).toMatchObject({ _tag: "InvalidQuery", path })
      }
    }))
}

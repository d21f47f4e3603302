/**
 * The contract that every backend of the ledger obeys, as a test suite for vitest.
 *
 * @since 0.1.0
 */
import { describe } from "@effect/vitest"
import type { Backend } from "./Backend.js"
import { composition } from "./composition.js"
import { condition } from "./condition.js"
import { consuming } from "./consuming.js"
import { divergence } from "./divergence.js"
import { identity } from "./identity.js"
import { input } from "./input.js"
import { keepingAtHand } from "./keeping.js"
import { order } from "./order.js"
import { projecting } from "./projecting.js"
import { query } from "./query.js"
import { reading } from "./reading.js"
import { stored } from "./stored.js"
import { subscribing } from "./subscribing.js"
import { verifying } from "./verifying.js"

/**
 * @since 0.1.0
 */
export * from "./Backend.js"

/**
 * Declares the tests of the contract for one backend. Each test is named after the law that it shows; they are the laws
 * that docs/guarantees.md lists. Call it from a test file of vitest.
 *
 * @example
 * ```ts
 * import { MemoryLedger } from "effect-ledger"
 * import { suite } from "effect-ledger/testing"
 *
 * suite("memory", { layer: () => MemoryLedger.layer })
 * ```
 *
 * @since 0.1.0
 * @category testing
 */
export const suite = (name: string, backend: Backend): void => {
  describe(name, () => {
    describe("identity", () => identity(backend))
    describe("divergence", () => divergence(backend))
    describe("order", () => order(backend))
    describe("reading", () => reading(backend))
    describe("keeping at hand", () => keepingAtHand(backend))
    describe("query", () => query(backend))
    describe("condition", () => condition(backend))
    describe("input", () => input(backend))
    describe("composition", () => composition(backend))
    describe("subscribing", () => subscribing(backend))
    describe("verifying", () => verifying(backend))
    if (backend.consumers !== undefined) {
      const { consumers } = backend
      describe("consuming", () => consuming(backend, consumers))
      describe("projecting", () => projecting(consumers))
    }
    if (backend.stored !== undefined) {
      const { stored: layer } = backend
      describe("several handles", () => stored(layer))
    }
  })
}

/** A process of its own that appends: `tsx appender.ts NAME COUNT`, the ledger from the environment. */
import { Effect } from "effect"
import { Event, Ledger, LedgerConfig } from "../../src/index.js"

const [name = "", count = "0"] = process.argv.slice(2)

const program = Effect.forEach(
  Array.from({ length: Number(count) }, (_, turn) => turn),
  (turn) =>
    Effect.flatMap(
      Event.create({
        id: Event.deterministicId(name, String(turn)),
        runId: name,
        turn,
        kind: "agent.spoke",
        actor: name,
        payload: { turn }
      }),
      Ledger.append
    ),
  { discard: true }
)

await Effect.runPromise(Effect.provide(program, LedgerConfig.layer))

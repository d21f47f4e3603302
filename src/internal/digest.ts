/** The SHA-256 of an event's canonical JSON. Frozen: what is hashed may never change. */
import * as Crypto from "node:crypto"
import type { Row } from "../LedgerStore.js"
import { quote } from "./canonicalJson.js"
import { formatTime } from "./fields.js"

/** A row that has no digest yet. */
export type Content = Omit<Row, "digest">

/** The canonical JSON of the eleven-key encoded form: keys sorted, nulls present, `created_at` in ISO 8601 UTC. */
export const canonicalEvent = (event: Content): string =>
  `{"actor":${quote(event.actor)},"created_at":"${formatTime(event.createdAt)}","id":${
    quote(event.id)
  },"kind":"${event.kind}",` +
  `"model_id":${quoteOrNull(event.modelId)},"model_profile":${
    quoteOrNull(event.modelProfile)
  },"payload":${event.payload},` +
  `"run_id":${quote(event.runId)},"schema_version":${event.schemaVersion},"session_id":${
    quoteOrNull(event.sessionId)
  },` +
  `"turn":${event.turn}}`

/** 64 lowercase hexadecimal digits. */
export const digest = (event: Content): string => sha256(canonicalEvent(event))

const quoteOrNull = (text: string | null): string => text === null ? "null" : quote(text)

// the one-shot form came with Node 20.12 and takes half the time
export const sha256: (text: string) => string = typeof Crypto.hash === "function"
  ? (text) => Crypto.hash("sha256", text, "hex")
  : (text) => Crypto.createHash("sha256").update(text).digest("hex")

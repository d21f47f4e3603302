/** What a checked filter says of one event. */
import type { StoreFilter } from "../LedgerStore.js"

interface Fields {
  readonly runId: string
  readonly kind: string
  readonly actor: string
  readonly sessionId: string | null
  readonly modelId: string | null
  readonly createdAt: number | { readonly epochMillis: number }
}

export const matches = (filter: StoreFilter, event: Fields): boolean => {
  const time = typeof event.createdAt === "number" ? event.createdAt : event.createdAt.epochMillis
  return (filter.runId === undefined || filter.runId === event.runId) &&
    (filter.kinds === undefined || filter.kinds.includes(event.kind)) &&
    (filter.actors === undefined || filter.actors.includes(event.actor)) &&
    (filter.sessionIds === undefined || (event.sessionId !== null && filter.sessionIds.includes(event.sessionId))) &&
    (filter.modelIds === undefined || (event.modelId !== null && filter.modelIds.includes(event.modelId))) &&
    (filter.createdFrom === undefined || time >= filter.createdFrom) &&
    (filter.createdUntil === undefined || time < filter.createdUntil)
}

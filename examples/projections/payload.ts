/** What projections read of payloads. A payload may be of any shape: what is not there, or is of another type, is null. */
import type { Event } from "../../src/index.js"

export const text = (payload: Event.JsonObject, field: string): string | null => {
  const value = payload[field]
  return typeof value === "string" ? value : null
}

export const texts = (payload: Event.JsonObject, field: string): ReadonlyArray<string> => {
  const value = payload[field]
  return Array.isArray(value) ? value.filter((one) => typeof one === "string") : []
}

/** The filters of a query, as flags. */
import * as Options from "@effect/cli/Options"
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import { parseTime } from "../internal/fields.js"
import type { Filter, Query } from "../Query.js"

const names = (name: string, description: string) =>
  Options.text(name).pipe(Options.withDescription(`${description}; may be repeated.`), Options.repeated)

const moment = (name: string, description: string) =>
  Options.text(name).pipe(
    Options.filterMap(
      (text) =>
        Option.map(Option.fromNullable(parseTime(/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T00:00Z` : text)), (millis) =>
          DateTime.unsafeMake(millis)),
      `--${name} takes an ISO 8601 date, or date and time, such as 2026-11-23T18:00:00Z`
    ),
    Options.withDescription(description),
    Options.optional
  )

const offset = (name: string, description: string) =>
  Options.integer(name).pipe(Options.withDescription(description), Options.optional)

/** Which events. Different flags must all match, of a repeated one any. */
export const filter = {
  run: Options.text("run").pipe(Options.withDescription("Events of this run."), Options.optional),
  kind: names("kind", "Events of this kind"),
  actor: names("actor", "Events of this actor"),
  session: names("session", "Events of this session"),
  model: names("model", "Events of this model"),
  from: moment("from", "Events created at this time or later (ISO 8601, UTC unless it says otherwise)."),
  until: moment("until", "Events created before this time.")
}

/** Which part of the log. */
export const range = {
  after: offset("after", "Events after this offset."),
  through: offset("through", "Events up to this offset.")
}

/** At most so many. */
export const limit: Options.Options<Option.Option<number>> = Options.integer("limit").pipe(
  Options.withAlias("n"),
  Options.withDescription("At most so many."),
  Options.optional
)

type Values<A> = { readonly [K in keyof A]: A[K] extends Options.Options<infer V> ? V : never }

export const toFilter = (flags: Values<typeof filter>): Filter => ({
  runId: Option.getOrUndefined(flags.run),
  kinds: some(flags.kind),
  actors: some(flags.actor),
  sessionIds: some(flags.session),
  modelIds: some(flags.model),
  createdFrom: Option.getOrUndefined(flags.from),
  createdUntil: Option.getOrUndefined(flags.until)
})

export const toRange = (flags: Values<typeof range>): Query => ({
  after: Option.getOrUndefined(flags.after),
  through: Option.getOrUndefined(flags.through)
})

const some = (values: ReadonlyArray<string>): ReadonlyArray<string> | undefined =>
  values.length === 0 ? undefined : values

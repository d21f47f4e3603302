/** The rates as a picture. */
import * as Vega from "vega"
import { compile, type TopLevelSpec } from "vega-lite"
import type { Results } from "./report.js"

/** SVG. A dot is a median, its line goes from the least to the greatest. */
export const plot = ({ machine, rates }: Results): Promise<string> => {
  const values = rates.filter(({ ratio }) => ratio !== undefined).flatMap(({ backend, sides, workload }) =>
    Object.entries(sides).map(([side, rate]) => ({
      backend,
      workload,
      side,
      median: rate.median,
      min: rate.min,
      max: rate.max
    }))
  )
  const names = [...new Set(values.map(({ side }) => side))]
  const x = { type: "quantitative", scale: { type: "log" }, title: "events a second, the more the better" } as const
  const y = { field: "workload", type: "nominal", title: null, sort: null } as const
  const color = {
    field: "side",
    type: "nominal",
    title: null,
    scale: { domain: names, range: colors.slice(0, names.length) },
    legend: { orient: "top" }
  } as const
  const spec: TopLevelSpec = {
    background: "white",
    title: {
      text: "effect-ledger beside the bare driver, same table, same durability",
      subtitle: `${machine.processor}, ${machine.cores} cores, Node ${machine.versions["Node"]}`
    },
    data: { values },
    facet: { row: { field: "backend", type: "nominal", title: null, sort: backends } },
    spec: {
      width: 520,
      height: { step: 18 },
      layer: [
        {
          mark: { type: "rule", strokeWidth: 2 },
          encoding: { x: { ...x, field: "min" }, x2: { field: "max" }, y, color }
        },
        {
          mark: { type: "point", filled: true, size: 70, opacity: 1 },
          encoding: { x: { ...x, field: "median" }, y, color }
        }
      ]
    },
    config: { font: "sans-serif", axis: { labelLimit: 240 }, view: { stroke: "#ddd" } }
  }
  return new Vega.View(Vega.parse(compile(spec).spec), { renderer: "none" }).toSVG()
}

const backends = ["SQLite FULL", "SQLite NORMAL", "Postgres"]

/** Those of Okabe and Ito, which the colour-blind can tell apart. */
const colors = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"]

import { describe, expect, it } from "@effect/vitest"
import canonicalize from "canonicalize"
import * as FastCheck from "effect/FastCheck"
import { runInNewContext } from "node:vm"
import { canonicalJson, formatPath, isWellFormed, maxDepth, quote } from "../src/internal/canonicalJson.js"

const unlimited = Number.MAX_SAFE_INTEGER

describe("canonicalJson", () => {
  describe("RFC 8785", () => {
    it("writes the sample of section 3.2.2 as section 3.2.3 shows it, byte by byte as in 3.2.4", () => {
      const sample = JSON.parse(String.raw`{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
      }`)
      const bytes =
        "7b 22 6c 69 74 65 72 61 6c 73 22 3a 5b 6e 75 6c 6c 2c 74 72 75 65 2c 66 61 6c 73 65 5d 2c 22 6e 75 " +
        "6d 62 65 72 73 22 3a 5b 33 33 33 33 33 33 33 33 33 2e 33 33 33 33 33 33 33 2c 31 65 2b 33 30 2c 34 2e 35 2c " +
        "30 2e 30 30 32 2c 31 65 2d 32 37 5d 2c 22 73 74 72 69 6e 67 22 3a 22 e2 82 ac 24 5c 75 30 30 30 66 5c 6e 41 " +
        "27 42 5c 22 5c 5c 5c 5c 5c 22 2f 22 7d"
      expect(text(sample)).toBe(
        String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],` +
          String.raw`"string":"€$\u000f\nA'B\"\\\\\"/"}`
      )
      expect(Buffer.from(text(sample)).toString("hex")).toBe(bytes.replaceAll(" ", ""))
    })

    it("sorts keys by UTF-16 units, so that an emoji comes before a Hebrew presentation form", () => {
      const sample = JSON.parse(String.raw`{
        "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
        "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"
      }`)
      expect(Object.values(JSON.parse(text(sample).replace("\"1\"", "\"_1\"")))).toStrictEqual([
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh"
      ])
    })

    it("keeps keys and values as they are: no normalization, no escape of what need not be escaped", () => {
      expect(text({ "\u00e9": 1, "e\u0301": 2 })).toBe("{\"e\u0301\":2,\"\u00e9\":1}")
      expect(text("\u007f\u2028\u2029</script>")).toBe("\"\u007f\u2028\u2029</script>\"")
      expect(text("\b\t\n\f\r\u0000\u001f")).toBe(String.raw`"\b\t\n\f\r\u0000\u001f"`)
    })

    // Appendix B
    it.each([
      ["0000000000000000", "0"],
      ["8000000000000000", "0"],
      ["0000000000000001", "5e-324"],
      ["8000000000000001", "-5e-324"],
      ["7fefffffffffffff", "1.7976931348623157e+308"],
      ["ffefffffffffffff", "-1.7976931348623157e+308"],
      ["4340000000000000", "9007199254740992"],
      ["c340000000000000", "-9007199254740992"],
      ["4430000000000000", "295147905179352830000"],
      ["44b52d02c7e14af5", "9.999999999999997e+22"],
      ["44b52d02c7e14af6", "1e+23"],
      ["44b52d02c7e14af7", "1.0000000000000001e+23"],
      ["444b1ae4d6e2ef4e", "999999999999999700000"],
      ["444b1ae4d6e2ef4f", "999999999999999900000"],
      ["444b1ae4d6e2ef50", "1e+21"],
      ["3eb0c6f7a0b5ed8c", "9.999999999999997e-7"],
      ["3eb0c6f7a0b5ed8d", "0.000001"],
      ["41b3de4355555553", "333333333.3333332"],
      ["41b3de4355555554", "333333333.33333325"],
      ["41b3de4355555555", "333333333.3333333"],
      ["41b3de4355555556", "333333333.3333334"],
      ["41b3de4355555557", "333333333.33333343"],
      ["becbf647612f3696", "-0.0000033333333333333333"],
      ["43143ff3c1cb0959", "1424953923781206.2"]
    ])("writes the number %s as %s", (bits, expected) => {
      expect(text(Buffer.from(bits, "hex").readDoubleBE())).toBe(expected)
    })

    it.each(["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])("refuses the number %s", (bits) => {
      const number = Buffer.from(bits, "hex").readDoubleBE()
      expect(canonicalJson({ a: [number] }, unlimited)).toStrictEqual({
        path: ["a", 0],
        reason: `${number} is not a JSON number`
      })
    })
  })

  describe("agreement", () => {
    const json = FastCheck.jsonValue({ maxDepth: 6, stringUnit: "binary" }).filter((value) =>
      !JSON.stringify(value).includes("__proto__")
    )

    it("with the package canonicalize, on random JSON", () => {
      FastCheck.assert(
        FastCheck.property(json, (value) => {
          expect(text(value)).toBe(canonicalize(value))
        }),
        { numRuns: 2_000, verbose: 1 }
      )
    })

    it("with JSON.parse: what was written reads back equal, and its canonical text is itself", () => {
      FastCheck.assert(
        FastCheck.property(json, (value) => {
          const written = text(value)
          const read = JSON.parse(written)
          expect(read).toEqual(JSON.parse(JSON.stringify(value)))
          expect(text(read)).toBe(written)
        }),
        { numRuns: 1_000, verbose: 1 }
      )
    })

    it("whatever the order in which keys were added", () => {
      const members = FastCheck.uniqueArray(
        FastCheck.tuple(FastCheck.string({ unit: "binary" }), FastCheck.integer()),
        {
          selector: ([key]) => key,
          minLength: 2
        }
      ).filter((list) => list.every(([key]) => key !== "__proto__"))
      FastCheck.assert(
        FastCheck.property(members, (list) => {
          expect(text(Object.fromEntries(list.toReversed()))).toBe(text(Object.fromEntries(list)))
        }),
        { numRuns: 500, verbose: 1 }
      )
    })
  })

  describe("strictness", () => {
    class Money {
      readonly amount = 1
    }
    class Tags extends Array<string> {}
    const named = Object.assign([1, 2], { unit: "m" })
    const withSymbol = { [Symbol("secret")]: 1 }
    const arrayWithSymbol = Object.assign([1], withSymbol)
    // oxlint-disable-next-line no-sparse-arrays
    const holed = [0, , 2]
    const holeAndName = Object.assign(holed.slice(), { unit: "m" })

    it.each<[string, unknown, string]>([
      ["undefined", undefined, "undefined is not a JSON value"],
      ["NaN", Number.NaN, "NaN is not a JSON number"],
      ["Infinity", -Infinity, "-Infinity is not a JSON number"],
      ["a BigInt", 1n, "a bigint is not a JSON value"],
      ["a function", () => 1, "a function is not a JSON value"],
      ["a symbol", Symbol.iterator, "a symbol is not a JSON value"],
      ["a Date", new Date(0), "a Date is not a plain JSON object"],
      ["a Map", new Map(), "a Map is not a plain JSON object"],
      ["a Set", new Set(), "a Set is not a plain JSON object"],
      ["a RegExp", /a/, "a RegExp is not a plain JSON object"],
      ["an Error", new Error("no"), "a Error is not a plain JSON object"],
      ["a Promise", Promise.resolve(), "a Promise is not a plain JSON object"],
      ["bytes", new Uint8Array(2), "a Uint8Array is not a plain JSON object"],
      ["a boxed number", Object(1), "a Number is not a plain JSON object"],
      ["a class instance", new Money(), "a Money is not a plain JSON object"],
      [
        "an object that inherits from a nameless one",
        Object.create(Object.create(null)),
        "a class instance is not a plain JSON object"
      ],
      ["an object with an inherited member", Object.create({ a: 1 }), "a Object is not a plain JSON object"],
      ["an object with toJSON", { toJSON: () => 1 }, "a function is not a JSON value"],
      ["a symbol key", withSymbol, "a symbol key is not JSON"],
      ["a lone high surrogate", "a\ud800", "a lone surrogate is not a character"],
      ["a lone low surrogate", "\udc00a", "a lone surrogate is not a character"],
      ["surrogates in the wrong order", "\ude00\ud83d", "a lone surrogate is not a character"],
      ["an array with a named property", named, "an array with named properties is not JSON"],
      ["an array with a symbol key", arrayWithSymbol, "a symbol key is not JSON"],
      ["an instance of a class of arrays", Tags.from(["a"]), "a Tags is not a plain JSON array"]
    ])("refuses %s, at the root and within", (_, value, reason) => {
      const inner = typeof value === "object" && value !== null && "toJSON" in value && !(value instanceof Date)
        ? ["toJSON"]
        : []
      expect(canonicalJson(value, unlimited)).toStrictEqual({ path: inner, reason })
      expect(canonicalJson({ a: [0, value] }, unlimited)).toStrictEqual({ path: ["a", 1, ...inner], reason })
    })

    it("refuses a hole and says where it is", () => {
      expect(canonicalJson(holed, unlimited)).toStrictEqual({ path: [1], reason: "an array with a hole is not JSON" })
      expect(canonicalJson({ a: new Array(3) }, unlimited)).toStrictEqual({
        path: ["a", 0],
        reason: "an array with a hole is not JSON"
      })
      expect(canonicalJson(new Array(2 ** 32 - 1), unlimited)).toHaveProperty("path", [0])
      expect(canonicalJson(holeAndName, unlimited)).toHaveProperty("path", [1])
    })

    it.each(["", "a.b", "ä", "\ud800", "x\udfff"])("names the key %j in the path", (key) => {
      expect(canonicalJson({ [key]: undefined }, unlimited)).toHaveProperty("path", [key])
    })

    it("refuses lone surrogates in keys", () => {
      for (const key of ["\ud800", "a\udc00b", "\udc00\ud800"]) {
        expect(canonicalJson({ [key]: 1 }, unlimited)).toStrictEqual({
          path: [key],
          reason: "a lone surrogate in a key is not a character"
        })
      }
      expect(text({ "😀": 1 })).toBe("{\"😀\":1}")
    })

    it("refuses a __proto__ key, which JSON.parse makes; a prototype set by a literal is no key", () => {
      expect(canonicalJson(JSON.parse("{\"a\":{\"__proto__\":1}}"), unlimited)).toMatchObject({
        path: ["a", "__proto__"],
        reason: expect.stringContaining("__proto__")
      })
      expect(text({ __proto__: null, a: 1 })).toBe("{\"a\":1}")
      expect(text(JSON.parse("{\"constructor\":1,\"prototype\":2}"))).toBe("{\"constructor\":1,\"prototype\":2}")
    })

    it("refuses getters and proxies that throw, and accepts those that answer", () => {
      const refusal = { path: [], reason: "reading it threw an exception" }
      const thrower = () => {
        throw new Error("no")
      }
      expect(canonicalJson({ a: Object.defineProperty({}, "b", { get: thrower, enumerable: true }) }, unlimited))
        .toStrictEqual(refusal)
      for (const trap of ["get", "ownKeys", "getPrototypeOf", "getOwnPropertyDescriptor"] as const) {
        expect(canonicalJson(new Proxy({ a: 1 }, { [trap]: thrower }), unlimited)).toStrictEqual(refusal)
      }
      const { proxy, revoke } = Proxy.revocable({}, {})
      revoke()
      expect(canonicalJson([proxy], unlimited)).toStrictEqual(refusal)
      expect(text({
        get a() {
          return 1
        }
      })).toBe("{\"a\":1}")
    })

    it("asks each getter once, so that what was checked is what is written", () => {
      let reads = 0
      const value = {
        get a() {
          return ++reads === 1 ? "first" : Number.NaN
        }
      }
      expect(text(value)).toBe("{\"a\":\"first\"}")
      expect(reads).toBe(1)
    })

    it("accepts plain objects without a prototype, frozen ones, and those of another realm", () => {
      expect(text(Object.assign(Object.create(null), { b: 1, a: [] }))).toBe("{\"a\":[],\"b\":1}")
      expect(text(Object.freeze({ a: Object.freeze([1]) }))).toBe("{\"a\":[1]}")
      expect(text(runInNewContext("({ b: [1, {}], a: null })"))).toBe("{\"a\":null,\"b\":[1,{}]}")
      expect(canonicalJson(runInNewContext("({ a: new Date(0) })"), unlimited)).toHaveProperty("path", ["a"])
      expect(canonicalJson(runInNewContext("class T extends Array {}; [new T()]"), unlimited)).toHaveProperty("path", [
        0
      ])
    })

    it("leaves the value untouched", () => {
      const value = Object.freeze({ b: Object.freeze([3, 1, 2]), a: Object.freeze({ d: 1, c: 2 }) })
      text(value)
      expect(Object.keys(value)).toStrictEqual(["b", "a"])
      expect(value.b).toStrictEqual([3, 1, 2])
    })
  })

  describe("cycles and sharing", () => {
    const cycle = "a cycle is not JSON"

    it("names the place where a cycle closes for the first time", () => {
      const self: Record<string, unknown> = {}
      self["me"] = self
      expect(canonicalJson(self, unlimited)).toStrictEqual({ path: ["me"], reason: cycle })

      const list: Array<unknown> = [1]
      list.push(list)
      expect(canonicalJson({ a: { b: list } }, unlimited)).toStrictEqual({ path: ["a", "b", 1], reason: cycle })

      const long: Record<string, unknown> = { x: { y: [{}] } }
      ;(long as any).x.y[0].back = long.x
      expect(canonicalJson({ root: long }, unlimited)).toStrictEqual({
        path: ["root", "x", "y", 0, "back"],
        reason: cycle
      })
    })

    it("finds a cycle deep down", () => {
      const end: Record<string, unknown> = {}
      end["loop"] = end
      expect(canonicalJson(nest(maxDepth - 2, end), unlimited)).toHaveProperty("reason", cycle)
      expect((canonicalJson(nest(maxDepth - 2, end), unlimited) as any).path).toHaveLength(maxDepth - 1)
    })

    it("accepts a reference that is shared but closes no cycle", () => {
      const shared = { x: [1] }
      expect(text({ a: shared, b: [shared, shared], c: { d: shared } })).toBe(
        "{\"a\":{\"x\":[1]},\"b\":[{\"x\":[1]},{\"x\":[1]}],\"c\":{\"d\":{\"x\":[1]}}}"
      )
    })

    it.each<[string, (inner: unknown) => unknown, unknown]>([
      ["objects with a string", (inner) => ({ a: inner, b: inner }), "leaf"],
      ["objects that end in an empty one", (inner) => ({ a: inner, b: inner }), {}],
      ["arrays of numbers", (inner) => [inner, inner], 1],
      ["arrays with nothing in them", (inner) => [inner, inner], []]
    ])("stops a small graph that would unfold to 2^100 members: %s", (_, double, leaf) => {
      let value = leaf
      for (let depth = 0; depth < 100; depth++) value = double(value)
      let visited = 0
      const counting = (target: object): object =>
        new Proxy(target, {
          get: (object, key, receiver) => {
            if (++visited > 100_000) throw new Error("goes on without end")
            const member = Reflect.get(object, key, receiver)
            return typeof member === "object" && member !== null ? counting(member) : member
          }
        })
      expect(canonicalJson(counting(value as object), 10_000)).toHaveProperty("reason", "is too large")
    })
  })

  describe("depth", () => {
    it("accepts 128 levels and refuses 129, of objects and of arrays", () => {
      expect(maxDepth).toBe(128)
      expect(text(nest(127, {}))).toBe("{\"a\":".repeat(127) + "{}" + "}".repeat(127))
      expect(canonicalJson(nest(128, {}), unlimited)).toStrictEqual({
        path: new Array(128).fill("a"),
        reason: "is nested deeper than 128 levels"
      })
      expect(text(JSON.parse("[".repeat(128) + "]".repeat(128)))).toHaveLength(256)
      expect(canonicalJson(JSON.parse("[".repeat(129) + "]".repeat(129)), unlimited)).toMatchObject({
        path: new Array(128).fill(0),
        reason: "is nested deeper than 128 levels"
      })
    })

    it("counts levels along one branch, not in total", () => {
      const branch = nest(126, {})
      expect(typeof canonicalJson([branch, branch, branch], unlimited)).toBe("string")
    })

    it("survives a nesting of 100,000 levels", () => {
      expect(canonicalJson(nest(100_000, {}), unlimited)).toHaveProperty("reason", "is nested deeper than 128 levels")
      expect(canonicalJson(JSON.parse("[".repeat(100_000) + "]".repeat(100_000)), unlimited)).toHaveProperty(
        "reason",
        "is nested deeper than 128 levels"
      )
    })
  })

  describe("maxLength", () => {
    it.each([
      "{}",
      "[]",
      "null",
      "false",
      "\"\"",
      "\"\\\"\\n\"",
      "12",
      "{\"a\":1}",
      "{\"a\":{}}",
      "{\"a\":1,\"b\":[],\"c\":\"ä😀\"}",
      "[[],[]]",
      "[[[]],{},1,\"x\"]"
    ])("accepts %s at its exact length and refuses it at one less", (written) => {
      const value: unknown = JSON.parse(written)
      expect(canonicalJson(value, written.length)).toBe(written)
      expect(canonicalJson(value, written.length - 1)).toHaveProperty("reason", "is too large")
    })

    it("is exact on random JSON", () => {
      FastCheck.assert(
        FastCheck.property(FastCheck.jsonValue({ maxDepth: 4 }), (value) => {
          const written = canonicalJson(value, unlimited)
          if (typeof written !== "string") return
          expect(canonicalJson(value, written.length)).toBe(written)
          expect(canonicalJson(value, written.length - 1)).toHaveProperty("reason", "is too large")
        }),
        { numRuns: 500, verbose: 1 }
      )
    })

    it("names the member that goes over it", () => {
      expect(canonicalJson({ a: "x", b: ["y".repeat(100)] }, 50)).toStrictEqual({
        path: ["b", 0],
        reason: "is too large"
      })
    })
  })

  it("quotes a string as the walk does", () => {
    for (const value of ["", "a", "\"", "\\", "\u0000", "😀", "\u2028"]) expect(quote(value)).toBe(text(value))
  })

  it("tells well-formed strings from others", () => {
    expect(["", "a", "😀", "\uffff"].map(isWellFormed)).toStrictEqual([true, true, true, true])
    expect(["\ud83d", "\ude00\ud83d", "a\ud800b", "😀\udfff"].map(isWellFormed)).toStrictEqual([
      false,
      false,
      false,
      false
    ])
  })

  it("writes paths as people do", () => {
    expect(formatPath("payload", [])).toBe("payload")
    expect(formatPath("payload", ["tools", 2, "args"])).toBe("payload.tools[2].args")
    expect(formatPath("payload", ["a.b", "", "2", "$_x9"])).toBe("payload[\"a.b\"][\"\"][\"2\"].$_x9")
  })
})

const text = (value: unknown): string => {
  const result = canonicalJson(value, unlimited)
  if (typeof result !== "string") throw new Error(`refused: ${formatPath("value", result.path)}: ${result.reason}`)
  return result
}

const nest = (levels: number, leaf: unknown): unknown => {
  let value = leaf
  for (let level = 0; level < levels; level++) value = { a: value }
  return value
}

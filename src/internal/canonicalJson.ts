/**
 * RFC 8785 (JSON Canonicalization Scheme) for values that are strictly JSON.
 *
 * One walk checks the value and writes its canonical text. The `canonicalize` package agrees with it on the RFC's own
 * vectors, but drops `undefined`, calls `toJSON` and converts what it does not know; a ledger may do none of these.
 */

/** The deepest nesting of objects and arrays that is accepted. */
export const maxDepth = 128

/** Why a value is not JSON, and where. */
export interface JsonIssue {
  readonly path: ReadonlyArray<string | number>
  readonly reason: string
}

interface Walk {
  readonly maxLength: number
  readonly ancestors: Array<object>
  readonly path: Array<string | number>
  length: number
  depth: number
  reason: string
}

/**
 * The canonical JSON text of `value`, or the first thing in it that is not JSON. `maxLength` bounds the text in UTF-16
 * units, so that a small graph with shared members cannot unfold to gigabytes.
 */
export const canonicalJson = (value: unknown, maxLength: number): string | JsonIssue => {
  const walk: Walk = { maxLength, ancestors: [], path: [], length: 0, depth: maxDepth, reason: "" }
  try {
    const text = write(value, walk)
    return text === undefined ? { path: walk.path.toReversed().slice(0, walk.depth), reason: walk.reason } : text
  } catch {
    // a getter or a proxy in the value threw
    return { path: [], reason: "reading it threw an exception" }
  }
}

/** Whether a value can be the root of a payload. A proxy that was revoked can: the walk tells what is wrong with it. */
export const isObject = (value: unknown): boolean => {
  try {
    return typeof value === "object" && value !== null && !Array.isArray(value)
  } catch {
    return true
  }
}

/** A string as RFC 8785 writes it. The string must be well-formed. */
export const quote = (text: string): string => mustEscape.test(text) ? JSON.stringify(text) : `"${text}"`

/** Whether a string holds no lone surrogate. */
export const isWellFormed = (text: string): boolean => text.isWellFormed()

/** A path as people write it: `payload.tools[2].args`. */
export const formatPath = (root: string, path: ReadonlyArray<string | number>): string =>
  path.reduce<string>(
    (text, key) =>
      typeof key === "number"
        ? `${text}[${key}]`
        : identifier.test(key)
        ? `${text}.${key}`
        : `${text}[${JSON.stringify(key)}]`,
    root
  )

// eslint-disable-next-line no-control-regex
const mustEscape = /["\\\u0000-\u001f]/
const identifier = /^[A-Za-z_$][\w$]*$/

const fail = (walk: Walk, reason: string): undefined => {
  walk.reason = reason
  return undefined
}

const write = (value: unknown, walk: Walk): string | undefined => {
  switch (typeof value) {
    case "string": {
      // before it is looked at: escaped it could be longer than any string
      if (value.length > walk.maxLength) return fail(walk, "is too large")
      if (!isWellFormed(value)) return fail(walk, "a lone surrogate is not a character")
      return grow(walk, quote(value))
    }
    case "number": {
      if (!Number.isFinite(value)) return fail(walk, `${value} is not a JSON number`)
      return grow(walk, String(value))
    }
    case "boolean":
      return grow(walk, value ? "true" : "false")
    case "object":
      if (value === null) return grow(walk, "null")
      return Array.isArray(value) ? writeArray(value, walk) : writeObject(value as Record<string, unknown>, walk)
    default:
      return fail(walk, `${value === undefined ? "undefined" : `a ${typeof value}`} is not a JSON value`)
  }
}

const grow = (walk: Walk, text: string): string | undefined => {
  walk.length += text.length
  return walk.length > walk.maxLength ? fail(walk, "is too large") : text
}

const enter = (value: object, walk: Walk): boolean => {
  walk.length += 2
  // here too, or empty arrays without end would never be weighed
  if (walk.length > walk.maxLength) {
    fail(walk, "is too large")
    return false
  }
  if (walk.ancestors.length < maxDepth) {
    walk.ancestors.push(value)
    return true
  }
  const repeat = walk.ancestors.findIndex((ancestor, index) => walk.ancestors.indexOf(ancestor) < index)
  if (repeat < 0) {
    fail(walk, `is nested deeper than ${maxDepth} levels`)
  } else {
    walk.depth = repeat
    fail(walk, "a cycle is not JSON")
  }
  return false
}

const writeArray = (value: ReadonlyArray<unknown>, walk: Walk): string | undefined => {
  // the prototype of plain arrays, in any realm, is itself an array
  if (!Array.isArray(Object.getPrototypeOf(value))) return fail(walk, `a ${nameOf(value)} is not a plain JSON array`)
  if (Object.getOwnPropertySymbols(value).length > 0) return fail(walk, "a symbol key is not JSON")
  if (!enter(value, walk)) return undefined
  if (Object.keys(value).length !== value.length) {
    const hole = value.findIndex((_, index) => !(index in value))
    if (hole >= 0) walk.path.push(hole)
    return fail(walk, hole >= 0 ? "an array with a hole is not JSON" : "an array with named properties is not JSON")
  }
  let text = "["
  for (let index = 0; index < value.length; index++) {
    if (index > 0) {
      walk.length++
      text += ","
    }
    const member = write(value[index], walk)
    if (member === undefined) {
      walk.path.push(index)
      return undefined
    }
    text += member
  }
  walk.ancestors.pop()
  return text + "]"
}

const writeObject = (value: Record<string, unknown>, walk: Walk): string | undefined => {
  if (!isPlain(value)) return fail(walk, `a ${nameOf(value)} is not a plain JSON object`)
  if (Object.getOwnPropertySymbols(value).length > 0) return fail(walk, "a symbol key is not JSON")
  if (!enter(value, walk)) return undefined
  const keys = Object.keys(value)
  for (let index = 1; index < keys.length; index++) {
    if (keys[index - 1]! > keys[index]!) {
      keys.sort()
      break
    }
  }
  let text = "{"
  for (let index = 0; index < keys.length; index++) {
    const key = keys[index]!
    walk.length += index === 0 ? 1 : 2
    const name = writeKey(key, walk)
    const member = name === undefined ? undefined : write(value[key], walk)
    if (member === undefined) {
      walk.path.push(key)
      return undefined
    }
    text += (index === 0 ? name! : "," + name!) + ":" + member
  }
  walk.ancestors.pop()
  return text + "}"
}

const writeKey = (key: string, walk: Walk): string | undefined =>
  key === "__proto__"
    ? fail(walk, "the key __proto__ is refused: it changes the objects that are built from it")
    : key.length > walk.maxLength
    ? fail(walk, "is too large")
    : isWellFormed(key)
    ? grow(walk, quote(key))
    : fail(walk, "a lone surrogate in a key is not a character")

const nameOf = (value: object): string => {
  const name = (Object.getPrototypeOf(value) as { constructor?: { name?: unknown } } | null)?.constructor?.name
  return typeof name === "string" && name !== "" ? name : "class instance"
}

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null ||
    // a plain object of another realm
    (Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype as object, "isPrototypeOf"))
}

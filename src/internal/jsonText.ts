/** JSON text that others wrote, read without losing what it says. */

/** Why a text is not read. */
export class JsonRefusal {
  constructor(readonly reason: string) {}
}

/**
 * The value of a JSON text. An integer that would come back as another (beyond 2⁵³ not every one is a double) is refused:
 * other languages write such.
 */
export const parseJson = (text: string): unknown => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return new JsonRefusal("is not JSON")
  }
  const integer = longDigits.test(text) ? lostInteger(text) : undefined
  return integer === undefined
    ? value
    : new JsonRefusal(`the integer ${shorten(integer)} is no double: it would come back as ${Number(integer)}`)
}

const longDigits = /\d{16}/
const number = /(\d+)(\.\d+)?([eE][+-]?\d+)?/y
const quote = "\""

// a scanner, as a pattern for strings would need a stack as deep as they are long
const lostInteger = (text: string): string | undefined => {
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at)
    if (char === 34) {
      at = endOfString(text, at)
    } else if (char >= 48 && char <= 57) {
      number.lastIndex = at
      const [all, integer, fraction, exponent] = number.exec(text) as unknown as [string, string, ...Array<string>]
      if (fraction === undefined && exponent === undefined && integer.length >= 16 && !isKept(integer)) return integer
      at += all.length - 1
    }
  }
  return undefined
}

const endOfString = (text: string, start: number): number => {
  for (let end = text.indexOf(quote, start + 1);; end = text.indexOf(quote, end + 1)) {
    let escapes = 0
    while (text.charCodeAt(end - 1 - escapes) === 92) escapes++
    if (escapes % 2 === 0) return end
  }
}

/** Whether the decimal that canonical JSON writes for the integer is the integer. */
const isKept = (integer: string): boolean => {
  const double = Number(integer)
  if (Number.isSafeInteger(double)) return true
  // JSON has no such number, which is said where the value is looked at
  if (!Number.isFinite(double)) return true
  const [digits = "", exponent = "0"] = String(double).split("e")
  const [whole = "", fraction = ""] = digits.split(".")
  return BigInt(whole + fraction) * 10n ** BigInt(Number(exponent) - fraction.length) === BigInt(integer)
}

const shorten = (digits: string): string => digits.length > 40 ? `${digits.slice(0, 40)}…` : digits

// Run after `npm install` has changed package-lock.json on a registry that carries the binaries of some platforms only:
// npm leaves out the optional packages that it cannot see there, and `npm ci` then calls its own lock file out of sync.
// Name and version come from the parent's manifest, the platform from the name; there is no hash, nothing was fetched.
import { readFileSync, writeFileSync } from "node:fs"

const OS = ["aix", "android", "darwin", "freebsd", "linux", "netbsd", "openbsd", "openharmony", "sunos", "win32"]
const CPU = ["arm", "arm64", "ia32", "loong64", "mips64el", "ppc64", "riscv64", "s390x", "x64"]

const lock = JSON.parse(readFileSync("package-lock.json", "utf8"))
const packages = { ...lock.packages }

for (const [parent, { optionalDependencies = {} }] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(optionalDependencies)) {
    const words = name.split(/[/-]/)
    const os = OS.find((word) => words.includes(word))
    const cpu = CPU.find((word) => words.includes(word))
    const path = `node_modules/${name}`
    if (os === undefined || cpu === undefined || packages[path] || packages[`${parent}/${path}`]) continue
    const libc = os !== "linux"
      ? undefined
      : words.some((word) => word.startsWith("musl"))
      ? ["musl"]
      : words.some((word) => /^(gnu|glibc)/.test(word))
      ? ["glibc"]
      : undefined
    packages[path] = { version, cpu: [cpu], dev: true, libc, optional: true, os: [os] }
    console.log(`added ${name}@${version}`)
  }
}

lock.packages = Object.fromEntries(Object.entries(packages).sort(([a], [b]) => a.localeCompare(b, "en")))
writeFileSync("package-lock.json", `${JSON.stringify(lock, null, 2)}\n`)

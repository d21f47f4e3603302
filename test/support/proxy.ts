/** A TCP proxy on the loopback before a Postgres server, which does harm to the connections through it. */
import * as Net from "node:net"

/** What the library calls its LISTEN connections. */
export const listenerName = "effect-ledger listener"

export interface ProxyConnection {
  readonly isListener: boolean
  /** The server has answered its LISTEN. */
  listening: boolean
  /** Nothing passes any more, in either direction, not even the end. */
  silent: boolean
  /** The client has given it up, or it was cut. */
  closed: boolean
  /** Ends it on both sides. */
  readonly cut: () => void
}

/**
 * When the answer to a commit is lost. `answered`: the server has answered, and nothing of it reaches the client. `sent`:
 * the server has just been asked, and may or may not have committed.
 */
export type Loss = "answered" | "sent"

export interface Proxy {
  /** The server's URL by way of the proxy. */
  readonly url: string
  /** All that there were. */
  readonly connections: ReadonlyArray<ProxyConnection>
  /** New connections that this holds for are refused. */
  readonly refuse: (which: (connection: ProxyConnection) => boolean) => void
  readonly refused: () => number
  /** The answers to the next commits are lost: those of transactions, and of calls that append unless told otherwise. */
  readonly loseAnswers: (count: number, loss: Loss, of?: string) => void
  /** The next connection that appends within a transaction falls silent when the server was asked to. */
  readonly silenceInTransaction: () => void
  /** How many answers were lost: those that the server is known to have committed, and the others. */
  readonly lost: () => { readonly committed: number; readonly unknown: number }
  readonly close: () => void
}

export const startProxy = async (serverUrl: string): Promise<Proxy> => {
  const target = new URL(serverUrl)
  const connections: Array<ProxyConnection> = []
  const sockets = new Set<Net.Socket>()
  let refuses = (_: ProxyConnection): boolean => false
  let refused = 0
  let losses: Array<Loss> = []
  let losingOf = ""
  let silencing = false
  const lost = { committed: 0, unknown: 0 }

  const track = (socket: Net.Socket): Net.Socket => {
    sockets.add(socket.on("error", () => {}).on("close", () => sockets.delete(socket)))
    return socket
  }

  const connect = (client: Net.Socket, startup: Buffer): void => {
    const upstream = track(new Net.Socket())
    const state: ProxyConnection = {
      isListener: startup.includes(listenerName),
      listening: false,
      silent: false,
      closed: false,
      cut: () => {
        state.closed = true
        client.destroy()
        upstream.destroy()
      }
    }
    client.on("close", () => {
      state.closed = true
    })
    // a connection that just ends, and an answer that says no
    if (refuses(state)) return void (refused++ % 2 === 0 ? client.destroy() : client.end(tooManyConnections))
    connections.push(state)
    upstream.connect(Number(target.port), target.hostname)
    upstream.write(startup)

    let losing: Loss | undefined
    let falling = false
    let inTransaction = false
    let answer = Buffer.alloc(0)
    client.on("data", (bytes) => {
      if (state.silent) return
      upstream.write(bytes)
      // one call is a transaction of its own, several are between BEGIN and COMMIT
      const commits = bytes.includes("COMMIT\0")
      if (losing === undefined && (commits || (!inTransaction && bytes.includes(losingOf)))) losing = losses.shift()
      if (bytes.includes("BEGIN ISOLATION")) inTransaction = true
      if (commits || bytes.includes("ROLLBACK\0")) inTransaction = false
      if (silencing && inTransaction && bytes.includes("append_v")) {
        silencing = false
        falling = true
      }
      state.silent ||= falling && isAsked(bytes)
      if (losing === "sent" && isAsked(bytes)) {
        lost.unknown++
        client.destroy()
        upstream.end()
      }
    }).on("close", () => upstream.destroy())
    upstream.on("data", (bytes) => {
      if (state.silent) return
      if (losing === "answered") {
        answer = Buffer.concat([answer, bytes])
        if (!answer.includes(idle)) return
        lost[answer.includes("SERROR") ? "unknown" : "committed"]++
        return state.cut()
      }
      state.listening ||= bytes.includes("LISTEN\0")
      client.write(bytes)
    }).on("close", () => state.silent || client.destroy())
  }

  const server = Net.createServer((client) => {
    let startup = Buffer.alloc(0)
    const gather = (bytes: Buffer): void => {
      startup = Buffer.concat([startup, bytes])
      if (startup.length < 4 || startup.length < startup.readUInt32BE()) return
      client.off("data", gather)
      connect(client, startup)
    }
    track(client).on("data", gather)
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const url = new URL(serverUrl)
  url.port = String((server.address() as Net.AddressInfo).port)
  return {
    url: url.href,
    connections,
    refuse: (which) => {
      refuses = which
    },
    refused: () => refused,
    loseAnswers: (count, loss, of = "append_v") => {
      losingOf = of
      losses = Array.from({ length: count }, () => loss)
    },
    silenceInTransaction: () => {
      silencing = true
    },
    lost: () => ({ ...lost }),
    close: () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    }
  }
}

/** The server has done what it was asked, and is in no transaction. */
const idle = Buffer.from("Z\0\0\0\x05I")

/** The client has asked for the outcome: a Sync at the end, or a simple query. */
const isAsked = (bytes: Buffer): boolean =>
  bytes.subarray(-5).equals(Buffer.from("S\0\0\0\x04")) || bytes[0] === "Q".charCodeAt(0)

const tooManyConnections = ((fields: string) => {
  const head = Buffer.from("E\0\0\0\0")
  head.writeUInt32BE(4 + Buffer.byteLength(fields), 1)
  return Buffer.concat([head, Buffer.from(fields)])
})("SFATAL\0C53300\0Mtoo many connections\0\0")

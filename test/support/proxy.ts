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
  /**
   * How many answers were lost: those of commits that wrote events, those of other commits, and those of what may have
   * been committed or not.
   */
  readonly lost: () => { readonly appends: number; readonly others: number; readonly unknown: number }
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
  const lost = { appends: 0, others: 0, unknown: 0 }

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

    const statements = new Map<string, string>()
    let losing: Loss | undefined
    let falling = false
    let inTransaction = false
    let appends = false
    // of the call, or of the transaction
    let wrote = false
    let failed = false
    const asked = messages((type, body) => {
      if (type === "P") statements.set(...texts(body))
      const text = type === "Q" ? texts(body)[0] : type === "B" ? statements.get(texts(body)[1]) : undefined
      if (text !== undefined) {
        // one call is a transaction of its own, several are between BEGIN and COMMIT
        appends = type === "B" && text.includes("append_v")
        if (!inTransaction) wrote = false
        failed = false
        const commits = text === "COMMIT" || (type === "B" && !inTransaction && text.includes(losingOf))
        if (losing === undefined && commits) losing = losses.shift()
        if (text.startsWith("BEGIN")) inTransaction = true
        if (text === "COMMIT" || text === "ROLLBACK") inTransaction = false
        if (silencing && inTransaction && appends) {
          silencing = false
          falling = true
        }
      }
      // it has asked for the outcome
      if (type !== "S" && type !== "Q") return
      state.silent ||= falling
      if (losing !== "sent") return
      lost.unknown++
      client.destroy()
      upstream.end()
    })
    const answered = messages((type, body) => {
      state.listening ||= type === "C" && texts(body)[0] === "LISTEN"
      if (type === "D" && appends) wrote ||= isWritten.test(body.toString("latin1"))
      // what failed in it makes of a COMMIT a ROLLBACK
      failed ||= type === "E" || (type === "C" && texts(body)[0] === "ROLLBACK")
      if (type !== "Z" || losing !== "answered" || state.closed) return
      lost[failed ? "unknown" : wrote ? "appends" : "others"]++
      state.cut()
    })
    client.on("data", (bytes) => {
      if (state.silent) return
      upstream.write(bytes)
      asked(bytes)
    }).on("close", () => upstream.destroy())
    upstream.on("data", (bytes) => {
      if (state.silent) return
      if (losing !== "answered") client.write(bytes)
      answered(bytes)
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

/** Tells of each message, whole, however the bytes come: a letter, the length of what follows with its own, and that. */
const messages = (take: (type: string, body: Buffer) => void): (bytes: Buffer) => void => {
  let rest: Buffer = Buffer.alloc(0)
  return (bytes) => {
    rest = rest.length === 0 ? bytes : Buffer.concat([rest, bytes])
    while (rest.length >= 5) {
      const end = 1 + rest.readUInt32BE(1)
      if (rest.length < end) return
      const body = rest.subarray(5, end)
      const type = String.fromCharCode(rest[0]!)
      rest = rest.subarray(end)
      take(type, body)
    }
  }
}

/** The first two texts of a message: of a Parse the name and the statement, of a Bind the portal and the name. */
const texts = (body: Buffer): readonly [string, string] => {
  const first = body.indexOf(0)
  const second = body.indexOf(0, first + 1)
  return [body.toString("utf8", 0, first), second < 0 ? "" : body.toString("utf8", first + 1, second)]
}

/** The append function's answer where it has written anything: `last` is null where it has not. */
const isWritten = /"last" ?: ?\d/

const tooManyConnections = ((fields: string) => {
  const head = Buffer.from("E\0\0\0\0")
  head.writeUInt32BE(4 + Buffer.byteLength(fields), 1)
  return Buffer.concat([head, Buffer.from(fields)])
})("SFATAL\0C53300\0Mtoo many connections\0\0")

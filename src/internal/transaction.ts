/** Whose transaction the current fiber is in: the only file that knows. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"

export interface Connections {
  /** The connection of the transaction that the calling fiber is in, if it is one of this client. */
  readonly joined: Effect.Effect<Connection | undefined>
  /** The same, for who has the fiber at hand. */
  readonly joinedBy: (fiber: Fiber.RuntimeFiber<any, any>) => Connection | undefined
  /** Runs with a connection that nobody else has meanwhile. Waiting for it can be interrupted. */
  readonly reserved: <A, E, R>(
    use: (connection: Connection) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | SqlError, R>
  /**
   * Runs with a transaction of its own, which the effect's statements on the client join. Where the transaction cannot be
   * begun or ended, the error of that is the answer.
   */
  readonly transaction: <A, E, R, X>(effect: Effect.Effect<A, E, R>, steps: Steps<X>) => Effect.Effect<A, E | X, R>
  /** One at a time on a connection: savepoints of two fibers would undo each other. */
  readonly alone: <A, E, R>(connection: Connection, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export interface Steps<X> {
  readonly begin: (connection: Connection) => Effect.Effect<void, X>
  readonly commit: (connection: Connection) => Effect.Effect<void, X>
  readonly rollback: (connection: Connection) => Effect.Effect<void, X>
  readonly toError: (error: SqlError) => X
}

/**
 * `isOwn` tells a connection of the client from those of others: the context key of a transaction is shared by all
 * clients of a program. `reserve` is how the client gives out a connection for the time of a scope.
 */
export const connections = (
  isOwn: (connection: Connection) => boolean,
  reserve: Effect.Effect<Connection, SqlError, Scope.Scope>
): Connections => {
  const semaphores = new WeakMap<Connection, Effect.Semaphore>()
  const joinedBy: Connections["joinedBy"] = (fiber) => {
    const transaction = fiber.currentContext.unsafeMap.get(SqlClient.TransactionConnection.key)
    return transaction !== undefined && isOwn(transaction[0]) ? transaction[0] : undefined
  }
  const joined = Effect.withFiberRuntime<Connection | undefined>((fiber) => Effect.succeed(joinedBy(fiber)))
  const reserved: Connections["reserved"] = (use) =>
    Effect.scopedWith((scope) => Effect.flatMap(Scope.extend(reserve, scope), use))
  return {
    joined,
    joinedBy,
    reserved,
    transaction: (effect, { begin, commit, rollback, toError }) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.scopedWith((scope) =>
          Effect.flatMap(
            restore(Effect.mapError(Scope.extend(reserve, scope), toError)),
            (connection) =>
              Effect.zipRight(
                begin(connection),
                Effect.flatMap(
                  Effect.exit(restore(Effect.provideService(effect, SqlClient.TransactionConnection, [connection, 0]))),
                  (exit) =>
                    Exit.isSuccess(exit)
                      ? Effect.as(
                        Effect.tapError(commit(connection), () => Effect.ignore(rollback(connection))),
                        exit.value
                      )
                      : Effect.zipRight(rollback(connection), exit)
                )
              )
          )
        )
      ),
    alone: (connection, effect) => {
      let semaphore = semaphores.get(connection)
      if (semaphore === undefined) {
        semaphore = Effect.unsafeMakeSemaphore(1)
        semaphores.set(connection, semaphore)
      }
      return semaphore.withPermits(1)(effect)
    }
  }
}

/**
 * Postgres: the client loses a connection that arrives after its caller was interrupted, so a fiber of its own receives
 * it, and gives it back when nobody waits any more.
 */
export const reserveSafely = (client: SqlClient.SqlClient): Effect.Effect<Connection, SqlError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      Effect.scope,
      (outer) =>
        Effect.flatMap(Scope.make(), (inner) =>
          Effect.flatMap(Effect.forkDaemon(Scope.extend(client.reserve, inner)), (fiber) => {
            const release = Scope.close(inner, Exit.void)
            return Effect.zipRight(
              Scope.addFinalizer(
                outer,
                Effect.suspend(() =>
                  fiber.unsafePoll() === null
                    ? Effect.forkDaemon(Effect.zipRight(Fiber.await(fiber), release))
                    : release
                )
              ),
              restore(Fiber.join(fiber))
            )
          }))
    )
  )

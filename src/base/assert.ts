/**
 * Assertions that stay on in production. A failed assertion is a programmer's error: it throws
 * {@link AssertionError}, the daemon exits and systemd restarts it. Operating errors (a bad CDB, a
 * disk that fails) are values: see errors.ts.
 */
export class AssertionError extends Error {
  override readonly name = 'AssertionError'
}

/** Throws when `condition` is false. The message says what must hold, with the values. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message)
}

/** Narrows away `undefined` where the caller knows that the value exists. */
export function defined<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new AssertionError(`${what} is not defined`)
  return value
}

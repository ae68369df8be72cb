/** How a promise failed, for assertions on the kind and the words of a PlexusError. */
import { PlexusError } from '../../src/base/errors.ts'

/** The PlexusError that `promise` rejects with; anything else fails the test. */
export async function failureOf(promise: Promise<unknown>): Promise<PlexusError> {
  try {
    await promise
  } catch (error) {
    if (error instanceof PlexusError) return error
    throw error
  }
  throw new Error('expected a PlexusError, but it succeeded')
}

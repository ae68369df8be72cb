/**
 * The one operating error of Plexus. Every layer fails with a PlexusError; its `kind` decides what
 * an initiator sees (target/scsi/sense.ts maps kind to sense data) and what the command line exits
 * with. Class, kind and fields are stable; the text is for people.
 */
export const ERROR_KINDS = [
  'invalid', // an argument, a configuration value or a request that cannot be right
  'not-found', // no such object
  'exists', // the name is taken
  'in-use', // held by somebody else: mounted, exclusive, sessions logged in
  'foreign', // the device carries data of another owner
  'permission', // the operating system or the policy says no
  'gone', // the device disappeared (ENODEV, ENXIO, surprise removal)
  'io', // the medium or the transport failed (EIO and its kin)
  'no-space', // ENOSPC, thin pool exhausted
  'corrupt', // a checksum or a structure on disk does not hold
  'timeout', // a bounded wait ended
  'unsupported', // known, but not by this device or this build
  'aborted', // given up on request
  'exhausted', // a named limit of our own is reached; try again later
  'protocol', // the peer broke its protocol
] as const
export type ErrorKind = (typeof ERROR_KINDS)[number]

export interface PlexusErrorOptions {
  /** What was being done, in one or two words: `read`, `open`, `parse`. */
  readonly op: string
  /** What it was done to: a path, a volume name, a config position. */
  readonly subject: string
  /** The whole sentence for people: what, where, what to do next. */
  readonly message: string
  readonly cause?: unknown
}

export class PlexusError extends Error {
  override readonly name = 'PlexusError'
  readonly kind: ErrorKind
  readonly op: string
  readonly subject: string

  constructor(kind: ErrorKind, options: PlexusErrorOptions) {
    super(options.message, options.cause === undefined ? undefined : { cause: options.cause })
    this.kind = kind
    this.op = options.op
    this.subject = options.subject
  }
}

/** The sentence of a template with its values. */
export function phrase(text: TemplateStringsArray, values: readonly unknown[]): string {
  return String.raw({ raw: text }, ...values)
}

type Refusal = (text: TemplateStringsArray, ...values: readonly unknown[]) => PlexusError

/**
 * The errors of one operation, each made by a template: ``refuse.inUse`volume ${name} is in use` ``. The first value of the
 * sentence is the subject.
 */
export class Refusals {
  readonly op: string
  readonly invalid = this.#of('invalid')
  readonly notFound = this.#of('not-found')
  readonly exists = this.#of('exists')
  readonly inUse = this.#of('in-use')
  readonly gone = this.#of('gone')
  readonly io = this.#of('io')
  readonly noSpace = this.#of('no-space')
  readonly corrupt = this.#of('corrupt')
  readonly unsupported = this.#of('unsupported')
  readonly exhausted = this.#of('exhausted')

  constructor(op: string) {
    this.op = op
  }

  #of(kind: ErrorKind): Refusal {
    return (text, ...values) => {
      const message = phrase(text, values)
      return new PlexusError(kind, { op: this.op, subject: String(values[0]), message })
    }
  }
}

/** Any thrown value as a PlexusError, for the edges where foreign code may throw. */
export function toPlexusError(error: unknown, op: string, subject: string): PlexusError {
  if (error instanceof PlexusError) return error
  const text = error instanceof Error ? error.message : String(error)
  return new PlexusError('io', { op, subject, message: `${subject}: ${op}: ${text}`, cause: error })
}

/** For a catch that deals with operating errors: anything else is an error of the program, and goes on up. */
export function operatingError(error: unknown): PlexusError {
  if (error instanceof PlexusError) return error
  throw error
}

/** Does something for all at once. Resolves to those for which it has failed, with why, when all have ended. */
export async function failuresOf<T>(
  all: readonly T[],
  work: (one: T) => Promise<unknown>,
): Promise<Map<T, PlexusError>> {
  const failed = new Map<T, PlexusError>()
  const noteFailure = (one: T) => (error: unknown) => failed.set(one, operatingError(error))
  await Promise.all(all.map((one) => work(one).catch(noteFailure(one))))
  return failed
}

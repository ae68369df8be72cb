/** Error numbers of block I/O as PlexusErrors: one table, one sentence. Called by the devices. */
import { type ErrorKind, PlexusError } from '../base/errors.ts'
import { ERRNO, errnoText } from './errno.ts'

/**
 * Result of a transfer that reached the end of the device early: the device has shrunk. Outside the
 * range of error numbers (1 to 4095).
 */
export const IO_ENDED = -4096

const KINDS: Readonly<Record<number, ErrorKind>> = {
  [ERRNO.ENODEV]: 'gone',
  [ERRNO.ENXIO]: 'gone',
  [ERRNO.ENOMEDIUM]: 'gone',
  [ERRNO.ENOSPC]: 'no-space',
  [ERRNO.EDQUOT]: 'no-space',
  [ERRNO.EFBIG]: 'no-space',
  [ERRNO.EACCES]: 'permission',
  [ERRNO.EPERM]: 'permission',
  [ERRNO.EROFS]: 'permission',
  [ERRNO.EINVAL]: 'invalid',
  [ERRNO.ENOENT]: 'not-found',
  [ERRNO.EBUSY]: 'in-use',
  [ERRNO.EOPNOTSUPP]: 'unsupported',
  [ERRNO.ENOTTY]: 'unsupported',
  [ERRNO.ENOSYS]: 'unsupported',
  [ERRNO.ETIMEDOUT]: 'timeout',
  [ERRNO.ECANCELED]: 'aborted',
  [ERRNO.ENOMEM]: 'exhausted',
  [ERRNO.EAGAIN]: 'exhausted',
}

/** The kind of an error number; `io` for EIO and everything that the table does not name. */
export function errorKindOf(errno: number): ErrorKind {
  return KINDS[errno] ?? 'io'
}

/** A failed operation on `path`, as `result`, a negated errno or {@link IO_ENDED}. */
export function ioError(
  result: number,
  op: string,
  path: string,
  offset: number,
  length: number,
): PlexusError {
  const ended = result === IO_ENDED
  const why = ended ? 'the device ends before it; it has shrunk' : errnoText(-result)
  const where = length > 0 ? ` of ${length} bytes at offset ${offset}` : ''
  return new PlexusError(ended ? 'io' : errorKindOf(-result), {
    op,
    subject: path,
    message: `${path}: ${op}${where} failed: ${why}`,
  })
}

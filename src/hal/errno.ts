/** Error numbers of system calls: their names, and what they mean in words. */
import { constants } from 'node:os'

/** A system call that failed. Not an operating error yet: the caller turns it into a PlexusError. */
export class SysError extends Error {
  override readonly name = 'SysError'
  readonly errno: number
  /** `EBUSY` and so on. */
  readonly code: string
  /** The call: `ioctl(0x1272)`, `flock`. */
  readonly call: string

  constructor(call: string, errno: number) {
    const code = errnoName(errno)
    super(`${call}: ${code}`)
    this.errno = errno
    this.code = code
    this.call = call
  }
}

/** Error numbers that the code of Plexus distinguishes (asm-generic/errno.h). */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  ENODEV: 19,
  EINVAL: 22,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ENOSYS: 38,
  ENODATA: 61,
  ETIME: 62,
  ENOLINK: 67,
  EREMOTEIO: 121,
  EILSEQ: 84,
  EOPNOTSUPP: 95,
  ETIMEDOUT: 110,
  EDQUOT: 122,
  ENOMEDIUM: 123,
  ECANCELED: 125,
} as const

/** `EIO` for 5; `errno 4000` for a number that has no name. */
export function errnoName(errno: number): string {
  // Node has not all of ours, and second names for some.
  const named = [ERRNO, constants.errno].flatMap((some) => Object.entries(some))
  return named.find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`
}

/** The text of people for an error number: `EIO (I/O error)`; the name alone where we know no better. */
export function errnoText(errno: number): string {
  const text = ERRNO_TEXTS[errno]
  return text === undefined ? errnoName(errno) : `${errnoName(errno)}, ${text}`
}

const ERRNO_TEXTS: Readonly<Record<number, string>> = {
  [ERRNO.EPERM]: 'operation not permitted',
  [ERRNO.EIO]: 'I/O error',
  [ERRNO.ENXIO]: 'no such device or address',
  [ERRNO.EAGAIN]: 'try again',
  [ERRNO.ENOMEM]: 'out of memory',
  [ERRNO.EACCES]: 'permission denied',
  [ERRNO.EBUSY]: 'device or resource busy',
  [ERRNO.ENODEV]: 'no such device',
  [ERRNO.EINVAL]: 'invalid argument',
  [ERRNO.ENOSPC]: 'no space left',
  [ERRNO.EROFS]: 'read-only',
  [ERRNO.ENODATA]: 'critical medium error',
  [ERRNO.ENOLINK]: 'transport link failed',
  [ERRNO.EREMOTEIO]: 'critical target error',
  [ERRNO.EILSEQ]: 'integrity error',
  [ERRNO.EOPNOTSUPP]: 'not supported',
  [ERRNO.ETIMEDOUT]: 'timed out',
  [ERRNO.ENOMEDIUM]: 'no medium',
}

/** The system calls of io_uring, as io-uring.ts uses them. Each returns its result, or the negated errno. */
import { assert } from '../base/assert.ts'
import { bytesAddress, syscall } from './libc.ts'

// The numbers are the same on every architecture that has them.
const SYS_IO_URING_SETUP = 425
const SYS_IO_URING_ENTER = 426
const SYS_IO_URING_REGISTER = 427

/** io_uring_setup(2): the ring's file descriptor or the negated errno. `params` is struct io_uring_params, 120 bytes. */
export function ioUringSetup(entries: number, params: Uint8Array): number {
  assert(params.length === 120, 'struct io_uring_params has 120 bytes')
  return syscall(SYS_IO_URING_SETUP, entries, bytesAddress(params))
}

/** io_uring_enter(2): submissions taken, or the negated errno. */
export function ioUringEnter(
  ringFd: number,
  toSubmit: number,
  minComplete: number,
  flags: number,
): number {
  return syscall(SYS_IO_URING_ENTER, ringFd, toSubmit, minComplete, flags)
}

const IORING_REGISTER_BUFFERS = 0
const IORING_REGISTER_IOWQ_MAX_WORKERS = 19

/** Registers memory for READ_FIXED and WRITE_FIXED, in pieces of `pieceBytes` at most (the kernel's limit is 1 GiB): 0 or the negated errno. */
export function ioUringRegisterBuffers(
  ringFd: number,
  address: number,
  length: number,
  pieceBytes: number,
): number {
  const count = Math.ceil(length / pieceBytes)
  const vectors = new BigUint64Array(count * 2)
  for (let i = 0; i < count; i++) {
    vectors[i * 2] = BigInt(address + i * pieceBytes)
    vectors[i * 2 + 1] = BigInt(Math.min(pieceBytes, length - i * pieceBytes))
  }
  const at = bytesAddress(vectors)
  return syscall(SYS_IO_URING_REGISTER, ringFd, IORING_REGISTER_BUFFERS, at, count)
}

/**
 * Lets up to `count` kernel threads work for the ring where a call cannot be started without waiting: a flush, or a
 * disk whose own queue is full. The usual bound is four per processor, which one disk that hangs would use up
 * (io_uring_register(2), IORING_REGISTER_IOWQ_MAX_WORKERS; Linux 5.15). Returns 0 or a negated errno.
 */
export function ioUringSetWorkers(ringFd: number, count: number): number {
  // The second one, for what is no disk and no file, stays as it is.
  const counts = Uint32Array.of(count, 0)
  const at = bytesAddress(counts)
  return syscall(SYS_IO_URING_REGISTER, ringFd, IORING_REGISTER_IOWQ_MAX_WORKERS, at, 2)
}

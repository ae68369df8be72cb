/**
 * One thread of the `threads` engine: takes an operation, calls the C library, hands the result back,
 * until it is asked to leave. Started by thread-pool.ts with the shared memory as its data.
 */
import { workerData } from 'node:worker_threads'
import { ERRNO, SysError } from './errno.ts'
import { IO_KIND, type IoKind } from './io-engine.ts'
import { eventfdSignal, fallocate, fdatasync, ioctlRange, pread, pwrite, pwritev2 } from './libc.ts'
import { FIELD, LEAVE, SharedQueue } from './thread-shared.ts'

interface WorkerInput {
  readonly buffer: SharedArrayBuffer
  readonly slots: number
  readonly eventFd: number
}

type Call = (fd: number, address: number, length: number, offset: number, flags: number) => number

const CALLS: Readonly<Record<IoKind, Call>> = {
  [IO_KIND.READ]: (fd, address, length, offset) => pread(fd, address, length, offset),
  [IO_KIND.WRITE]: (fd, address, length, offset, flags) =>
    flags === 0
      ? pwrite(fd, address, length, offset)
      : pwritev2(fd, address, length, offset, flags),
  [IO_KIND.FLUSH]: (fd) => fdatasync(fd),
  [IO_KIND.ALLOCATE]: (fd, _address, length, offset, mode) => fallocate(fd, mode, offset, length),
  [IO_KIND.RANGE_IOCTL]: (fd, _address, length, offset, request) => {
    try {
      ioctlRange(fd, request, offset, length)
      return 0
    } catch (error) {
      return error instanceof SysError ? -error.errno : -ERRNO.EIO
    }
  },
}

const input = workerData as WorkerInput
const shared = new SharedQueue(input.buffer, input.slots)
const { fields } = shared
const field = (slot: number, index: number): number => fields[slot * FIELD.COUNT + index] as number

for (let slot = shared.take(); slot !== LEAVE; slot = shared.take()) {
  const call = CALLS[field(slot, FIELD.KIND) as IoKind]
  const result = call(
    field(slot, FIELD.FD),
    field(slot, FIELD.ADDRESS),
    field(slot, FIELD.LENGTH),
    field(slot, FIELD.OFFSET),
    field(slot, FIELD.FLAGS),
  )
  if (shared.give(slot, result)) eventfdSignal(input.eventFd)
}

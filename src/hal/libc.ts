/**
 * The C library as Plexus uses it: the only file that declares koffi functions. Linux, 64-bit, little
 * endian (x86-64 and arm64), glibc or musl. Called by the I/O engines, open-device.ts, device-probe.ts
 * and daemon/systemd.ts.
 *
 * Two styles: functions of the data path return what the system call returned, or the negated errno, as
 * the kernel does in a completion; all others throw a {@link SysError}. Addresses are plain numbers:
 * user space addresses on these machines are below 2^53.
 */
import koffi from 'koffi'
import { ERRNO, SysError } from './errno.ts'

const library = koffi.load(null)

// ---------------------------------------------------------------------------------------- memory

/** Address of the first byte of a shared WebAssembly memory. It never moves when initial = maximum. */
export function memoryAddress(memory: WebAssembly.Memory): number {
  return Number(koffi.address(new Uint8Array(memory.buffer)))
}

/** Address of the first byte of a heap buffer; valid as long as its ArrayBuffer lives. */
export function bytesAddress(bytes: NodeJS.TypedArray): number {
  return Number(koffi.address(bytes))
}

const PROT_READ_WRITE = 3
const MAP_SHARED_POPULATE = 0x8001
const mmapCall = library.func('mmap', 'int64_t', [
  'int64_t',
  'size_t',
  'int',
  'int',
  'int',
  'int64_t',
])
const munmapCall = library.func('munmap', 'int', ['int64_t', 'size_t'])

/** A shared, populated mapping of `length` bytes of `fd` at `offset`: its address. */
export function mmapShared(fd: number, length: number, offset: number): number {
  const address = Number(mmapCall(0, length, PROT_READ_WRITE, MAP_SHARED_POPULATE, fd, offset))
  if (address === -1) throw new SysError('mmap', koffi.errno())
  return address
}

/** Unmaps. The caller must have dropped every view of it: a later access kills the process. */
export function munmap(address: number, length: number): void {
  if (munmapCall(address, length) !== 0) throw new SysError('munmap', koffi.errno())
}

const MADV_DONTFORK = 10
const madviseCall = library.func('madvise', 'int', ['int64_t', 'size_t', 'int'])

/**
 * Leaves memory out of what a child process gets. Memory that a disk writes to directly while the process forks may lose
 * what the disk writes (open(2), notes on O_DIRECT), and buffers that are registered with io_uring would be copied. V8 does
 * this in most builds of Node; data must not depend on how Node was built.
 */
export function keepFromChildren(address: number, length: number): void {
  if (madviseCall(address, length, MADV_DONTFORK) !== 0)
    throw new SysError('madvise', koffi.errno())
}

/** A view of foreign memory as an ArrayBuffer. It keeps nothing alive. */
export function viewMemory(address: number, length: number): ArrayBuffer {
  return koffi.view(BigInt(address), length)
}

// --------------------------------------------------------------------------------------- file I/O

type Transfer = (fd: number, address: number, length: number, offset: number) => number
const preadCall: Transfer = library.func('pread', 'int64_t', [
  'int',
  'int64_t',
  'size_t',
  'int64_t',
])
const pwriteCall: Transfer = library.func('pwrite', 'int64_t', [
  'int',
  'int64_t',
  'size_t',
  'int64_t',
])
const pwritev2Call = library.func('pwritev2', 'int64_t', ['int', 'void *', 'int', 'int64_t', 'int'])
const fdatasyncCall = library.func('fdatasync', 'int', ['int'])
const fallocateCall = library.func('fallocate', 'int', ['int', 'int', 'int64_t', 'int64_t'])
const flockCall = library.func('flock', 'int', ['int', 'int'])
const ioctlCall = library.func('ioctl', 'int', ['int', 'ulong', 'void *'])

/** Bytes read into `address`, or the negated errno. */
export function pread(fd: number, address: number, length: number, offset: number): number {
  const result = preadCall(fd, address, length, offset)
  return result < 0 ? -koffi.errno() : result
}

/** Bytes written from `address`, or the negated errno. */
export function pwrite(fd: number, address: number, length: number, offset: number): number {
  const result = pwriteCall(fd, address, length, offset)
  return result < 0 ? -koffi.errno() : result
}

/** RWF_DSYNC (linux/fs.h): this write is durable when it returns, as a write with O_DSYNC. */
export const RWF_DSYNC = 2

/** As {@link pwrite}, with RWF_ flags of linux/fs.h. */
export function pwritev2(
  fd: number,
  address: number,
  length: number,
  offset: number,
  flags: number,
): number {
  const iovec = BigUint64Array.of(BigInt(address), BigInt(length))
  const result = pwritev2Call(fd, iovec, 1, offset, flags)
  return result < 0 ? -koffi.errno() : result
}

/** 0, or the negated errno. */
export function fdatasync(fd: number): number {
  return fdatasyncCall(fd) === 0 ? 0 : -koffi.errno()
}

/** Modes of fallocate (linux/falloc.h), with FALLOC_FL_KEEP_SIZE (1) where the kernel demands it. */
export const FALLOC_PUNCH_HOLE = 0x03
export const FALLOC_ZERO_RANGE = 0x11

/** 0, or the negated errno. */
export function fallocate(fd: number, mode: number, offset: number, length: number): number {
  return fallocateCall(fd, mode, offset, length) === 0 ? 0 : -koffi.errno()
}

const SEEK_DATA = 3
const SEEK_HOLE = 4
const lseekCall = library.func('lseek', 'int64_t', ['int', 'int64_t', 'int'])

function seekSoon(fd: number, offset: number, whence: number): Promise<number> {
  return new Promise((resolve, reject) => {
    lseekCall.async(fd, offset, whence, (error: Error | null, result: number) => {
      if (error) reject(error)
      else resolve(result)
    })
  })
}

/**
 * Where the data of a regular file begins, or the hole in which `offset` lies ends (lseek(2)), off the event loop: a file of many
 * extents takes its time. Holes are those that read as zeroes, also blocks that are reserved and not written.
 * `end` is undefined where the state reaches to the end of the file, or the file system does not know holes.
 */
export async function fileExtent(
  fd: number,
  offset: number,
): Promise<{ hole: boolean; end: number | undefined }> {
  const hole = await seekSoon(fd, offset, SEEK_HOLE)
  if (hole !== offset) return { hole: false, end: hole < 0 ? undefined : hole }
  const data = await seekSoon(fd, offset, SEEK_DATA)
  return { hole: true, end: data < 0 ? undefined : data }
}

const LOCK_EX_NB = 2 | 4

/** Takes the whole-file advisory lock without waiting; false: another open file holds it. */
export function flockExclusive(fd: number): boolean {
  if (flockCall(fd, LOCK_EX_NB) === 0) return true
  const errno = koffi.errno()
  if (errno === ERRNO.EAGAIN) return false
  throw new SysError('flock', errno)
}

// ------------------------------------------------------------------------------------------ ioctl

function ioctl(fd: number, request: number, argument: NodeJS.TypedArray): void {
  if (ioctlCall(fd, request, argument) < 0) {
    throw new SysError(`ioctl(0x${request.toString(16)})`, koffi.errno())
  }
}

/** An ioctl that fills one unsigned 64-bit word. Throws {@link SysError}. */
export function ioctlU64(fd: number, request: number): number {
  const value = new BigUint64Array(1)
  ioctl(fd, request, value)
  return Number(value[0])
}

/** An ioctl that fills one unsigned 32-bit word (a shorter answer leaves the rest zero). Throws {@link SysError}. */
export function ioctlU32(fd: number, request: number): number {
  const value = new Uint32Array(1)
  ioctl(fd, request, value)
  return value[0] ?? 0
}

/** An ioctl on a byte range, {u64 offset, u64 length}: BLKDISCARD, BLKZEROOUT. Blocks; throws {@link SysError}. */
export function ioctlRange(fd: number, request: number, offset: number, length: number): void {
  ioctl(fd, request, BigUint64Array.of(BigInt(offset), BigInt(length)))
}

export const BLKDISCARD = 0x1277
export const BLKZEROOUT = 0x127f
export const BLKGETSIZE64 = 0x80081272

// ----------------------------------------------------------------------------------------- syscall

/** Declared with fixed arguments: a variadic call costs 40 % more, and the registers are the same. */
const syscallCall = library.func('syscall', 'int64_t', new Array<string>(7).fill('int64_t'))

/** A system call by its number, with five arguments at most: its result, or the negated errno. */
export function syscall(number: number, a: number, b: number, c = 0, d = 0, e = 0): number {
  const result: number = syscallCall(number, a, b, c, d, e, 0)
  return result < 0 ? -koffi.errno() : result
}

// ------------------------------------------------------------------------------------------- poll

export interface Watch {
  /** Stops; the callback is not called again. */
  close(): void
  /** Does this watch alone keep the process alive? It does until `unref`. */
  unref(): void
  ref(): void
}

/**
 * Calls back from the event loop whenever `fd` is readable (level triggered). The caller must keep the
 * result: koffi closes a collected handle without a word.
 */
export function watchReadable(fd: number, callback: () => void): Watch {
  return koffi.node.poll(fd, { readable: true }, callback)
}

const EFD_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
const eventfdCall = library.func('eventfd', 'int', ['uint', 'int'])
const eventfdWriteCall = library.func('eventfd_write', 'int', ['int', 'uint64_t'])
const eventfdReadCall = library.func('eventfd_read', 'int', ['int', 'void *'])

/** A counter that polls readable while it is not zero: how another thread wakes the event loop. */
export function eventfd(): number {
  const fd = eventfdCall(0, EFD_NONBLOCK_CLOEXEC)
  if (fd < 0) throw new SysError('eventfd', koffi.errno())
  return fd
}

export function eventfdSignal(fd: number): void {
  if (eventfdWriteCall(fd, 1) !== 0) throw new SysError('eventfd_write', koffi.errno())
}

/** Sets the counter back to zero. `scratch` receives what it was. */
export function eventfdClear(fd: number, scratch: BigUint64Array): void {
  if (eventfdReadCall(fd, scratch) !== 0 && koffi.errno() !== ERRNO.EAGAIN) {
    throw new SysError('eventfd_read', koffi.errno())
  }
}

// -------------------------------------------------------------------------------------------- TCP

const IPPROTO_TCP = 6
const TCP_INFO = 11
/** struct tcp_info of linux/tcp.h up to tcpi_notsent_bytes (Linux 4.6): the fields that are read here. */
const TCP_INFO_BYTES = 148
const TCPI_BYTES_ACKED = 120
const TCPI_NOTSENT_BYTES = 144
const getsockoptCall = library.func('getsockopt', 'int', ['int', 'int', 'int', 'void *', 'void *'])

const SOL_SOCKET = 1
const SO_PEERCRED = 17

/** The user at the other end of a connected unix socket, as it was when it connected (unix(7)); undefined: unknown. */
export function peerUid(fd: number): number | undefined {
  // struct ucred: pid, uid, gid.
  const credentials = new Uint32Array(3)
  const length = Uint32Array.of(credentials.byteLength)
  const result = getsockoptCall(fd, SOL_SOCKET, SO_PEERCRED, credentials, length)
  return result === 0 ? credentials[1] : undefined
}

/** How far the peer of a TCP connection has come with what was sent to it. */
export interface TcpProgress {
  /** Since the beginning; never less than before. */
  readonly acknowledgedBytes: number
  /** The kernel holds bytes that it has not sent, because the peer takes them slowly or not at all. */
  readonly waits: boolean
}

/** The progress of a connected TCP socket; undefined for anything else, and where the kernel does not say. */
export function tcpProgress(fd: number): TcpProgress | undefined {
  const info = Buffer.alloc(TCP_INFO_BYTES)
  const length = Uint32Array.of(TCP_INFO_BYTES)
  if (getsockoptCall(fd, IPPROTO_TCP, TCP_INFO, info, length) !== 0) return undefined
  if ((length[0] ?? 0) < TCP_INFO_BYTES) return undefined
  return {
    acknowledgedBytes: Number(info.readBigUInt64LE(TCPI_BYTES_ACKED)),
    waits: info.readUInt32LE(TCPI_NOTSENT_BYTES) !== 0,
  }
}

// ------------------------------------------------------------------------------------ notification

const AF_UNIX = 1
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000
const MSG_NOSIGNAL = 0x4000
const SUN_PATH_BYTES = 108
const socketCall = library.func('socket', 'int', ['int', 'int', 'int'])
const sendtoCall = library.func('sendto', 'int64_t', [
  'int',
  'void *',
  'size_t',
  'int',
  'void *',
  'uint',
])
const closeCall = library.func('close', 'int', ['int'])

/**
 * Sends one datagram to a unix socket, which Node's own API cannot: sd_notify. A leading `@` names an
 * abstract socket. Throws {@link SysError}.
 */
export function unixDatagram(path: string, text: string): void {
  const name = Buffer.from(path)
  if (name.length >= SUN_PATH_BYTES) throw new SysError(`sendto ${path}`, ERRNO.EINVAL)
  const abstract = path.startsWith('@')
  const address = Buffer.alloc(2 + name.length + (abstract ? 0 : 1))
  address.writeUInt16LE(AF_UNIX, 0)
  name.copy(address, 2)
  if (abstract) address[2] = 0
  const fd = socketCall(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0)
  if (fd < 0) throw new SysError('socket', koffi.errno())
  try {
    const bytes = Buffer.from(text)
    const sent = sendtoCall(fd, bytes, bytes.length, MSG_NOSIGNAL, address, address.length)
    if (sent < 0) throw new SysError(`sendto ${path}`, koffi.errno())
  } finally {
    closeCall(fd)
  }
}

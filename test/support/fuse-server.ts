/**
 * A FUSE file system of one file in memory, `disk.img`, that can be told to answer nothing for a while: a process of
 * its own, since who waits for it must not be it. Started by fuse-file.ts with the directory, the size in bytes and the
 * longest time of a stall in milliseconds (so that a test which waits for it within one system call fails, and does not
 * hang); messages: `stall`, `go`.
 * Layouts: linux/fuse.h, protocol 7.31.
 */
import { openSync, read, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import koffi from 'koffi'

const OP = { lookup: 1, forget: 2, getattr: 3, setattr: 4, open: 14, read: 15, write: 16 } as const
const SILENT: ReadonlySet<number> = new Set([OP.forget, 36, 42])
const EMPTY: ReadonlySet<number> = new Set([18, 20, 25, 29, 38])
const INIT = 26
const STATFS = 17
const OPENDIR = 27
const ENOENT = -2
const ENOSYS = -38

const [directory = '', size, stallMsMax] = process.argv.slice(2)
const media = Buffer.alloc(Number(size))
const fd = openSync('/dev/fuse', 'r+')
const mount = koffi.load('libc.so.6').func('mount', 'int', ['str', 'str', 'str', 'ulong', 'str'])
const options = `fd=${fd},rootmode=40000,user_id=0,group_id=0`
if (mount('plexus-test', directory, 'fuse', 0, options) !== 0) process.exit(2)

function attributes(node: number): Buffer {
  const out = Buffer.alloc(88)
  out.writeBigUInt64LE(BigInt(node), 0)
  out.writeBigUInt64LE(node === 1 ? 0n : BigInt(media.length), 8)
  out.writeUInt32LE(node === 1 ? 0o040755 : 0o100644, 60)
  out.writeUInt32LE(1, 64)
  out.writeUInt32LE(4096, 80)
  return out
}

function init(): Buffer {
  const out = Buffer.alloc(64)
  out.writeUInt32LE(7, 0)
  out.writeUInt32LE(31, 4)
  out.writeUInt32LE(131072, 20)
  return out
}

/** The answer to a request: its payload, or an error number. */
function answer(opcode: number, node: number, body: Buffer): Buffer | number {
  const offset = (): number => Number(body.readBigUInt64LE(8))
  if (opcode === INIT) return init()
  if (opcode === OP.lookup) {
    if (body.toString('utf8', 0, body.indexOf(0)) !== 'disk.img') return ENOENT
    const entry = Buffer.alloc(40)
    entry.writeBigUInt64LE(2n, 0)
    return Buffer.concat([entry, attributes(2)])
  }
  if (opcode === OP.getattr || opcode === OP.setattr) {
    return Buffer.concat([Buffer.alloc(16), attributes(node)])
  }
  if (opcode === OP.open || opcode === OPENDIR) return Buffer.alloc(16)
  if (opcode === OP.read) return media.subarray(offset(), offset() + body.readUInt32LE(16))
  if (opcode === OP.write) {
    const length = body.readUInt32LE(16)
    body.copy(media, offset(), 40, 40 + length)
    const out = Buffer.alloc(8)
    out.writeUInt32LE(length, 0)
    return out
  }
  if (opcode === STATFS) return Buffer.alloc(80)
  return EMPTY.has(opcode) ? Buffer.alloc(0) : ENOSYS
}

function reply(unique: bigint, result: Buffer | number): void {
  const payload = typeof result === 'number' ? Buffer.alloc(0) : result
  const head = Buffer.alloc(16)
  head.writeUInt32LE(16 + payload.length, 0)
  head.writeInt32LE(typeof result === 'number' ? result : 0, 4)
  head.writeBigUInt64LE(unique, 8)
  writeSync(fd, Buffer.concat([head, payload]))
}

let held: (() => void)[] | undefined
function go(): void {
  for (const one of held ?? []) one()
  held = undefined
}
process.on('message', (message) => {
  if (message === 'go') go()
  else {
    held = []
    setTimeout(go, Number(stallMsMax))
    process.send?.('stalled')
  }
})
process.on('disconnect', () => process.exit(0))

const readRequest = promisify(read)
const room = Buffer.alloc(256 * 1024)
process.send?.('mounted')
for (;;) {
  const { bytesRead } = await readRequest(fd, room, 0, room.length, null).catch(() =>
    process.exit(0),
  )
  const request = Buffer.from(room.subarray(0, bytesRead))
  const opcode = request.readUInt32LE(4)
  if (SILENT.has(opcode)) continue
  const unique = request.readBigUInt64LE(8)
  const node = Number(request.readBigUInt64LE(16))
  const act = (): void => reply(unique, answer(opcode, node, request.subarray(40)))
  if (held) held.push(act)
  else act()
}

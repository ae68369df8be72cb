/** The parts of the C library's binding that the devices' tests do not reach. */
import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ERRNO, errnoName, errnoText, SysError } from '../../src/hal/errno.ts'
import {
  BLKGETSIZE64,
  bytesAddress,
  flockExclusive,
  ioctlU64,
  unixDatagram,
} from '../../src/hal/libc.ts'
import { tempDirectory } from '../support/loop-device.ts'

t.test('error numbers have one name each', async (t) => {
  for (const [name, errno] of Object.entries(ERRNO)) t.equal(errnoName(errno), name)
  t.equal(errnoName(4000), 'errno 4000')
  t.equal(errnoText(ERRNO.EIO), 'EIO, I/O error')
  t.equal(errnoText(ERRNO.EBADF), 'EBADF')
})

t.test('a failed call says which and why', async (t) => {
  const fd = openSync('/dev/null', 'r')
  t.teardown(() => closeSync(fd))
  t.throws(() => ioctlU64(fd, BLKGETSIZE64), {
    errno: ERRNO.ENOTTY,
    code: 'ENOTTY',
    call: 'ioctl(0x80081272)',
  })
  t.throws(() => flockExclusive(-1), { code: 'EBADF' })
  t.throws(() => unixDatagram(join(tempDirectory(t), 'none'), 'x'), { code: 'ENOENT' })
  t.throws(() => unixDatagram('x'.repeat(200), 'x'), SysError)
})

t.test('an address is that of the first byte of a view', async (t) => {
  const bytes = Buffer.alloc(8192)
  t.equal(bytesAddress(bytes.subarray(100)) - bytesAddress(bytes), 100)
})

const RECEIVER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = sys.argv[1]
s.bind('\\0' + name[1:] if name[0] == '@' else name)
print('ready', flush=True)
print(s.recv(100).decode(), flush=True)
`

t.test('datagrams reach path and abstract sockets', async (t) => {
  for (const name of [join(tempDirectory(t), 'notify'), `@plexus-test-${process.pid}`]) {
    const child = spawn('python3', ['-c', RECEIVER, name], { stdio: ['ignore', 'pipe', 'inherit'] })
    const started = await new Promise<boolean>((resolve) => {
      child.once('spawn', () => resolve(true))
      child.once('error', () => resolve(false))
    })
    if (!started) return t.comment('no python3 to receive with')
    let text = ''
    let sent = false
    for await (const chunk of child.stdout) {
      text += chunk
      if (!sent) unixDatagram(name, 'READY=1')
      sent = true
    }
    t.equal(text, 'ready\nREADY=1\n', name)
  }
})

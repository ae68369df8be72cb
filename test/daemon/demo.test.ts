/** `npm run demo` as a process: what it says where it cannot start, and that a second one leaves the first alone. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { freePort, programCommand } from '../support/daemon.ts'

const dir = mkdtempSync(join(tmpdir(), 'plexus-demo-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

const folder = (name: string): string => join(dir, name)

function start(port: number, where: string): ChildProcessByStdio<null, Readable, Readable> {
  const [command = '', ...args] = programCommand('daemon/demo')
  return spawn(command, [...args, '--listen', `127.0.0.1:${port}`, '--dir', where], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/** A demo that is expected to end by itself: its exit code and what it wrote. */
async function refused(port: number, where: string): Promise<{ code: number; said: string }> {
  const child = start(port, where)
  const ended = new Promise<number>((resolve) => child.once('exit', (code) => resolve(code ?? -1)))
  const [out, err, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  return { code, said: out + err }
}

t.test('a port that is taken is named in one line, with what to do', async (t) => {
  const other = createServer()
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
  t.teardown(() => other.close())
  const { port } = other.address() as { port: number }
  const { code, said } = await refused(port, folder('taken'))
  t.equal(code, 1)
  t.match(said, /^\d\d:\d\d:\d\d fatal: .* 127\.0\.0\.1:\d+: another program listens there/m)
  t.match(said, /npm run demo -- --listen/)
  t.notMatch(said, /^\{|^\s+at /m, 'neither JSON nor a stack trace')
})

t.test('a folder that cannot be used is named, with what to do', async (t) => {
  writeFileSync(folder('file'), '')
  const { code, said } = await refused(await freePort(), folder('file/var'))
  t.equal(code, 1)
  t.match(said, /^The folder .*file\/var cannot be used: ENOTDIR: .* npm run demo -- --dir /)
  t.notMatch(said, /^\s+at /m)
})

t.test('a second demo in the same folder changes nothing there', async (t) => {
  const port = await freePort()
  const first = start(port, folder('var'))
  t.teardown(() => first.kill('SIGKILL'))
  let said = ''
  await new Promise<void>((resolve) => {
    first.stdout.on('data', (chunk) => {
      said += chunk
      if (said.includes('Ctrl-C ends it')) resolve()
    })
    first.once('exit', () => resolve())
  })
  t.match(said, `127.0.0.1:${port}`)
  const config = readFileSync(folder('var/demo.yaml'), 'utf8')
  for (const image of ['small', 'large', 'd1', 'd4']) {
    t.ok(statSync(folder(`var/${image}.img`)).blocks * 512 < 2 ** 20, `${image}.img is sparse`)
  }

  const second = await refused(await freePort(), folder('var'))
  t.equal(second.code, 1)
  t.match(second.said, /^The folder .*var cannot be used: another demo runs there\. .* --dir /)
  t.equal(readFileSync(folder('var/demo.yaml'), 'utf8'), config)
  const socket = connect(port, '127.0.0.1')
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  socket.destroy()

  const ended = new Promise((resolve) => first.once('exit', resolve))
  first.kill('SIGTERM')
  t.equal(await ended, 0)
})

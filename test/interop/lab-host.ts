/**
 * The target side of the lab: runs in the lab's network namespace as its host command (lab.ts starts it), serves plexusd
 * at the addresses of vagrant/lab.env and does what the guest asks for. The guest creates share/ask/NAME with arguments
 * in it, the host answers with share/done/NAME; see lab/lib.sh. Ends on SIGTERM.
 */
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Daemon, type DaemonConfig } from '../support/daemon.ts'
import { startFuse } from '../support/fuse-file.ts'
import { ROOT } from '../support/root.ts'
import { LabDisks } from './lab-disks.ts'

/** Compiled, this file is in build/test/interop. */
const vagrant = join(ROOT, 'vagrant')
const lab: Readonly<Record<string, string>> = Object.fromEntries(
  [...readFileSync(join(vagrant, 'lab.env'), 'utf8').matchAll(/^(\w+)=(.*)$/gm)].map(
    ([, key = '', value = '']) => [key, value],
  ),
)
function labValue(key: string): string {
  const value = lab[key]
  if (value === undefined) throw new Error(`lab.env has no ${key}`)
  return value
}
const PORT = Number(labValue('ISCSI_PORT'))
/** The target of the Vagrant lab; all others are named like it, with another end. */
const LAB_TARGET = labValue('TARGET_NAME')
const PREFIX = LAB_TARGET.slice(0, LAB_TARGET.lastIndexOf(':'))
const MIB = 1024 * 1024
const DISK_BYTES = 512 * MIB
const SMALL_BYTES = 32 * MIB
const POLL_MS = 50
/** The lab gives its host command ten seconds to end; loop devices have to be detached within them. */
const STOP_MS = 1500
/** Longer than a scenario: only the request `go` ends a stall. */
const STALL_MS_MAX = 300_000
/** What initiators may notice of a crash: the time between the end and the next start. */
const DOWN_MS = 1500

const [share = '', settingsText = '{}'] = process.argv.slice(2)
const settings = JSON.parse(settingsText) as {
  readonly device?: string
  readonly digests?: string
  /** So many disks for volumes, named d1, d2 and so on, of `diskMiB` each. */
  readonly disks?: string
  readonly diskMiB?: string
  /** Volumes that LUN 0, 1 and so on of the target "volumes" lead to, comma between them. */
  readonly volumes?: string
  /** The target of the Vagrant lab instead of all others, in both networks: `yes`. */
  readonly vagrant?: string
  /** `hal.timeout` of the configuration. */
  readonly timeout?: string
  /** A disk f1 of so many MiB, in a file system that can be told to answer nothing. */
  readonly fuseMiB?: string
}
const images = mkdtempSync(join(tmpdir(), 'plexus-lab-images-'))
const loops: string[] = []

function image(name: string, bytes: number): string {
  const path = join(images, name)
  writeFileSync(path, '')
  truncateSync(path, bytes)
  return path
}

function loopOver(path: string): string {
  const loop = execFileSync('losetup', ['--direct-io=on', '-f', '--show', path]).toString().trim()
  loops.push(loop)
  return loop
}

const diskImage = image('disk', DISK_BYTES)
const devices = {
  disk: settings.device === 'loop' ? loopOver(diskImage) : diskImage,
  chap: image('chap', SMALL_BYTES),
  mutual: image('mutual', SMALL_BYTES),
  second: image('second', SMALL_BYTES),
}

/** In memory where there is such a file system: volumes write everything more than once. */
const diskDir = mkdtempSync(
  join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'plexus-lab-disks-'),
)
const disks = new LabDisks(
  diskDir,
  Number(settings.disks ?? 0),
  Number(settings.diskMiB ?? 0) * MIB,
)
const fuse = settings.fuseMiB
  ? await startFuse(
      mkdtempSync(join(images, 'fuse-')),
      Number(settings.fuseMiB) * MIB,
      STALL_MS_MAX,
    )
  : undefined
const volumes = settings.volumes?.split(',') ?? []

function target(name: keyof typeof devices, auth: string): object {
  return {
    name: `${PREFIX}:${name}`,
    portals: ['test'],
    auth,
    luns: [{ lun: 0, device: name }],
  }
}

const volumesTarget = {
  name: `${PREFIX}:volumes`,
  portals: ['test'],
  auth: 'none',
  luns: volumes.map((volume, lun) => ({ lun, volume })),
}

const secrets = mkdtempSync(join(images, 'secrets-'))
function secretFile(name: string, secret: string): string {
  const path = join(secrets, name)
  writeFileSync(path, `${secret}\n`, { mode: 0o600 })
  return path
}
const alice = { user: 'alice', secretFile: secretFile('alice', 'alice-secret-01') }
const plexus = { user: 'plexus', secretFile: secretFile('plexus', 'plexus-secret-1') }

/** What vagrant/provision/target.sh configures, for the Linux initiators: each network is a portal of its own. */
function vagrantConfig(): DaemonConfig {
  const portal = (name: string, address: string) => ({ name, listen: [`${address}:${PORT}`] })
  const chap = (user: string, secret: string) => ({
    user: labValue(user),
    secretFile: secretFile(user, labValue(secret)),
  })
  return {
    auth: [
      {
        name: 'linux',
        chap: chap('CHAP_USER', 'CHAP_SECRET'),
        mutual: chap('MUTUAL_USER', 'MUTUAL_SECRET'),
        initiators: [labValue('LINUX_NAME'), labValue('SECOND_NAME')],
      },
    ],
    portals: [portal('a', labValue('TARGET_ADDRESS_A')), portal('b', labValue('TARGET_ADDRESS_B'))],
    devices: disks.devices,
    targets: [
      {
        name: LAB_TARGET,
        portals: ['a', 'b'],
        auth: 'linux',
        luns: [{ lun: Number(labValue('LUN')), volume: labValue('VOLUME') }],
      },
    ],
  }
}

function config(withSecond: boolean): DaemonConfig {
  const { second, ...always } = devices
  return {
    auth: [
      { name: 'one-way', chap: alice },
      { name: 'both-ways', chap: alice, mutual: plexus },
    ],
    devices: {
      ...always,
      ...(withSecond ? { second } : {}),
      ...disks.devices,
      ...(fuse ? { f1: fuse.path } : {}),
    },
    ...(settings.timeout ? { hal: { timeout: settings.timeout } } : {}),
    targets: [
      target('disk', 'none'),
      target('chap', 'one-way'),
      target('mutual', 'both-ways'),
      ...(withSecond ? [target('second', 'none')] : []),
      ...(volumes.length > 0 ? [volumesTarget] : []),
    ],
  }
}

const daemon = await Daemon.start({
  config: settings.vagrant ? vagrantConfig() : config(false),
  host: labValue('TARGET_ADDRESS_A'),
  port: PORT,
  ...(settings.digests ? { digests: { header: settings.digests, data: settings.digests } } : {}),
  onLog: (line) => appendFileSync(join(share, 'host.log'), `${line}\n`),
})

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Reloads and waits until the daemon has logged what it made of the file. */
async function reload(): Promise<void> {
  const seen = daemon.log.length
  daemon.signal('SIGHUP')
  for (let tries = 0; tries < 100 && daemon.log.length === seen; tries++) await sleep(50)
  await sleep(300)
}

/** What the guest can ask for, with the words after it; the text goes back to it. */
const REQUESTS: Readonly<Record<string, (args: readonly string[]) => string | Promise<string>>> = {
  size: () => String(DISK_BYTES),
  /** KiB that the image occupies: what discard frees. */
  allocated: () => String(statSync(diskImage).blocks / 2),
  'add-target': async () => {
    daemon.configure(config(true))
    await reload()
    return 'added'
  },
  'remove-target': async () => {
    daemon.configure(config(false))
    await reload()
    return 'removed'
  },
  'broken-config': async () => {
    writeFileSync(daemon.configPath, 'version: 1\ntargets: [{ name: 7\n')
    await reload()
    daemon.configure(config(false))
    return 'broken and mended'
  },
  kill9: async () => {
    await daemon.kill()
    await sleep(DOWN_MS)
    await daemon.spawn()
    return 'started again'
  },
  /** The machine is off; meanwhile a disk dies. */
  'reboot-without': async ([disk = '']) => {
    await daemon.kill()
    disks.pull(disk)
    await sleep(DOWN_MS)
    await daemon.spawn()
    return 'started without it'
  },
  /** The machine is off; meanwhile all disks are made larger. */
  'reboot-larger': async ([mib = '']) => {
    await daemon.kill()
    disks.enlarge(Number(mib) * MIB)
    await daemon.spawn()
    return 'started with larger disks'
  },
  /** The command line: its exit status in the first line, then what it said. */
  plexus: async (args) => {
    const { exit, out, err } = await daemon.plexus(args)
    return `${exit}\n${out}${err}`.trimEnd()
  },
  pull: ([disk = '']) => {
    disks.pull(disk)
    return 'pulled'
  },
  /** `network cut A` and `network mend A`, and the same with B. */
  network: (args) => {
    execFileSync(join(vagrant, 'uml/network'), args)
    return 'done'
  },
  /** f1 answers nothing until `go`. */
  stall: async () => {
    await fuse?.stall()
    return 'stalled'
  },
  go: () => {
    fuse?.go()
    return 'goes on'
  },
  plug: async ([disk = '']) => {
    await disks.plug(disk)
    return 'plugged'
  },
}

let stopping = false
async function stop(): Promise<void> {
  if (stopping) return
  stopping = true
  fuse?.go()
  await daemon.stop(STOP_MS)
  await fuse?.stop()
  for (const loop of loops) execFileSync('losetup', ['-d', loop])
  disks.release()
  rmSync(diskDir, { recursive: true, force: true })
  rmSync(images, { recursive: true, force: true })
  process.exit(0)
}
process.on('SIGTERM', () => void stop())
process.on('SIGINT', () => void stop())

function answer(name: string, text: string): void {
  const part = join(share, `part-${name}`)
  writeFileSync(part, `${text}\n`)
  renameSync(part, join(share, 'done', name))
}

mkdirSync(join(share, 'ask'), { recursive: true })
mkdirSync(join(share, 'done'), { recursive: true })
answer('ready', String(daemon.pid))
while (!stopping) {
  for (const name of readdirSync(join(share, 'ask'))) {
    const args = readFileSync(join(share, 'ask', name), 'utf8')
      .split(/\s+/)
      .filter(Boolean)
    rmSync(join(share, 'ask', name))
    try {
      answer(name, await (REQUESTS[name]?.(args) ?? 'unknown request'))
    } catch (error) {
      answer(name, `failed: ${error}`)
    }
  }
  await sleep(POLL_MS)
}

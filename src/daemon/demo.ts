/**
 * `npm run demo`: Plexus on image files under ./var, on loopback, with nothing to configure. Makes the images
 * (sparse: they take space as they are written) and a configuration, prints what to type on an initiator and
 * how to make a volume of the spare disks, and serves until Ctrl-C. The images stay, with their data, for the
 * next run.
 */
import { closeSync, ftruncateSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { Command } from 'commander'
import { formatSize } from '../base/bytes.ts'
import { GIB, MIB } from '../base/limits.ts'
import { plexusVersion } from '../base/version.ts'
import { flockExclusive } from '../hal/libc.ts'
import { type ListenAddress, parseListen } from './config-schema.ts'
import { EXIT, serve } from './plexusd.ts'

const LISTEN = '127.0.0.1:3260'
const TARGET = 'iqn.2026-01.lab.plexus:demo'
const DISKS = [
  { name: 'small', bytes: 1 * GIB },
  { name: 'large', bytes: 8 * GIB },
] as const
/** Disks that are not served: for volumes. Small, since the first parity and a growth write them from end to end. */
const SPARE_BYTES = 256 * MIB
const SPARES = ['d1', 'd2', 'd3', 'd4'].map((name) => ({ name, bytes: SPARE_BYTES }))
/** Name of the volume that has a LUN waiting for it. */
const VOLUME = 'first'

/** Creates a sparse file of `bytes`, unless it exists. */
function makeImage(path: string, bytes: number): void {
  let file: number
  try {
    file = openSync(path, 'wx', 0o600)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return
    throw error
  }
  try {
    ftruncateSync(file, bytes)
  } finally {
    closeSync(file)
  }
}

/**
 * Writes images and configuration into `dir`, which is locked until this process ends; the path of the configuration.
 * Throws, before anything is written, where another demo has the folder.
 */
function prepare(dir: string, listen: string): string {
  mkdirSync(dir, { recursive: true })
  if (!flockExclusive(openSync(dir, 'r'))) throw new Error('another demo runs there')
  for (const { name, bytes } of [...DISKS, ...SPARES]) makeImage(resolve(dir, `${name}.img`), bytes)
  const config = resolve(dir, 'demo.yaml')
  const lines = [
    '# Written by "npm run demo" at every start; copy it to change it.',
    'version: 1',
    `portals: [{ name: demo, listen: ["${listen}"] }]`,
    'devices:',
    ...[...DISKS, ...SPARES].map(({ name }) => `  ${name}: ./${name}.img`),
    'targets:',
    `  - name: ${TARGET}`,
    '    alias: Plexus demo',
    '    portals: [demo]',
    '    auth: none # whoever reaches the address may log in',
    '    luns:',
    ...DISKS.map(({ name }, lun) => `      - { lun: ${lun}, device: ${name} }`),
    `      - { lun: ${DISKS.length}, volume: ${VOLUME} } # not ready until there is one`,
    'log: { level: warn, format: text }',
    'state: { dir: ./state }',
    'control: { dir: ./run }',
  ]
  writeFileSync(config, `${lines.join('\n')}\n`)
  return config
}

function help({ host, port }: ListenAddress, config: string, dir: string): string {
  const plexus = `npx plexus --socket ${relative('.', resolve(dir, 'run'))}`
  const spares = SPARES.map(({ name }) => name)
  const portal = `${host.includes(':') ? `[${host}]` : host}:${port}`
  const disks = DISKS.map(({ name, bytes }) => `${name}.img (${formatSize(bytes)})`).join(', ')
  return `
Plexus ${plexusVersion()} serves ${TARGET} on ${portal}: ${disks}
Configuration: ${config}

Make a volume of the disks ${spares.join(', ')}; it appears as LUN ${DISKS.length} at once. Parity is written at once, and
growing writes everything anew: then the images are sparse no longer and take ${formatSize(SPARES.length * SPARE_BYTES)}.
  ${plexus} volume create ${VOLUME} --raid5 ${spares.slice(0, 3).join(' ')} --wait
  ${plexus} status
  ${plexus} volume grow ${VOLUME} ${spares[3]} --wait

Linux (package open-iscsi), as root on this machine:
  iscsiadm -m discovery -t sendtargets -p ${portal}
  iscsiadm -m node -T ${TARGET} -p ${portal} --login
  lsblk --scsi --output NAME,VENDOR,MODEL,SIZE | grep PLEXUS
  iscsiadm -m node -T ${TARGET} -p ${portal} --logout

Any system, without root (package libiscsi-bin):
  iscsi-ls --show-luns iscsi://${portal}/
  iscsi-inq iscsi://${portal}/${TARGET}/0

Windows (PowerShell as administrator; needs an address that Windows reaches, see --listen):
  New-IscsiTargetPortal -TargetPortalAddress ${host} -TargetPortalPortNumber ${port}
  Connect-IscsiTarget -NodeAddress ${TARGET}

Ctrl-C ends it.
`
}

async function main(): Promise<number> {
  const program = new Command('demo')
    .description('Serves two image files, to try Plexus out.')
    .option('--listen <address:port>', 'where to listen; anybody who reaches it may log in', LISTEN)
    .option('--dir <folder>', 'where the images are kept', 'var')
  program.parse()
  const { listen, dir } = program.opts<{ listen: string; dir: string }>()
  const address = parseListen(listen)
  if (!address) {
    process.stderr.write(`"${listen}" is not an address; write 127.0.0.1:3261 or [::1]:3261\n`)
    return EXIT.USAGE
  }
  let config: string
  try {
    config = prepare(resolve(dir), listen)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    const elsewhere = 'npm run demo -- --dir /tmp/plexus --listen 127.0.0.1:3261'
    process.stderr.write(
      `The folder ${resolve(dir)} cannot be used: ${why}. To use another one: ${elsewhere}\n`,
    )
    return EXIT.FAILED
  }
  const status = await serve(config, () => process.stdout.write(help(address, config, dir)))
  if (status !== EXIT.DONE) {
    process.stderr.write('Another port: npm run demo -- --listen 127.0.0.1:3261\n')
  }
  return status
}

process.exit(await main())

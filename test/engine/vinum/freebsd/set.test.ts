/** Drives of FreeBSD in operation: read right whatever their form, never written, converted in place. */
import t from 'tap'
import { MIB } from '../../../../src/base/limits.ts'
import type { FreebsdVariant } from '../../../../src/engine/vinum/freebsd/header.ts'
import { flush, get, type Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import {
  CONTENT,
  configText,
  freebsdMachine,
  TIGHT_BYTES,
} from '../../../support/freebsd-machine.ts'
import { MemoryDevice } from '../../../support/memory-device.ts'
import { type DriveView, drivesIn } from '../../../support/objects.ts'

const READ = { read: 1, write: 0, exclusive: 0 }

async function readVolume(machine: Machine, name: string): Promise<Buffer> {
  const { topology } = machine
  const provider = topology.find(name)
  const consumer = topology.attach(provider, undefined, 'test', READ)
  try {
    return await get(consumer, 0, provider.sizeBytes)
  } finally {
    await consumer.close()
  }
}

/** Names of the volumes whose content is not what it shall be. */
async function wrongVolumes(
  machine: Machine,
  names: readonly string[] = Object.keys(CONTENT),
): Promise<readonly string[]> {
  const wrong: string[] = []
  for (const name of names) {
    const content = await readVolume(machine, name)
    if (!content.equals(CONTENT[name] ?? Buffer.alloc(0))) wrong.push(name)
  }
  return wrong
}

function drives(machine: Machine): readonly DriveView[] {
  return drivesIn(machine.topology)
}

function events(machine: Machine, event: string): readonly string[] {
  return machine.topology.events.history
    .filter((one) => one.event === event)
    .map(({ message }) => message)
}

function mediaOf(machine: Machine): readonly Buffer[] {
  return [...machine.devices.values()].map(({ media }) => Buffer.from(media))
}

function isUntouched(machine: Machine, before: readonly Buffer[]): boolean {
  return mediaOf(machine).every((one, index) => one.equals(before[index] ?? Buffer.alloc(0)))
}

const VARIANTS: readonly FreebsdVariant[] = [
  'current',
  'legacy-64-big',
  'legacy-64-little',
  'legacy-32-big',
  'legacy-32-little',
]

for (const variant of VARIANTS) {
  t.test(`${variant}: every organisation is served, and nothing is written`, async (t) => {
    const machine = freebsdMachine({ drive: () => ({ variant }) })
    const before = mediaOf(machine)
    await machine.start()
    t.strictSame(await wrongVolumes(machine), [])
    t.equal(machine.topology.find('wide').features.readOnly, true)
    const error = await failureOf((async () => machine.open('wide'))())
    t.equal(error.kind, 'permission')
    await machine.shutDown()
    t.ok(isUntouched(machine, before))
    t.equal(machine.pool.leased, 0)
  })
}

t.test('what is said of them', async (t) => {
  const machine = await freebsdMachine().start()
  t.strictSame(
    drives(machine).map(({ name, state, device, format }) => ({ name, state, device, format })),
    [1, 2, 3, 4].map((n) => ({ name: `a${n}`, state: 'UP', device: `d${n}`, format: 'freebsd' })),
  )
  const report = machine.volume('wide')
  t.equal(report.health, 'HEALTHY')
  t.match(report.status, 'Read-only')
  t.match(report.action, 'plexus vinum convert')
  t.strictSame((await machine.list('volume.list')).map(({ name }) => name).sort(), [
    'cat',
    'fast',
    'safe',
    'wide',
  ])
  t.equal((await machine.list('vinum.ld')).filter(({ facts }) => facts['present']).length, 4)
  const { text } = (await machine.run('vinum.printconfig')) as unknown as { text: string }
  t.match(text, 'drive a1 device')
  t.match(text, 'sd name wide.p0.s3')
  const tree = machine.topology.report().find(({ name }) => name === 'vinum-freebsd')
  t.strictSame(tree?.consumers, ['d1', 'd2', 'd3', 'd4'])
  t.strictSame([...(tree?.providers ?? [])].sort(), ['cat', 'fast', 'safe', 'wide'])
  // A verb that would make a drive of one of them is refused.
  const error = await failureOf(machine.run('volume.create', { name: 'x', concat: ['d1'] }))
  t.equal(error.kind, 'in-use')
})

t.test('a drive that is missing, goes or comes', async (t) => {
  const machine = freebsdMachine()
  const before = mediaOf(machine)
  await machine.start(['d2', 'd3', 'd4'])
  t.strictSame(await wrongVolumes(machine, ['safe', 'wide']), [], 'redundancy serves')
  t.equal(machine.volume('wide').health, 'DEGRADED')
  t.match(machine.volume('wide').action, 'Connect drive a1')
  t.equal(machine.volume('fast').health, 'FAULTED')
  await t.rejects(readVolume(machine, 'fast'))
  const { topology } = machine
  const open = topology.attach(topology.find('wide'), undefined, 'test', READ)
  await machine.plug('d1')
  t.strictSame(await wrongVolumes(machine), [], 'complete')
  await machine.pull('d3')
  t.strictSame(await wrongVolumes(machine, ['cat', 'safe', 'wide']), [])
  t.equal(machine.volume('wide').health, 'DEGRADED')
  await machine.replug('d3')
  t.equal(machine.volume('wide').health, 'HEALTHY')
  const content = await get(open, 0, 3 * MIB)
  t.ok(content.equals(CONTENT['wide'] as Buffer), 'who has it open kept it')
  await open.close()
  await machine.shutDown()
  t.ok(isUntouched(machine, before))
})

t.test('what was not up when it was saved is not read', async (t) => {
  const states = { 'safe.p0': 'down', 'safe.p0.s0': 'stale', 'wide.p0': 'degraded' }
  const machine = freebsdMachine({ states: { ...states, 'wide.p0.s1': 'down' } })
  machine.device('d1').media.fill(0xee, (265 + 2 * 2048) * 512, (265 + 3 * 2048) * 512)
  machine.device('d2').media.fill(0xee, (265 + 3 * 2048) * 512, (265 + 4 * 2048) * 512)
  await machine.start()
  t.strictSame(await wrongVolumes(machine), [])
  const error = await failureOf(machine.run('vinum.convert'))
  t.match(error.message, 'convert only what is whole')
  t.strictSame(await wrongVolumes(machine), [], 'served as before')
})

t.test('a drive that calls another one stale is believed also when it is gone', async (t) => {
  const states = { 'safe.p1': 'down', 'safe.p1.s0': 'stale' }
  const machine = freebsdMachine({
    drive: (index) => (index === 0 ? { text: configText(states), seconds: 1_800_000_000 } : {}),
  })
  machine.device('d2').media.fill(0xee, (265 + 2 * 2048) * 512, (265 + 3 * 2048) * 512)
  await machine.start()
  t.strictSame(await wrongVolumes(machine, ['safe']), [])
  await machine.pull('d1')
  await t.rejects(readVolume(machine, 'safe'), 'the stale copy on a2 is not served')
})

t.test('a bad sector of one copy is read from another one, and not written', async (t) => {
  const machine = await freebsdMachine().start()
  const { counts } = machine.device('d1')
  for (const name of ['safe', 'wide']) {
    machine.device('d1').fail('read', 'io')
    t.strictSame(await wrongVolumes(machine, [name]), [])
  }
  t.equal(counts.write, 0)
  t.equal(machine.volume('safe').health, 'HEALTHY')
})

t.test('drives that contradict each other are not served, and it is said what to do', async (t) => {
  const machine = freebsdMachine({
    drive: (index) => (index === 3 ? { driveName: 'a1' } : {}),
  })
  await machine.start()
  t.match(events(machine, 'set-incomplete').join(), 'disconnect the one that is a copy')
  t.strictSame(
    drives(machine).map(({ state }) => state),
    ['WAITING', 'WAITING', 'WAITING', 'WAITING'],
  )
  t.notOk(machine.topology.providers.has('safe'))
  await machine.pull('d4')
  t.strictSame(await wrongVolumes(machine, ['cat', 'fast', 'safe']), [])
  await machine.replug('d4')
  t.match(events(machine, 'duplicate-drive').join(), 'left alone')
  t.strictSame(await wrongVolumes(machine, ['safe']), [])
})

t.test(
  'texts that make no sense cost a volume, or everything, but never the process',
  async (t) => {
    const gap = configText().replace(/^sd name wide\.p0\.s1.*\n/m, '')
    const machine = await freebsdMachine({ drive: () => ({ text: gap }) }).start()
    t.strictSame(await wrongVolumes(machine, ['cat', 'fast', 'safe']), [])
    t.notOk(machine.topology.providers.has('wide'), 'columns with a gap')
    t.match(machine.volume('wide').status, 'Not served')
    const lone = configText().replace(/^sd name wide\.p0\.s[1-3].*\n/gm, '')
    const second = await freebsdMachine({ drive: () => ({ text: lone }) }).start()
    t.notOk(second.topology.providers.has('wide'), 'raid5 of one column')
    const garbage = await freebsdMachine({ drive: () => ({ text: 'volume\nplex org\n' }) }).start()
    t.equal(garbage.topology.providers.size, 4)
    t.ok(events(garbage, 'set-incomplete').length > 0)
  },
)

t.test('a name that is taken', async (t) => {
  const machine = freebsdMachine()
  const text = configText().replaceAll(/\bsafe\b/g, 'd2')
  const taken = freebsdMachine({ drive: () => ({ text }) })
  await taken.start()
  t.ok((await readVolume(taken, 'd2.freebsd')).equals(CONTENT['safe'] as Buffer))
  t.equal(taken.volume('d2.freebsd').health, 'HEALTHY')
  await machine.start()
  t.notOk(machine.topology.providers.has('safe.freebsd'))
})

t.test('drives that were removed, or are of other sets, are left alone', async (t) => {
  const machine = freebsdMachine({ drive: (index) => (index === 3 ? { removed: true } : {}) })
  const before = mediaOf(machine)
  await machine.start()
  t.strictSame(await wrongVolumes(machine, ['cat', 'fast', 'safe', 'wide']), [])
  t.equal(machine.volume('wide').health, 'DEGRADED')
  t.equal(machine.topology.find('d4').consumers.size, 0)
  await machine.shutDown()
  t.ok(isUntouched(machine, before))
})

// Conversion.

for (const [what, sizeBytes] of [
  ['with room at the end', 16 * MIB],
  ['with little room at the end', 5 * MIB],
  ['with one free block', TIGHT_BYTES],
] as const) {
  t.test(`converted in place, ${what}`, async (t) => {
    const machine = freebsdMachine({ sizeBytes })
    const before = mediaOf(machine)
    await machine.start()
    const dry = await machine.run('vinum.convert', { dryRun: true })
    t.ok(dry.steps.some(({ text }) => text === 'write label on a1 (d1)'))
    t.equal(dry.warnings.length, sizeBytes === TIGHT_BYTES ? 4 : 0)
    t.ok(isUntouched(machine, before), 'a dry run writes nothing')
    await machine.run('vinum.convert')
    t.ok(drives(machine).every(({ format, state }) => format === 'native' && state === 'UP'))
    t.strictSame(await wrongVolumes(machine), [])
    const volume = machine.open('wide')
    const more = pattern(9, MIB)
    await put(volume, MIB, more)
    await flush(volume)
    await volume.close()
    const jobs = await machine.jobsDone()
    t.ok(jobs.some(({ kind, parent: of }) => kind === 'resync' && of === 'safe'))
    t.ok(jobs.every(({ state }) => state === 'done'))
    for (const restart of ['in order', 'after a cut']) {
      if (restart === 'in order') await machine.shutDown()
      else machine.cut()
      await machine.start()
      t.strictSame(await wrongVolumes(machine, ['cat', 'fast', 'safe']), [], restart)
      t.ok((await readVolume(machine, 'wide')).subarray(MIB, 2 * MIB).equals(more), restart)
      await machine.jobsDone()
    }
    await machine.pull('d2')
    t.ok((await readVolume(machine, 'wide')).subarray(MIB, 2 * MIB).equals(more), 'without d2')
    t.equal(machine.topology.find('wide').features.readOnly, false)
    t.equal(machine.pool.leased, 0)
  })
}

t.test('what keeps a conversion from being done', async (t) => {
  const refused = async (machine: Machine): Promise<string> => {
    const before = mediaOf(machine)
    const { message } = await failureOf(machine.run('vinum.convert'))
    t.ok(isUntouched(machine, before), message)
    return message
  }
  const none = await new (await import('../../../support/engine.ts')).Machine({
    devices: 1,
  }).start()
  t.match(await refused(none), 'no drives of FreeBSD')
  t.match(await refused(await freebsdMachine().start(['d1', 'd2', 'd3'])), 'a4 is missing')
  const full = freebsdMachine({ sizeBytes: TIGHT_BYTES - 512 })
  t.match(await refused(await full.start()), 'last block must be free')
  const open = await freebsdMachine().start()
  const { topology } = open
  const consumer = topology.attach(topology.find('cat'), undefined, 'a LUN', READ)
  t.match(await refused(open), 'cat is in use')
  await consumer.close()
  // A drive of another machine: it would be free room afterwards.
  const strange = configText().replaceAll(/\b(cat|fast|safe|wide)\b/g, 'x$1')
  const foreign = await freebsdMachine({
    drive: (index) =>
      index === 3
        ? { driveName: 'a9', text: strange.replaceAll('drive a4', 'drive a9'), seconds: 5 }
        : { text: configText().replaceAll(/^.*wide.*\n/gm, '') },
  }).start()
  t.match(events(foreign, 'foreign-drive').join(), 'a9')
  t.match(await refused(foreign), 'a9')
})

t.test('a conversion beside a native set makes one more set', async (t) => {
  const machine = freebsdMachine()
  machine.devices.set('s1', new MemoryDevice({ sizeBytes: 8 * MIB, path: '/dev/s1' }))
  await machine.start()
  await machine.run('volume.create', { name: 'own', concat: ['s1'] })
  const before = await readVolume(machine, 'wide')
  await machine.run('vinum.convert')
  await machine.jobsDone()
  t.ok((await readVolume(machine, 'wide')).equals(before))
  t.not(machine.volume('wide').set, machine.volume('own').set)
  t.equal(machine.topology.find('wide').features.readOnly, false)
  await machine.run('volume.scrub', { name: 'safe' })
  t.match((await machine.jobsDone()).at(-1), { kind: 'check', mismatches: 0 })
})

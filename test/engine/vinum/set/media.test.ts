/** Disks that grew, shrank, were copied, overwritten or are read-only: what a set makes of them. */
import t, { type Test } from 'tap'
import { MIB } from '../../../../src/base/limits.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import { MemoryDevice } from '../../../support/memory-device.ts'
import { drivesIn } from '../../../support/objects.ts'

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

const GROWN = 24 * MIB

/** A machine of disks of 16 MiB with a volume `v` that has data, and a free disk d4. */
async function made(layout: Readonly<Record<string, readonly string[]>>) {
  const machine = await new Machine({ devices: 4 }).start()
  await machine.run('volume.create', { name: 'v', ...layout })
  await machine.jobsDone()
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, MIB))
  await flush(volume)
  await volume.close()
  return machine
}

async function checkData(t: Test, machine: Machine): Promise<void> {
  const volume = machine.open('v')
  t.ok((await get(volume, 0, MIB)).equals(pattern(1, MIB)), 'the data is there')
  await volume.close()
}

function drives(machine: Machine) {
  return drivesIn(machine.topology)
}

function problemOf(machine: Machine, device: string): string {
  const problem = machine.topology.find(device).label?.problem
  return problem ? `${problem.text}. ${problem.action}` : ''
}

function events(machine: Machine, event: string): readonly string[] {
  const { history } = machine.topology.events
  return history.filter((one) => one.event === event).map(({ message }) => message)
}

/** The medium of a device on a disk of another size, as dd copies it; under its name, or under that of another one. */
function copy(machine: Machine, from: string, sizeBytes: number, to = from): void {
  const device = new MemoryDevice({ sizeBytes, blockBytes: 512, path: `/dev/${to}` })
  const { media } = machine.device(from)
  media.copy(device.media, 0, 0, Math.min(sizeBytes, media.length))
  machine.devices.set(to, device)
}

t.test('all disks of a RAID5 grow while it is off: data there, new room usable', async (t) => {
  const machine = await made({ raid5: ['d1', 'd2', 'd3'] })
  const before = machine.volume('v').sizeBytes
  await machine.shutDown()
  for (const name of ['d1', 'd2', 'd3']) copy(machine, name, GROWN)
  await machine.start()
  t.match(machine.volume('v'), { health: 'HEALTHY', status: '' })
  await checkData(t, machine)
  for (const { name, freeBytes = 0, note } of drives(machine)) {
    t.ok(freeBytes >= 7 * MIB, `${name} has ${freeBytes} bytes free ${note}`)
  }
  t.equal(events(machine, 'drive-grown').length, 3)
  t.equal(problemOf(machine, 'd1'), '')
  const refused = await failureOf(
    machine.run('volume.create', { name: 'w', concat: ['d1'], size: `${GROWN}` }),
  )
  t.equal(refused.kind, 'no-space', 'd1 is a drive, not a blank disk')
  await machine.run('volume.create', { name: 'w', mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  const more = machine.open('w')
  await put(more, 6 * MIB, pattern(2, MIB))
  await flush(more)
  await more.close()
  machine.cut()
  await machine.start()
  await checkData(t, machine)
  const again = machine.open('w')
  t.ok((await get(again, 6 * MIB, MIB)).equals(pattern(2, MIB)), 'also what lies in the new room')
  t.equal(machine.volume('v').sizeBytes, before)
})

t.test('one disk grows while the volume runs: taken at once, with its marks', async (t) => {
  const machine = await made({ mirror: ['d1', 'd2'] })
  const volume = machine.open('v')
  await put(volume, 2 * MIB, pattern(3, MIB))
  machine.device('d1').resize(GROWN)
  await machine.topology.quiet()
  await machine.topology.quiet()
  t.match(events(machine, 'device-resized'), [/d1 has another size: 16 MiB before, 24 MiB now/])
  t.match(events(machine, 'drive-grown'), [/drive d1 has grown by .* MiB/])
  await put(volume, 4 * MIB, pattern(4, MIB))
  await flush(volume)
  machine.cut()
  await machine.start()
  await machine.jobsDone()
  await checkData(t, machine)
  t.equal(machine.volume('v').health, 'HEALTHY')
  const [d1] = drives(machine).filter(({ name }) => name === 'd1')
  t.ok((d1?.freeBytes ?? 0) >= 7 * MIB)
})

t.test('a disk that shrinks is named, not used, and taken back when it has its size', async (t) => {
  const machine = await made({ mirror: ['d1', 'd2'] })
  const before = Buffer.from(machine.device('d1').media)
  machine.device('d1').resize(12 * MIB)
  await machine.topology.quiet()
  await machine.topology.quiet()
  t.match(events(machine, 'drive-down'), [/d1 has shrunk from 16 MiB to 12 MiB/])
  t.match(problemOf(machine, 'd1'), /label for 16 MiB; the disk is 12 MiB now.* size of at least/)
  const { status, action } = machine.volume('v')
  t.match(status, /Drive d1 is not used: d1 carries a Plexus label for 16 MiB; the disk is 12 MiB/)
  t.match(action, /^d1: Give it back its size of at least 16777216 bytes/)
  t.notMatch(action, /[Cc]onnect/)
  const refused = await failureOf(machine.run('volume.create', { name: 'w', concat: ['d1'] }))
  t.not(refused.kind, undefined, 'it is not blank')
  await checkData(t, machine)
  machine.device('d1').resize(16 * MIB)
  before.copy(machine.device('d1').media)
  machine.device('d1').resize(16 * MIB + 512)
  await machine.topology.quiet()
  await machine.topology.quiet()
  await machine.jobsDone()
  t.equal(machine.volume('v').health, 'HEALTHY')
  t.equal(problemOf(machine, 'd1'), '')
})

t.test('a disk with a label for another size is never taken for blank', async (t) => {
  const machine = await made({ concat: ['d1'] })
  await machine.shutDown()
  copy(machine, 'd1', 12 * MIB)
  await machine.start()
  for (const method of ['volume.create', 'vinum.concat']) {
    const layout = method === 'volume.create' ? { concat: ['d1'] } : { devices: ['d1'] }
    const refused = await failureOf(machine.run(method, { name: 'w', ...layout }))
    t.match(refused, { kind: 'foreign', message: /Plexus label for 16 MiB .*12 MiB now/ }, method)
  }
})

t.test('a partition table over the end: named, refused, not used', async (t) => {
  const machine = await made({ raid5: ['d1', 'd2', 'd3'] })
  await machine.shutDown()
  const { media } = machine.device('d1')
  media.fill(0, media.length - 33 * 512)
  media.write('EFI PART', media.length - 512)
  await machine.start()
  t.match(problemOf(machine, 'd1'), /end was overwritten \(GPT backup.*restore-label d1/)
  t.match(machine.volume('v').action, /^d1: .*plexus device restore-label d1/)
  t.match(events(machine, 'label-problem'), [/d1 is not used: it carries a Plexus label whose end/])
  const refused = await failureOf(machine.run('volume.create', { name: 'w', concat: ['d1'] }))
  t.equal(refused.kind, 'gone', 'it is drive d1')
  await checkData(t, machine)
})

t.test('two devices with one label: neither is used when both are there', async (t) => {
  const machine = await made({ mirror: ['d1', 'd2'] })
  await machine.shutDown()
  copy(machine, 'd1', 16 * MIB, 'd3')
  // The copy is of an older time.
  await machine.start(['d1', 'd2'])
  const volume = machine.open('v')
  await put(volume, 0, pattern(9, MIB))
  await flush(volume)
  await volume.close()
  await machine.shutDown()
  for (const order of [
    ['d1', 'd2', 'd3'],
    ['d3', 'd2', 'd1'],
    ['d2', 'd1', 'd3'],
  ]) {
    await machine.start(order)
    t.match(problemOf(machine, 'd1'), /label of drive .*, and so does d3.*None of them is used/)
    t.match(problemOf(machine, 'd3'), /and so does d1/)
    t.match(problemOf(machine, 'd3'), /Several paths to one disk cannot be used together yet/)
    t.equal(events(machine, 'label-problem').length, 2)
    t.equal(
      drives(machine).some(({ device, state }) => device !== 'd2' && state === 'UP'),
      false,
      'neither',
    )
    await machine.shutDown()
  }
  // One of them goes: the other one is the drive.
  await machine.start(['d1', 'd2', 'd3'])
  await machine.pull('d3')
  await machine.topology.quiet()
  t.equal(problemOf(machine, 'd1'), '')
  await machine.jobsDone()
  t.equal(machine.volume('v').health, 'HEALTHY')
  const again = machine.open('v')
  t.ok((await get(again, 0, MIB)).equals(pattern(9, MIB)))
  await again.close()
  // And while it is in use, a copy is left alone.
  await machine.replug('d3')
  t.match(problemOf(machine, 'd3'), /label of drive d1, which is in use on d1: it is a copy, or/)
  t.equal(problemOf(machine, 'd1'), '')
  t.equal(machine.volume('v').health, 'HEALTHY')
  const wipe = { name: 'w', concat: ['d3'], wipeSignatures: true }
  const refused = await failureOf(machine.run('volume.create', wipe))
  t.match(refused, { kind: 'in-use', message: /the same disk as d1, by another path, or a copy/ })
})

t.test('two paths of one disk make no mirror', async (t) => {
  const machine = new Machine({ devices: 3 })
  for (const name of ['d1', 'd2']) {
    const identity = { wwid: 'naa.5000c500a1b2c3d4' }
    const init = { sizeBytes: 16 * MIB, blockBytes: 512, path: `/dev/${name}`, identity }
    machine.devices.set(name, new MemoryDevice(init))
  }
  await machine.start()
  for (const mirror of [
    ['d1', 'd2'],
    ['d3', 'd2'],
  ]) {
    const refused = await failureOf(machine.run('volume.create', { name: 'v', mirror }))
    t.equal(refused.kind, 'in-use')
    t.match(refused.message, /the same disk as d[12], by another path/)
  }
})

t.test('a read-only drive is said to be read-only, not missing', async (t) => {
  const machine = await made({ mirror: ['d1', 'd2'] })
  await machine.shutDown()
  const device = new MemoryDevice({
    sizeBytes: 16 * MIB,
    blockBytes: 512,
    path: '/dev/d1',
    features: { readOnly: true },
  })
  machine.device('d1').media.copy(device.media)
  machine.devices.set('d1', device)
  await machine.start()
  await machine.run('vinum.assemble', { force: true })
  const { status, action } = machine.volume('v')
  t.match(status, /Drive d1 is not used: d1 carries the label of drive \S+, and is read-only/)
  t.match(action, /^d1: Make it writable/)
})

t.test('a new disk in the bay of one that died takes its place under its name', async (t) => {
  const machine = await made({ raid5: ['d1', 'd2', 'd3'] })
  await machine.pull('d3')
  machine.devices.set(
    'd3',
    new MemoryDevice({ sizeBytes: 16 * MIB, blockBytes: 512, path: '/dev/d3' }),
  )
  await machine.plug('d3')
  const plan = await machine.run('volume.replace', {
    name: 'v',
    oldDrive: 'd3',
    newDevice: 'd3',
  })
  t.match(plan.steps[0]?.text, /write label on d3 \(\/dev\/d3, 16 MiB, blank\)/)
  await machine.jobsDone()
  t.equal(machine.volume('v').health, 'HEALTHY')
  t.strictSame(
    drives(machine).map(({ name }) => name),
    ['d1', 'd2', 'd3'],
  )
  await checkData(t, machine)
  const refused = await failureOf(
    machine.run('volume.replace', { name: 'v', oldDrive: 'd2', newDevice: 'd2' }),
  )
  t.match(refused.message, /drive d2 cannot take its own place/)
})

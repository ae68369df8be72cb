/** Drives of FreeBSD: every form of the header, the texts, assembly, conversion (docs/vinum.md, 2, 3 and 8.18). */
import t from 'tap'
import { defined } from '../../../../src/base/assert.ts'
import { MIB } from '../../../../src/base/limits.ts'
import { findLabel } from '../../../../src/engine/anchor/anchor-find.ts'
import { AnchoredDevice } from '../../../../src/engine/anchor/anchored-device.ts'
import { assembleFreebsd } from '../../../../src/engine/vinum/freebsd/assembly.ts'
import { convertLayout, planConversion } from '../../../../src/engine/vinum/freebsd/convert.ts'
import {
  type FreebsdDrive,
  freebsdDrive,
  markFreebsdRemoved,
} from '../../../../src/engine/vinum/freebsd/format.ts'
import {
  decodeFreebsdHeader,
  type FreebsdVariant,
} from '../../../../src/engine/vinum/freebsd/header.ts'
import { checkModel } from '../../../../src/engine/vinum/model/model-check.ts'
import { failureOf } from '../../../support/failure.ts'
import {
  encodeFreebsdHeader,
  type FreebsdImageOptions,
  writeFreebsdDrive,
} from '../../../support/freebsd-image.ts'
import { MemoryDevice } from '../../../support/memory-device.ts'
import { RecordedDevice } from '../../../support/recorded-device.ts'

const SIZE_BYTES = 4 * MIB
const VARIANTS: readonly FreebsdVariant[] = [
  'current',
  'legacy-64-big',
  'legacy-64-little',
  'legacy-32-big',
  'legacy-32-little',
]

function device(options: FreebsdImageOptions, path = `/dev/${options.driveName}`): MemoryDevice {
  const made = new MemoryDevice({ sizeBytes: SIZE_BYTES, path })
  writeFreebsdDrive(made.media, options)
  return made
}

async function driveOn(disk: MemoryDevice): Promise<FreebsdDrive> {
  return defined(await freebsdDrive(disk), 'a drive of FreeBSD')
}

const RAID5 = `volume data state up
plex name data.p0 org raid5 512s vol data state up
sd name data.p0.s0 drive d1 len 2048s driveoffset 265s plex data.p0 plexoffset 0s state up
sd name data.p0.s1 drive d2 len 2048s driveoffset 265s plex data.p0 plexoffset 512s state up
sd name data.p0.s2 drive d3 len 2048s driveoffset 265s plex data.p0 plexoffset 1024s state up
`

/** Three drives, saved one after the other. */
function three(change: (name: string) => Partial<FreebsdImageOptions> = () => ({})) {
  return ['d1', 'd2', 'd3'].map((driveName, index) =>
    device({ driveName, text: RAID5, microseconds: index, ...change(driveName) }),
  )
}

t.test('the header, byte for byte', async (t) => {
  const bytes = encodeFreebsdHeader({
    variant: 'current',
    removed: false,
    configBytes: 65536,
    hostName: 'beastie',
    driveName: 'd1',
    birth: { seconds: 0x5f000001, microseconds: 2 },
    lastUpdate: { seconds: 0x60000003, microseconds: 4 },
    sizeBytes: 0,
  })
  t.equal(bytes.length, 512)
  t.equal(bytes.toString('hex', 0, 24), '56494e554d2d310000000000000100006265617374696500')
  t.equal(bytes.toString('latin1', 48, 51), 'd1\0')
  t.equal(
    bytes.toString('hex', 80, 120),
    '000000005f00000100000000000000020000000060000003000000000000000400000000' + '00000000',
  )
  t.ok(bytes.subarray(120).every((byte) => byte === 0))
})

t.test('every form is recognised and read back', async (t) => {
  const magics = new Set<string>()
  for (const variant of VARIANTS) {
    for (const removed of [false, true]) {
      for (const hostName of ['', 'h', 'a.host.with.31.bytes.0123456789']) {
        const header = {
          variant,
          removed,
          configBytes: 65536,
          hostName,
          driveName: 'd1',
          birth: { seconds: 1_600_000_000, microseconds: 999_999 },
          lastUpdate: { seconds: 1_700_000_000, microseconds: 1 },
          sizeBytes: 123_456_789_012,
        }
        const bytes = encodeFreebsdHeader(header)
        magics.add(bytes.toString('latin1', 0, 8))
        t.strictSame(decodeFreebsdHeader(bytes), header, `${variant}, host "${hostName}"`)
      }
    }
  }
  t.strictSame(
    [...magics].sort(),
    ['VINUM-1\0', 'VINUM--\0', 'IN VINO\0', 'NO VINO\0', '\0ONIV NI', '\0ONIV ON'].sort(),
  )
  t.equal(decodeFreebsdHeader(Buffer.alloc(512)), undefined)
  t.equal(decodeFreebsdHeader(Buffer.from('VINUM-2\0'.padEnd(512))), undefined)
})

t.test('a drive is found, with its text', async (t) => {
  for (const variant of VARIANTS) {
    const drive = await driveOn(device({ driveName: 'd1', text: RAID5, variant }))
    const { driveName, hostName, lastUpdate, sizeBytes, removed, configText, objects } = drive
    t.strictSame(
      { driveName, hostName, lastUpdate, sizeBytes, removed, configText, variant: drive.variant },
      {
        driveName: 'd1',
        hostName: 'freebsd.example',
        lastUpdate: { seconds: 1_700_000_000, microseconds: 5 },
        sizeBytes: SIZE_BYTES,
        removed: false,
        configText: RAID5,
        variant,
      },
    )
    t.equal(objects.length, 5)
  }
  t.equal(await freebsdDrive(new MemoryDevice({ sizeBytes: SIZE_BYTES })), undefined, 'blank')
  t.equal(await freebsdDrive(new MemoryDevice({ sizeBytes: 65536 })), undefined, 'small')
  const large = new MemoryDevice({ sizeBytes: SIZE_BYTES, blockBytes: 4096 })
  writeFreebsdDrive(large.media, { driveName: 'd1', text: RAID5 })
  t.equal(await freebsdDrive(large), undefined, 'FreeBSD has sectors of 512 bytes only')
})

t.test('the second copy of the text stands in for a torn or unreadable first one', async (t) => {
  const torn = device({ driveName: 'd1', text: RAID5 })
  torn.media.fill(0xff, 4608 + 100, 4608 + 200)
  const drive = await driveOn(torn)
  t.equal(drive.configText, RAID5)
  t.equal(drive.problem?.kind, 'invalid')
  const bad = device({ driveName: 'd1', text: RAID5 })
  bad.media.write('rubbish ', 70144)
  bad.media.write('nonsense\n', 4608)
  const hopeless = await driveOn(bad)
  t.equal(hopeless.configText, undefined)
  t.throws(() => assembleFreebsd([hopeless]), { message: /no drive has a configuration/ })
  // A text that fills its 64 KiB has no zero behind it.
  const filler = `# ${'x'.repeat(1000)}\n`.repeat(65)
  const full = `${RAID5}${filler}`.padEnd(65536, '#').slice(0, 65535)
  const drives = await driveOn(device({ driveName: 'd1', text: `${full}\n` }))
  t.equal(drives.objects.length, 5)
  t.equal(drives.configText?.length, 65536)
})

t.test('a raid5 volume of three drives is assembled', async (t) => {
  const disks = three()
  const drives = await Promise.all(disks.map(driveOn))
  const model = assembleFreebsd(drives)
  t.doesNotThrow(() => checkModel(model))
  t.strictSame(
    model.drives.map(({ name, state, device }) => [name, state, device]),
    [
      ['d1', 'up', '/dev/d1'],
      ['d2', 'up', '/dev/d2'],
      ['d3', 'up', '/dev/d3'],
    ],
  )
  const [plex] = model.plexes
  t.strictSame(
    [plex?.organization, plex?.stripeBytes, plex?.parityLayout, plex?.state],
    ['raid5', 262144, 'left-asymmetric', 'up'],
  )
  t.strictSame(
    model.volumes.map(({ name, state, sizeBytes }) => [name, state, sizeBytes]),
    [['data', 'up', 2 * 2048 * 512]],
  )
  t.strictSame(
    model.subdisks.map((one) => [one.name, one.driveOffsetBytes, one.plexOffsetBytes, one.state]),
    [
      ['data.p0.s0', 135680, 0, 'up'],
      ['data.p0.s1', 135680, 262144, 'up'],
      ['data.p0.s2', 135680, 524288, 'up'],
    ],
  )
  t.strictSame(assembleFreebsd([...drives].reverse()).setUuid, model.setUuid)
  const uuids = (one: typeof model) =>
    [...one.drives, ...one.subdisks, ...one.plexes, ...one.volumes].map(({ uuid }) => uuid)
  t.strictSame(uuids(assembleFreebsd(drives)), uuids(model), 'the same UUIDs at every start')
  t.equal(new Set(uuids(model)).size, 8)
  t.match(model.setUuid, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
})

t.test('a drive that is missing is down, and its place is kept', async (t) => {
  const drives = await Promise.all(three().map(driveOn))
  const model = assembleFreebsd(drives.slice(0, 2))
  t.doesNotThrow(() => checkModel(model))
  t.strictSame(
    model.drives.map(({ name, state }) => [name, state]),
    [
      ['d1', 'up'],
      ['d2', 'up'],
      ['d3', 'down'],
    ],
  )
  t.equal(model.plexes[0]?.state, 'degraded')
  t.equal(model.volumes[0]?.state, 'up')
  t.equal(model.setUuid, assembleFreebsd(drives).setUuid)
  t.equal(model.drives[2]?.uuid, assembleFreebsd(drives).drives[2]?.uuid)
  t.equal(assembleFreebsd(drives.slice(0, 1)).volumes[0]?.state, 'down', 'two are missing')
})

t.test('the drive that was saved last says what is, not the one that came first', async (t) => {
  // d1 was away while d2 and d3 went on: its text is old in states and in geometry.
  const old = RAID5.replace('volume data', 'volume former').replaceAll('vol data', 'vol former')
  const now = RAID5.replace(/(sd name data.p0.s0 .*) state up/, '$1 state down')
  const disks = three((name) =>
    name === 'd1' ? { text: old, seconds: 1_650_000_000 } : { text: now },
  )
  const drives = await Promise.all(disks.map(driveOn))
  for (const order of [drives, [...drives].reverse()]) {
    const model = assembleFreebsd(order)
    t.strictSame(
      model.volumes.map(({ name }) => name),
      ['data'],
    )
    t.strictSame(
      model.subdisks.map(({ state }) => state),
      ['stale', 'up', 'up'],
      'what missed writes is not read',
    )
    t.equal(model.plexes[0]?.state, 'degraded')
  }
  // Newer than some other drive is not newest (8.18).
  const middle = three((name) => ({
    seconds: { d1: 1, d2: 2, d3: 3 }[name] ?? 0,
    text: name === 'd3' ? RAID5 : old,
  }))
  const model = assembleFreebsd(await Promise.all(middle.map(driveOn)))
  t.equal(model.volumes[0]?.name, 'data')
})

t.test('what contradicts itself is refused in words', async (t) => {
  const drives = await Promise.all(three().map(driveOn))
  const twin = await driveOn(device({ driveName: 'd1', text: RAID5 }, '/dev/copy'))
  t.throws(() => assembleFreebsd([...drives, twin]), {
    message: /\/dev\/d1 and \/dev\/copy both carry FreeBSD's drive "d1"/,
  })
  t.throws(() => assembleFreebsd([]), { message: /no drive of FreeBSD vinum/ })
  const large = RAID5.replaceAll('2048s', '8192s')
  const small = await Promise.all(three(() => ({ text: large })).map(driveOn))
  t.throws(() => assembleFreebsd(small), { message: /behind the end of \/dev\/d1/ })
  const removed = await driveOn(device({ driveName: 'd4', text: RAID5, removed: true }))
  t.equal(removed.removed, true)
  t.equal(assembleFreebsd([...drives, removed]).drives.length, 3, 'shown, never assembled')
})

t.test('detached objects, unequal columns, equal names of two types', async (t) => {
  const text = `volume d1 state up
plex name d1.p0 org striped 512s vol d1 state up
plex name loose org concat state down
sd name d1.p0.s0 drive d1 len 2048s driveoffset 265s plex d1.p0 plexoffset 0s state up
sd name d1.p0.s1 drive d2 len 2100s driveoffset 265s plex d1.p0 plexoffset 512s state up
sd name spare.s0 drive d2 len 16s driveoffset 4000s state stale`
  const disks = ['d1', 'd2'].map((driveName) => device({ driveName, text }))
  const model = assembleFreebsd(await Promise.all(disks.map(driveOn)))
  t.doesNotThrow(() => checkModel(model))
  t.strictSame(
    model.volumes.map(({ name, sizeBytes }) => [name, sizeBytes]),
    [['d1', 2 * 2048 * 512]],
  )
  t.strictSame(
    model.drives.map(({ name }) => name),
    ['d1.drive', 'd2'],
  )
  t.equal(model.plexes.find(({ name }) => name === 'loose')?.volumeUuid, undefined)
  const spare = model.subdisks.find(({ name }) => name === 'spare.s0')
  t.strictSame([spare?.plexUuid, spare?.state], [undefined, 'stale'])
})

t.test('conversion finds room, or says why not', async (t) => {
  const drives = await Promise.all(three().map(driveOn))
  const model = assembleFreebsd(drives)
  const plan = planConversion(model)
  t.doesNotThrow(() => checkModel(plan.model))
  t.strictSame(plan.warnings, [])
  t.equal(plan.layouts.size, 3)
  for (const [uuid, layout] of plan.layouts) {
    const drive = plan.model.drives.find((one) => one.uuid === uuid)
    t.equal(drive?.dataEndBytes, layout.dataEndBytes)
    t.equal(drive?.dataStartBytes, 135680)
  }
  t.throws(() => planConversion(assembleFreebsd(drives.slice(0, 2))), {
    message: /drive d3 is missing/,
  })
  t.ok(convertLayout(SIZE_BYTES, SIZE_BYTES - 512).journal.length === 0)
  t.throws(() => convertLayout(SIZE_BYTES, SIZE_BYTES), { message: /last block must be free/ })
  const lastSector = SIZE_BYTES / 512 - 265
  const whole = `volume v state up
plex name v.p0 org concat vol v state up
sd name v.p0.s0 drive d1 len ${lastSector}s driveoffset 265s plex v.p0 plexoffset 0s state up
`
  const full = assembleFreebsd([await driveOn(device({ driveName: 'd1', text: whole }))])
  t.throws(() => planConversion(full), { message: /drive d1 on \/dev\/d1: .* copy the data/ })
  const tight = whole.replace(`${lastSector}s`, `${lastSector - 1}s`)
  const bare = assembleFreebsd([await driveOn(device({ driveName: 'd1', text: tight }))])
  t.match(planConversion(bare).warnings, [/drive d1 has no room for a journal/])
})

t.test('a conversion that is cut off anywhere leaves one of the two configurations', async (t) => {
  for (const usedEndBytes of [SIZE_BYTES / 2, SIZE_BYTES - 512 * 1024, SIZE_BYTES - 512]) {
    const sectors = usedEndBytes / 512 - 265
    const text = `volume v state up
plex name v.p0 org concat vol v state up
sd name v.p0.s0 drive d1 len ${sectors}s driveoffset 265s plex v.p0 plexoffset 0s state up
`
    const content = Buffer.alloc(usedEndBytes - 135680, 0x77)
    const disk = device({ driveName: 'd1', text, data: [{ offset: 135680, bytes: content }] })
    const before = Buffer.from(disk.media)
    const model = assembleFreebsd([await driveOn(disk)])
    const plan = planConversion(model)
    const recorded = new RecordedDevice(disk)
    const [uuid, layout] = defined([...plan.layouts][0], 'a layout')
    const names = { setUuid: model.setUuid, className: 'vinum', deviceUuid: uuid }
    const made = await AnchoredDevice.format(recorded, { ...names, layout, keepSlots: true })
    await made.commit(1, Buffer.from(text))
    await markFreebsdRemoved(recorded)
    let cuts = 0
    let natives = 0
    for (const { image, done, what } of recorded.cuts(before, 8 * 512)) {
      disk.media = image
      const drive = await driveOn(disk)
      cuts++
      if (drive.removed) natives++
      const isKept = image.subarray(135680, usedEndBytes).equals(content)
      if (!isKept) t.fail(`${what}: the data changed`)
      if (drive.removed) {
        const anchored = AnchoredDevice.open(
          disk,
          defined((await findLabel(disk))?.anchor, 'an anchor'),
        )
        if ((await anchored.read())?.payload.toString() !== text) t.fail(`${what}: not native`)
      } else if (done || drive.configText !== text) t.fail(`${what}: not FreeBSD’s`)
    }
    t.ok(cuts > 10 && natives > 0, `${cuts} cuts, ${natives} after the end`)
    const writes = disk.counts.write
    await markFreebsdRemoved(disk)
    t.equal(disk.counts.write, writes, 'once is enough')
  }
})

t.test('a device that cannot be read is no drive, and says so', async (t) => {
  const disk = device({ driveName: 'd1', text: RAID5 })
  disk.fail('read', 'io')
  t.equal((await failureOf(freebsdDrive(disk))).kind, 'io')
})

t.test('a word or state of another vinum costs itself, not the volumes of the drive', async (t) => {
  const text = [
    'volume data state up setupstate',
    'plex name data.p0 org concat vol data state crashed',
    'sd name data.p0.s0 drive d1 plex data.p0 len 2048s driveoffset 265s state empty shiny',
    '',
  ].join('\n')
  const drive = await driveOn(device({ driveName: 'd1', text }))
  t.strictSame(
    drive.objects.map((one) => [one.type, one.name, one.state]),
    [
      ['volume', 'data', 'up'],
      ['plex', 'data.p0', 'down'],
      ['subdisk', 'data.p0.s0', 'down'],
    ],
  )
  t.equal(drive.warnings.length, 4)
  t.match(drive.warnings[1], /copy 1 of the configuration:2:\d+: unknown state "crashed"/)
  t.match(drive.warnings[3], /unknown word "shiny" is passed over/)
})

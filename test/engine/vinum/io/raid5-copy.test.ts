/** A raid5 plex as one of several copies of a volume: what it cannot store is not read from it afterwards. */
import t, { type Test } from 'tap'
import { ManualClock } from '../../../../src/base/clock.ts'
import { LinearPlex } from '../../../../src/engine/vinum/io/plex-linear.ts'
import { VolumeIo } from '../../../../src/engine/vinum/io/volume-io.ts'
import { Raid5Plex } from '../../../../src/engine/vinum/raid5/plex-raid5.ts'
import type { Plex } from '../../../../src/engine/vinum/runtime.ts'
import {
  FakeHost,
  send,
  setState,
  type TestDrive,
  testDrive,
  testPlexRecord,
  testSubdisk,
} from '../../../support/vinum-host.ts'

const STRIPE = 4096
const ROWS = 4
/** Three data columns and one of parity. */
const COLUMNS = 4
const SIZE = STRIPE * ROWS * (COLUMNS - 1)

/** A volume of some concat plexes of two halves each, and of a raid5 plex, which is preferred. */
function build(concats: number) {
  const host = new FakeHost(new ManualClock())
  let drives = 0
  const drive = (): TestDrive => testDrive(host, drives++, { sizeBytes: SIZE })
  const linear = Array.from({ length: concats }, (_, index) => {
    const name = `v.p${index}`
    const subdisks = [0, SIZE / 2].map((plexOffsetBytes, half) =>
      testSubdisk(drive(), `${name}.s${half}`, SIZE / 2, { plexOffsetBytes }),
    )
    return new LinearPlex({ host, record: testPlexRecord(name, 'concat', 0), subdisks })
  })
  const columns = Array.from({ length: COLUMNS }, drive)
  const subdisks = columns.map((one, column) =>
    testSubdisk(one, `v.r.s${column}`, STRIPE * ROWS, { plexOffsetBytes: column * STRIPE }),
  )
  const record = testPlexRecord('v.r', 'raid5', STRIPE)
  const plexes: readonly Plex[] = [...linear, new Raid5Plex({ host, record, subdisks })]
  const preferredPlexUuid = record.uuid
  const form = { plexes, readPolicy: 'prefer', preferredPlexUuid, map: undefined } as const
  const volume = new VolumeIo({ name: 'v', host, ...form })
  host.volume = volume
  return { host, volume, linear, columns, subdisks }
}

/** Writes all of the volume once, loses two columns, writes again, and reads. */
async function loseTwoColumns(t: Test, setting: ReturnType<typeof build>): Promise<void> {
  const { host, volume, columns, subdisks } = setting
  t.equal(await send(volume, { op: 'write', data: Buffer.alloc(SIZE, 1) }), undefined)
  columns[0]?.pull()
  columns[2]?.pull()
  t.equal(await send(volume, { op: 'write', data: Buffer.alloc(SIZE, 2) }), undefined)
  const names = subdisks.map(({ record }) => record.name)
  const demoted = new Set(host.demoted.flat())
  t.ok(
    names.every((name) => demoted.has(name)),
    'also the columns that are there',
  )
  for (let at = 0; at < SIZE; at += STRIPE) {
    const back = Buffer.alloc(STRIPE)
    t.equal(await send(volume, { op: 'read', offset: at, data: back }), undefined)
    t.ok(
      back.every((byte) => byte === 2),
      `what was written last, at ${at}`,
    )
  }
  t.equal(volume.active, 0)
}

t.test('two columns are missing: the others miss the write, too', async (t) => {
  await loseTwoColumns(t, build(1))
})

t.test('the same where no plex can store all of the write', async (t) => {
  const setting = build(2)
  const [first, second] = setting.linear
  for (const subdisk of [first?.subdisks[1], second?.subdisks[0]]) {
    if (subdisk) setState(subdisk, 'stale')
  }
  await loseTwoColumns(t, setting)
})

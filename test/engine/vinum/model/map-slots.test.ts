/** How many pairs of blocks a volume has for its intent map. */
import t from 'tap'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import { MAP_PAIR_BYTES, planAnchor } from '../../../../src/engine/anchor/anchor-layout.ts'
import { allotMapSlots, mapSlotsOf } from '../../../../src/engine/vinum/model/map-slots.ts'
import { emptyModel, type VinumModel } from '../../../../src/engine/vinum/model/model.ts'
import {
  FakeHost,
  testDrive,
  testPlexRecord,
  testSubdisk,
  testUuid,
} from '../../../support/vinum-host.ts'

const TIB = 2 ** 40
const MEDIA = 2000 * TIB

/** A mirror of `sizeBytes` on two drives whose data ends there. */
function mirror(sizeBytes: number, dataEndBytes: number): VinumModel {
  const host = new FakeHost()
  const legs = [1, 2].map((number) => {
    const drive = testDrive(host, number, { sizeBytes: MIB })
    const plex = testPlexRecord(`v.p${number}`, 'concat', 0)
    const { record } = testSubdisk(drive, `v.p${number}.s0`, sizeBytes, { plexUuid: plex.uuid })
    return { drive: { ...drive.record, mediaBytes: MEDIA, dataEndBytes }, plex, subdisk: record }
  })
  return {
    ...emptyModel(testUuid(1)),
    drives: legs.map(({ drive }) => drive),
    plexes: legs.map(({ plex }) => plex),
    subdisks: legs.map(({ subdisk }) => subdisk),
    volumes: [
      {
        uuid: testUuid(0x701),
        name: 'v',
        state: 'up',
        sizeBytes,
        readPolicy: 'round-robin',
        preferredPlexUuid: undefined,
        mapSlot: 3,
        moreMapSlots: undefined,
        mismatches: undefined,
        sparePoolUuid: undefined,
      },
    ],
  }
}

function slotsOf(model: VinumModel): readonly number[] {
  return model.volumes.flatMap(mapSlotsOf)
}

t.test('as many pairs as regions of 64 MiB need, if the drives have them', async (t) => {
  const usual = planAnchor(MEDIA, 512)
  const sizes = [TIB, 1.75 * TIB, 1.75 * TIB + 512, 100 * TIB, 1024 * TIB]
  const counts = sizes.map(
    (size) => slotsOf(allotMapSlots(mirror(size, usual.dataEndBytes))).length,
  )
  t.strictSame(counts, [1, 1, 2, 58, 586])
  const tail = MEDIA - 4 * KIB
  const converted = allotMapSlots(mirror(100 * TIB, tail - 384 * KIB))
  t.strictSame(slotsOf(converted), [3, 0, 1, 2, 4, 5, 6, 7], 'half of the 15 that are free')
  t.ok(Math.max(...slotsOf(converted)) < (128 * KIB) / MAP_PAIR_BYTES)
  t.strictSame(slotsOf(allotMapSlots(mirror(100 * TIB, MEDIA - 512))), [3], 'without any map')
  t.equal(allotMapSlots(converted), converted, 'nothing changes the second time')
})

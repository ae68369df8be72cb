/** MEDIUM ERROR names the first bad block (commands/bad-block.ts): for every command that reads, bounded, and stopped by aborts. */
import { randomFillSync } from 'node:crypto'
import t from 'tap'
import { defined } from '../../../src/base/assert.ts'
import { PlexusError } from '../../../src/base/errors.ts'
import { BAD_BLOCK_MS, BAD_BLOCK_READS, MAX_TRANSFER_BYTES } from '../../../src/base/limits.ts'
import { LinearPlex } from '../../../src/engine/vinum/io/plex-linear.ts'
import { VolumeIo } from '../../../src/engine/vinum/io/volume-io.ts'
import type { BlockDevice, IoRequest } from '../../../src/hal/block-device.ts'
import { TASK_MANAGEMENT } from '../../../src/target/scsi/types.ts'
import { MemoryDevice } from '../../support/memory-device.ts'
import { Raid5Rig } from '../../support/raid5-rig.ts'
import {
  createHarness,
  type HarnessInit,
  type RunOptions,
  type ScsiHarness,
  senseText,
} from '../../support/scsi-harness.ts'

import { FakeHost, testDrive, testPlexRecord, testSubdisk } from '../../support/vinum-host.ts'

const BLOCK = 512
const sixteen = (opcode: number, lba: number, blocks: number, flags = 0) => {
  const cdb = Buffer.alloc(16)
  cdb[0] = opcode
  cdb[1] = flags
  cdb.writeUInt32BE(lba, 6)
  cdb.writeUInt32BE(blocks, 10)
  return [...cdb]
}
const read = (lba: number, blocks: number) => sixteen(0x88, lba, blocks)

function filled(init: HarnessInit = {}): ScsiHarness {
  const harness = createHarness({ sizeBytes: 8 * 1024 * 1024, ...init })
  randomFillSync(harness.device.bytes)
  return harness
}

/** Sense data as text, with the LBA of INFORMATION where it is valid. */
async function told(harness: ScsiHarness, cdb: readonly number[], options: RunOptions = {}) {
  const { sense, status } = await harness.run(cdb, options)
  return sense ? textOf(sense) : `status ${status}`
}
function textOf(sense: Buffer): string {
  const text = senseText(sense)
  if (((sense[0] ?? 0) & 0x7f) >= 0x72) return `${text} ${sense.readBigUInt64BE(12)}`
  return ((sense[0] ?? 0) & 0x80) === 0 ? text : `${text} ${sense.readUInt32BE(3)}`
}
const turn = () => new Promise(setImmediate)

t.test('a READ names the first block that cannot be read', async (t) => {
  const harness = filled()
  const { device, unit } = harness
  for (const [lba, blocks, bad] of [
    [100, 1, [100]],
    [100, 64, [100]],
    [100, 64, [163]],
    [100, 64, [131]],
    [100, 63, [132, 140, 101]],
    [0, 8192, [8191]],
    [0, 8192, [5000, 7000]],
  ] as const) {
    device.badBlocks.clear()
    for (const block of bad) device.badBlocks.add(block)
    device.requests.length = 0
    const expectedBytes = blocks * BLOCK
    const result = await harness.run(read(lba, blocks), { expectedBytes })
    const first = Math.min(...bad)
    t.equal(textOf(defined(result.sense, 'sense data')), `03/11/00 ${first}`)
    const good = device.bytes.subarray(lba * BLOCK, first * BLOCK)
    t.ok(result.dataIn.equals(good), 'the blocks before it come, and no more')
    t.equal(result.task.movedBytes, good.length, 'for the residual count')
    t.ok(device.requests.length <= 2 + BAD_BLOCK_READS, `${device.requests.length} reads`)
  }
  t.equal(MAX_TRANSFER_BYTES, 8192 * BLOCK, 'the longest was among them')
  t.equal(await told(harness, read(4000, 16)), 'status 0', 'beside them all is well')
  unit.mode.descriptorSense = true
  t.equal(await told(harness, read(4990, 20)), '03/11/00 5000')
  const few = await harness.run(read(4990, 20), { expectedBytes: 11 * BLOCK - 100 })
  t.equal(few.dataIn.length, 10 * BLOCK, 'where less is expected, too')
  const none = await harness.run(read(4990, 20), { expectedBytes: 10 * BLOCK })
  t.equal(none.status, 0, 'and what ends before it is no error')
  t.equal(harness.pool.leased, 0)
})

t.test('the error comes alone where the blocks before it cannot be had', async (t) => {
  const harness = filled()
  const { device, pool } = harness
  device.badBlocks.add(20)
  device.holding = true
  const { task, done } = harness.start(read(0, 32))
  // The request, and the search: blocks 0 to 31, 0 to 15, 16 to 23, 16 to 19, 20 and 21, 20.
  for (let reads = 0; reads < 7; reads++) {
    device.release()
    await turn()
  }
  t.equal(device.held[0]?.request.length, 20 * BLOCK, 'now what is before the bad block')
  device.badBlocks.add(3)
  device.release()
  await done
  t.equal(textOf(defined(task.sense, 'sense data')), '03/11/00 20')
  t.equal(harness.collect(task).dataIn.length, 0)
  t.equal(pool.leased, 0)
})

t.test('the block that is named is one of the unit', async (t) => {
  const harness = filled({ blockBytes: 4096 })
  harness.device.badBlocks.add(8 * 77 + 3)
  t.equal(await told(harness, read(70, 20)), '03/11/00 77')
})

/** Reads of these blocks fail from now on. */
function damage(device: MemoryDevice, ...blocks: readonly number[]): void {
  const submit = device.submit.bind(device)
  device.submit = (request) => {
    const { op, offset, length, complete } = request
    const hit = blocks.some((lba) => lba * BLOCK < offset + length && (lba + 1) * BLOCK > offset)
    if (op !== 'read' || !hit) return submit(request)
    const subject = device.path
    const error = new PlexusError('io', { op, subject, message: `${subject}: a bad block` })
    queueMicrotask(() => complete.call(request, error))
  }
}

/** A medium whose requests a volume or a plex carries out. */
function mediumOf(sizeBytes: number, start: (request: IoRequest) => void): BlockDevice {
  return Object.assign(new MemoryDevice({ sizeBytes }), { submit: start })
}

t.test('over a mirror: the first block that no copy has', async (t) => {
  const host = new FakeHost()
  const drives = [0, 1].map((number) => testDrive(host, number, { sizeBytes: 65536 }))
  const plexes = drives.map(
    (drive, i) =>
      new LinearPlex({
        host,
        record: testPlexRecord(`v.p${i}`, 'concat', 0),
        subdisks: [testSubdisk(drive, `v.p${i}.s0`, 65536)],
      }),
  )
  const volume = new VolumeIo({
    name: 'v',
    host,
    plexes,
    readPolicy: 'round-robin',
    preferredPlexUuid: undefined,
    map: undefined,
  })
  host.volume = volume
  drives.forEach(({ device }, copy) => {
    damage(device, 30 + copy, 40, 41)
  })
  const harness = createHarness({ medium: mediumOf(65536, (request) => volume.start(request)) })
  t.equal(await told(harness, read(0, 40)), 'status 0', 'what one copy has is served')
  t.equal(await told(harness, read(0, 128)), '03/11/00 40')
  t.equal(await told(harness, read(41, 20)), '03/11/00 41')
  t.equal(harness.pool.leased + host.pool.leased, 0)
})

t.test('over RAID5: the first block that two drives of its row lack', async (t) => {
  const rig = new Raid5Rig()
  const unitBlocks = rig.stripeBytes / BLOCK
  // Row 0: columns 0 to 2 hold the units 0 to 2. Subdisks begin at 4096 on their drives.
  damage(rig.drive(0).device, 8 + 1, 8 + 5)
  damage(rig.drive(1).device, 8 + 5)
  const sizeBytes = rig.content.length
  const medium = mediumOf(sizeBytes, (request) => rig.plex.start(request, () => {}))
  const harness = createHarness({ medium })
  t.equal(await told(harness, read(0, 5)), 'status 0', 'one block of a row is computed')
  t.equal(await told(harness, read(0, 3 * unitBlocks)), '03/11/00 5')
  t.equal(await told(harness, read(6, 3 * unitBlocks)), `03/11/00 ${unitBlocks + 5}`)
  t.equal(harness.pool.leased, 0)
})

t.test('every command that reads names it', async (t) => {
  const harness = filled()
  const { bytes, badBlocks, requests } = harness.device
  badBlocks.add(42)
  const before = Buffer.from(bytes)
  const same = Buffer.from(bytes.subarray(40 * BLOCK, 44 * BLOCK))
  t.equal(await told(harness, sixteen(0x8f, 40, 4)), '03/11/00 42', 'VERIFY')
  t.equal(await told(harness, sixteen(0x8f, 0, 16384)), '03/11/00 42', 'VERIFY of everything')
  t.equal(await told(harness, sixteen(0x8f, 40, 4, 0x02), { dataOut: same }), '03/11/00 42')
  const caw = sixteen(0x89, 40, 0)
  caw[13] = 4
  const halves = Buffer.concat([same, same])
  t.equal(await told(harness, caw, { dataOut: halves }), '03/11/00 42', 'COMPARE AND WRITE')
  t.notOk(
    requests.some(({ op }) => op !== 'read'),
    'nothing was written',
  )
  t.equal(await told(harness, sixteen(0x8e, 40, 4), { dataOut: same }), '03/11/00 42')
  t.ok(bytes.equals(before))
  t.equal(harness.pool.leased, 0)
})

t.test('a write names its block where it has one, and is not repeated', async (t) => {
  const harness = filled()
  const { failures, requests } = harness.device
  const dataOut = Buffer.alloc(BLOCK)
  failures.set('write', 'io')
  t.equal(await told(harness, sixteen(0x8a, 9, 1), { dataOut }), '03/0C/00 9')
  failures.set('write', 'io')
  const two = Buffer.alloc(2 * BLOCK)
  t.equal(await told(harness, sixteen(0x8a, 9, 2), { dataOut: two }), '03/0C/00')
  failures.set('flush', 'io')
  harness.unit.mode.writeCacheEnabled = false
  t.equal(await told(harness, sixteen(0x93, 9, 1), { dataOut }), '03/0C/00', 'a flush has no block')
  t.equal(requests.filter(({ op }) => op === 'write').length, 2)
})

t.test('no block is named where none is found', async (t) => {
  const harness = filled()
  harness.device.failures.set('read', 'io')
  t.equal(await told(harness, read(10, 20)), '03/11/00', 'it can be read again')
  for (const [kind, sense] of [
    ['timeout', '0B/2E/02'],
    ['gone', '02/04/03'],
  ] as const) {
    harness.device.failures.set('read', kind)
    harness.device.requests.length = 0
    t.equal(await told(harness, read(10, 20)), sense)
    t.equal(harness.device.requests.length, 1, `${kind}: nothing to look for`)
  }
})

t.test('the search ends with its time, its task and its device', async (t) => {
  const begin = async (harness: ScsiHarness) => {
    harness.device.badBlocks.add(37)
    harness.device.holding = true
    const started = harness.start(read(0, 64))
    for (let reads = 0; reads < 3; reads++) {
      harness.device.release()
      await turn()
    }
    t.equal(harness.device.held.length, 1, 'a read of the search is under way')
    return started
  }
  const end = async (harness: ScsiHarness, done: Promise<unknown>, more = 0) => {
    harness.device.holding = false
    const { length } = harness.device.requests
    harness.device.release()
    await done
    t.equal(harness.device.requests.length, length + more, 'and it is the last')
    t.equal(harness.pool.leased, 0)
  }

  const slow = filled()
  const first = await begin(slow)
  slow.clock.advance(BAD_BLOCK_MS + 1)
  await end(slow, first.done, 1)
  // Read: 0 to 31 well, 32 to 63 not; what is before the block named is good for certain, and is read once more to be sent.
  t.equal(textOf(first.task.sense ?? Buffer.alloc(18)), '03/11/00 32')

  const aborted = filled()
  const second = await begin(aborted)
  const { nexus, server } = aborted
  server.manage(TASK_MANAGEMENT.ABORT_TASK, nexus, Buffer.alloc(8), second.task.tag)
  await end(aborted, second.done)
  t.equal(second.task.sense, undefined)
  t.equal(aborted.unit.tasks.size, 0)

  const lost = filled()
  const third = await begin(lost)
  lost.device.emit('gone')
  await end(lost, third.done)
  t.equal(textOf(third.task.sense ?? Buffer.alloc(18)), '02/04/03')
})

/** GET LBA STATUS: what is mapped, in runs, for devices that know holes and for those that do not (commands/lba-status.ts). */
import t from 'tap'
import { LBA_STATUS_RUNS } from '../../../src/base/limits.ts'
import type { Extent } from '../../../src/hal/block-device.ts'
import { STATUS } from '../../../src/target/scsi/task.ts'
import { TASK_MANAGEMENT } from '../../../src/target/scsi/types.ts'
import { ScriptedDevice } from '../../support/scsi-device.ts'
import { createHarness, type HarnessInit, senseText } from '../../support/scsi-harness.ts'

const BLOCK = 512

const status = (lba: number | bigint, allocationBytes = 4096) => {
  const cdb = Buffer.alloc(16)
  cdb[0] = 0x9e
  cdb[1] = 0x12
  cdb.writeBigUInt64BE(BigInt(lba), 2)
  cdb.writeUInt32BE(allocationBytes, 10)
  return [...cdb]
}

/** A device with data at these ranges of bytes and holes elsewhere. */
class Holey extends ScriptedDevice {
  readonly data: readonly (readonly [number, number])[]
  questions = 0

  constructor(data: readonly (readonly [number, number])[], init: HarnessInit = {}) {
    super(init)
    this.data = data
  }

  async extentAt(offset: number, length: number): Promise<Extent> {
    this.questions++
    const here = this.data.find(([from, to]) => offset >= from && offset < to)
    if (here) return { allocated: true, length: Math.min(length, here[1] - offset) }
    const next = this.data.find(([from]) => from > offset)?.[0] ?? Infinity
    return { allocated: false, length: Math.min(length, next - offset) }
  }
}

/** Descriptors as [LBA, blocks, status]. */
function runsOf(data: Buffer): number[][] {
  const runs = []
  for (let at = 8; at + 16 <= data.length; at += 16) {
    runs.push([
      Number(data.readBigUInt64BE(at)),
      data.readUInt32BE(at + 8),
      data.readUInt8(at + 12),
    ])
  }
  return runs
}

function harnessOf(data: readonly (readonly [number, number])[], init: HarnessInit = {}) {
  const medium = new Holey(data, init)
  return { medium, harness: createHarness({ ...init, medium }) }
}

const DATA = [
  [0, 8 * BLOCK],
  [16 * BLOCK, 24 * BLOCK],
] as const

t.test('runs of blocks, from any block on', async (t) => {
  const { harness } = harnessOf(DATA)
  const all = await harness.run(status(0))
  t.equal(all.status, STATUS.GOOD)
  t.equal(all.dataIn.readUInt32BE(0), all.dataIn.length - 4, 'PARAMETER DATA LENGTH')
  t.same(runsOf(all.dataIn), [
    [0, 8, 0],
    [8, 8, 1],
    [16, 8, 0],
    [24, 2024, 1],
  ])
  t.same(runsOf((await harness.run(status(10))).dataIn), [
    [10, 6, 1],
    [16, 8, 0],
    [24, 2024, 1],
  ])
  t.same(runsOf((await harness.run(status(2047))).dataIn), [[2047, 1, 1]])
  t.same(runsOf((await harness.run(status(10, 24))).dataIn), [[10, 6, 1]], 'as QEMU asks')
  t.equal((await harness.run(status(0, 12))).dataIn.length, 12, 'cut')
  t.equal((await harness.run(status(0, 0))).dataIn.length, 0)
})

t.test('a block that is allocated in part is mapped', async (t) => {
  const { harness } = harnessOf([[4096 + 512, 3 * 4096 + 512]], { blockBytes: 4096 })
  t.same(runsOf((await harness.run(status(0))).dataIn), [
    [0, 1, 1],
    [1, 1, 0],
    [2, 2, 0],
    [4, 252, 1],
  ])
})

t.test('who does not know, and what is not thin, is mapped', async (t) => {
  const mapped = [[5, 2043, 0]]
  const plain = createHarness()
  t.same(runsOf((await plain.run(status(5))).dataIn), mapped, 'a device that does not say')
  const thick = harnessOf(DATA, { thin: false })
  t.same(runsOf((await thick.harness.run(status(5))).dataIn), mapped, 'LBPME = 0')
  t.equal(thick.medium.questions, 0)
})

t.test('a long run is cut to the field, and the work is bounded', async (t) => {
  const { medium, harness } = harnessOf([])
  medium.geometry = { ...medium.geometry, sizeBytes: 2 ** 32 * BLOCK + 4096 }
  medium.emit('resized')
  await harness.run([0, 0, 0, 0, 0, 0])
  t.same(runsOf((await harness.run(status(0))).dataIn), [
    [0, 0xffff_ffff, 1],
    [0xffff_ffff, 9, 1],
  ])
  const pieces = Array.from({ length: 500 }, (_, i) => [i * 1024, i * 1024 + 512] as const)
  const many = harnessOf(pieces)
  const { dataIn } = await many.harness.run(status(0, 65536))
  t.equal(runsOf(dataIn).length, LBA_STATUS_RUNS)
  t.equal(many.medium.questions, LBA_STATUS_RUNS)
})

t.test('what is refused, and what ends it', async (t) => {
  const { medium, harness } = harnessOf(DATA)
  for (const lba of [2048, 2n ** 63n]) {
    t.equal(senseText((await harness.run(status(lba))).sense), '05/21/00')
  }
  t.equal(senseText((await harness.run(status(0).with(14, 1))).sense), '05/24/00', 'REPORT TYPE')
  const aborted = harness.start(status(0))
  const { nexus, server, unit } = harness
  server.manage(TASK_MANAGEMENT.ABORT_TASK, nexus, Buffer.alloc(8), aborted.task.tag)
  await aborted.done
  t.equal(aborted.task.dataInBytes, 0)
  t.equal(unit.tasks.size, 0)
  const lost = harness.start(status(0))
  medium.emit('gone')
  await lost.done
  t.equal(runsOf(harness.collect(lost.task).dataIn).length, 1, 'what was known before')
  t.equal(senseText((await harness.run(status(0))).sense), '02/04/03')
})

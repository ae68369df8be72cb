/** Prechecks and their order, unit attentions, the coming and going of the medium, the device server. */
import fc from 'fast-check'
import t from 'tap'
import { UNIT_ATTENTIONS } from '../../../src/base/limits.ts'
import { silentLogger } from '../../../src/base/log.ts'
import { COMMANDS } from '../../../src/target/scsi/command-table.ts'
import { BlockUnit } from '../../../src/target/scsi/logical-unit.ts'
import { ASC } from '../../../src/target/scsi/sense.ts'
import { STATUS } from '../../../src/target/scsi/task.ts'
import type { Nexus } from '../../../src/target/scsi/types.ts'
import { ScriptedDevice } from '../../support/scsi-device.ts'
import {
  createHarness,
  type RunOptions,
  type ScsiHarness,
  senseText,
} from '../../support/scsi-harness.ts'

const BLOCK = 512
const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0]
const READ = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]
const READ_BEYOND = [0x28, 0, 0xff, 0, 0, 0, 0, 0, 1, 0]
const READ_BAD_FIELD = [0x28, 0x01, 0xff, 0, 0, 0, 0, 0, 1, 0]
const WRITE = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]
const INQUIRY = [0x12, 0, 0, 0, 96, 0]
const REPORT_LUNS = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
const REQUEST_SENSE = [0x03, 0, 0, 0, 18, 0]

async function senseOf(
  harness: ScsiHarness,
  cdb: readonly number[],
  options: RunOptions = {},
): Promise<string> {
  const result = await harness.run(cdb, options)
  return result.status === STATUS.CHECK_CONDITION
    ? senseText(result.sense)
    : `status ${result.status}`
}
const GOOD = 'status 0'
const CONFLICT = 'status 24'
const dataOut = Buffer.alloc(BLOCK, 1)

t.test('each check yields to those before it', async (t) => {
  const harness = createHarness({ readOnly: true, keepAttention: true })
  const { unit, nexus } = harness
  const other = harness.newNexus()
  const bad = [0x2a, 0x01, 0xff, 0, 0, 0, 0, 0, 1, 0]
  const beyond = [0x2a, 0, 0xff, 0, 0, 0, 0, 0, 1, 0]
  unit.reservations.reserve(other)
  unit.setDevice(undefined)
  const options = { dataOut }
  t.equal(await senseOf(harness, bad, { ...options, lun: 7 }), '05/25/00', 'no such LUN')
  t.equal(await senseOf(harness, [0xff], options), '06/29/00', 'a reset, for any command')
  t.equal(await senseOf(harness, [0xff], options), '05/20/00', 'no such command')
  unit.establishUnitAttention(ASC.MODE_PARAMETERS_CHANGED)
  t.equal(await senseOf(harness, bad, options), CONFLICT, 'reservation')
  unit.establishUnitAttention(ASC.BUS_DEVICE_RESET_FUNCTION)
  t.equal(await senseOf(harness, bad, options), '06/29/03', 'a reset before the reservation')
  t.equal(await senseOf(harness, bad, options), CONFLICT, 'and the other unit attention after it')
  unit.reservations.release(other)
  t.equal(await senseOf(harness, bad, options), '06/2A/01')
  t.equal(await senseOf(harness, bad, options), '05/24/00', 'field of the CDB')
  t.equal(await senseOf(harness, beyond, options), '07/27/00', 'write protection')
  t.equal(await senseOf(harness, READ_BEYOND), '02/04/03', 'no medium')
  unit.setDevice(harness.device)
  while (unit.takeUnitAttention(nexus) !== undefined);
  unit.stopped = true
  t.equal(await senseOf(harness, READ_BEYOND), '02/04/02', 'stopped')
  unit.stopped = false
  t.equal(await senseOf(harness, READ_BEYOND), '05/21/00', 'LBA')
  t.equal(await senseOf(harness, READ), GOOD)
  t.equal(await senseOf(harness, READ_BAD_FIELD), '05/24/00')
})

t.test('write protection has three sources', async (t) => {
  const readOnly = createHarness({ features: { readOnly: true } })
  t.equal(await senseOf(readOnly, WRITE, { dataOut }), '07/27/00')
  const harness = createHarness()
  harness.unit.mode.softwareWriteProtect = true
  t.equal(await senseOf(harness, WRITE, { dataOut }), '07/27/00')
  t.equal(await senseOf(harness, READ), GOOD)
  harness.unit.mode.softwareWriteProtect = false
  t.equal(await senseOf(harness, WRITE, { dataOut }), GOOD)
})

t.test('who may only read does not stop the writers', async (t) => {
  const harness = createHarness()
  const { unit, nexus, server } = harness
  const reader = harness.newNexus()
  reader.luns = new Map([[0, { lun: 0, unit, readOnly: true }]])
  const as = (cdb: readonly number[], list?: Buffer) =>
    senseOf(harness, cdb, { nexus: reader, ...(list ? { dataOut: list } : {}) })
  const STOP = [0x1b, 0, 0, 0, 0, 0]
  const START = [0x1b, 0, 0, 0, 1, 0]
  const swp6 = Buffer.from('000000000a0a021008400000ffff0000', 'hex')
  const swp10 = Buffer.from('00000000000000000a0a021008400000ffff0000', 'hex')
  t.equal(await as([0x15, 0x10, 0, 0, swp6.length, 0], swp6), '07/27/00', 'MODE SELECT(6)')
  t.equal(
    await as([0x55, 0x10, 0, 0, 0, 0, 0, 0, swp10.length, 0], swp10),
    '07/27/00',
    'MODE SELECT(10)',
  )
  t.equal(await as([0x16, 0, 0, 0, 0, 0]), '07/27/00', 'RESERVE(6)')
  t.equal(await as(STOP), '07/27/00', 'STOP')
  t.equal(await as(START), GOOD, 'START of a unit that runs')
  t.same([unit.mode.softwareWriteProtect, unit.stopped], [false, false])
  t.equal(await senseOf(harness, WRITE, { dataOut }), GOOD, 'the writer has noticed nothing')
  t.equal(await senseOf(harness, STOP), GOOD, 'who may write may stop')
  t.equal(await as(START), '07/27/00', 'and the reader does not undo it')
  t.ok(unit.stopped)
  t.equal(await as([0x17, 0, 0, 0, 0, 0]), GOOD, 'RELEASE(6) touches nobody else')
  // A new command that acts on the unit must say so in its row, or here why not.
  const harmless = ['RELEASE(6)', 'SEND DIAGNOSTIC', 'PREVENT ALLOW MEDIUM REMOVAL']
  const silent = COMMANDS.filter(
    (row) => row.data !== 'in' && !row.writes && !row.changesUnit && !harmless.includes(row.name),
  )
  t.same(
    silent
      .map((row) => row.name.replace(/\(.*/, ''))
      .filter((name, i, all) => all.indexOf(name) === i),
    ['VERIFY', 'SYNCHRONIZE CACHE', 'PRE-FETCH', 'TEST UNIT READY'],
  )
  server.nexusLost(nexus)
})

t.test('unknown service actions and short CDBs', async (t) => {
  const harness = createHarness()
  const result = await harness.run([0x9e, 0x1f])
  t.equal(senseText(result.sense), '05/24/00')
  t.same([result.sense?.[15], result.sense?.readUInt16BE(16)], [0xcc, 1], 'SERVICE ACTION')
})

t.test('a LUN that is absent answers INQUIRY, REPORT LUNS and REQUEST SENSE only', async (t) => {
  const harness = createHarness({ keepAttention: true })
  const lun = 9
  const inquiry = await harness.run(INQUIRY, { lun })
  t.same([inquiry.status, inquiry.dataIn[0]], [STATUS.GOOD, 0x7f])
  const luns = await harness.run(REPORT_LUNS, { lun })
  t.same([luns.status, luns.dataIn.readUInt32BE(0)], [STATUS.GOOD, 8])
  const sense = await harness.run(REQUEST_SENSE, { lun })
  t.equal(senseText(sense.dataIn), '05/25/00')
  for (const cdb of [TEST_UNIT_READY, READ, [0xff]]) {
    t.equal(await senseOf(harness, cdb, { lun }), '05/25/00')
  }
  t.equal(await senseOf(harness, INQUIRY), GOOD, 'and a unit attention does not stop INQUIRY')
  t.ok(harness.unit.hasUnitAttention(harness.nexus))
})

t.test('unit attentions: once, in order, bounded, for those concerned', async (t) => {
  const harness = createHarness({ keepAttention: true })
  const other = harness.newNexus(true)
  const { unit, nexus, server } = harness
  server.nexusEstablished(nexus)
  unit.establishUnitAttention(ASC.MODE_PARAMETERS_CHANGED, nexus)
  unit.establishUnitAttention(ASC.CAPACITY_DATA_HAS_CHANGED)
  unit.establishUnitAttention(ASC.CAPACITY_DATA_HAS_CHANGED)
  unit.establishUnitAttention(ASC.BUS_DEVICE_RESET_FUNCTION)
  const told = async (to: Nexus) => {
    const list: string[] = []
    for (;;) {
      const text = await senseOf(harness, TEST_UNIT_READY, { nexus: to })
      if (text === GOOD) return list
      list.push(text)
    }
  }
  t.same(await told(nexus), ['06/29/00', '06/29/03', '06/2A/09'])
  t.same(await told(other), ['06/29/00', '06/29/03', '06/2A/01', '06/2A/09'])
  for (let i = 0; i < 3 * UNIT_ATTENTIONS; i++) unit.establishUnitAttention(0x3f00 + i)
  unit.establishUnitAttention(ASC.POWER_ON_OR_RESET)
  const many = await told(nexus)
  t.equal(many.length, UNIT_ATTENTIONS)
  t.same(many.slice(0, 2), ['06/29/00', '06/3F/00'], 'the oldest stay, a reset comes first')
  server.nexusLost(nexus)
  t.notOk(unit.hasUnitAttention(nexus))
})

t.test('the medium goes and comes', async (t) => {
  const harness = createHarness()
  const { unit, device } = harness
  device.emit('gone')
  t.equal(unit.device, undefined)
  t.equal(device.listeners, 0, 'nobody listens to a lost device')
  t.equal(await senseOf(harness, READ), '02/04/03')
  t.equal(await senseOf(harness, INQUIRY), GOOD)
  const again = new ScriptedDevice()
  unit.setDevice(again)
  unit.setDevice(again)
  t.equal(again.listeners, 1)
  t.equal(await senseOf(harness, TEST_UNIT_READY), '06/28/00')
  t.equal(await senseOf(harness, TEST_UNIT_READY), GOOD, 'same size: nothing else to tell')
  unit.setDevice(new ScriptedDevice({ sizeBytes: 2 * 1024 * 1024 }))
  t.equal(await senseOf(harness, TEST_UNIT_READY), '06/28/00')
  t.equal(await senseOf(harness, TEST_UNIT_READY), '06/2A/09')
  t.equal(unit.blocks, 4096)
  t.equal(again.listeners, 0)
  t.throws(
    () => unit.setDevice(new ScriptedDevice({ logicalBlockBytes: 4096 })),
    /does not fit .* choose a multiple/,
  )
  t.equal(unit.blocks, 4096, 'and the old one stays')
  unit.setDevice(undefined)
  t.equal(unit.blocks, 0)
})

t.test('a unit that begins without a medium', async (t) => {
  const harness = createHarness({ medium: null })
  t.equal(await senseOf(harness, TEST_UNIT_READY), '02/04/03')
  harness.unit.setDevice(new ScriptedDevice({ logicalBlockBytes: 4096 }))
  t.same([harness.unit.blockBytes, harness.unit.blocks], [4096, 256], 'takes the block length')
  t.equal(await senseOf(harness, TEST_UNIT_READY), '06/28/00')
  t.equal(harness.unit.mode.writeCacheEnabled, true)
})

t.test('the write cache setting of an initiator outlives the medium', async (t) => {
  const { unit } = createHarness()
  unit.mode.writeCacheEnabled = false
  unit.setDevice(new ScriptedDevice())
  t.equal(unit.mode.writeCacheEnabled, false, 'write-through stays write-through')
  const { unit: switched } = createHarness()
  switched.setDevice(new ScriptedDevice({ features: { volatileWriteCache: false } }))
  t.equal(switched.mode.writeCacheEnabled, false, 'nothing volatile any more')
  const stable = createHarness({ features: { volatileWriteCache: false } }).unit
  t.equal(stable.mode.writeCacheEnabled, false, 'no volatile cache: WCE 0')
})

t.test('the medium changes its size', async (t) => {
  const harness = createHarness()
  harness.device.resize(2 * 1024 * 1024)
  t.equal(await senseOf(harness, TEST_UNIT_READY), '06/2A/09')
  t.equal(harness.unit.blocks, 4096)
  t.equal(await senseOf(harness, [0x28, 0, 0, 0, 0x0f, 0xff, 0, 0, 1, 0]), GOOD)
  harness.device.holding = true
  const ordered = harness.start(READ, { attribute: 2 })
  const waits = harness.start([0x28, 0, 0, 0, 0x0f, 0xff, 0, 0, 1, 0])
  harness.device.resize(1024 * 1024)
  harness.device.release()
  await Promise.all([ordered.done, waits.done])
  t.equal(senseText(waits.task.sense), '05/21/00', 'checked again when it starts')
  harness.collect(ordered.task)
  t.equal(harness.pool.leased, 0)
})

t.test('what changes while a task waits is found when it starts', async (t) => {
  const harness = createHarness()
  const other = harness.newNexus()
  const begin = async (change: () => void) => {
    harness.device.holding = true
    const first = harness.start(READ, { attribute: 2 })
    const second = harness.start(WRITE, { dataOut })
    change()
    harness.device.release()
    await Promise.all([first.done, second.done])
    harness.collect(first.task)
    harness.collect(second.task)
    return second.task
  }
  const conflict = await begin(() => harness.unit.reservations.reserve(other))
  t.equal(conflict.status, STATUS.RESERVATION_CONFLICT)
  harness.unit.reservations.clear()
  const swp = await begin(() => {
    harness.unit.mode.softwareWriteProtect = true
  })
  t.equal(senseText(swp.sense), '07/27/00')
  harness.unit.mode.softwareWriteProtect = false
  const lost = await begin(() => harness.device.emit('gone'))
  t.equal(senseText(lost.sense), '02/04/03')
  t.equal(harness.pool.leased, 0)
})

t.test('the LUN map of a nexus changes', async (t) => {
  const harness = createHarness()
  const { nexus, server, unit } = harness
  const added = new BlockUnit({
    name: 'test/1',
    identity: unit.identity,
    device: new ScriptedDevice(),
    pool: harness.pool,
    clock: harness.clock,
    log: silentLogger(),
  })
  harness.device.holding = true
  const old = harness.start(READ)
  const previous = nexus.luns
  nexus.luns = new Map([[1, { lun: 1, unit: added, readOnly: false }]])
  server.lunsChanged(nexus, previous)
  t.ok(old.task.aborted, 'tasks on a unit that is not seen any more')
  t.notOk(unit.isAttached(nexus))
  t.equal(await senseOf(harness, TEST_UNIT_READY), '05/25/00')
  t.equal(await senseOf(harness, TEST_UNIT_READY, { lun: 1 }), '06/29/00')
  t.equal(await senseOf(harness, TEST_UNIT_READY, { lun: 1 }), '06/3F/0E')
  t.equal(await senseOf(harness, TEST_UNIT_READY, { lun: 1 }), GOOD)
  const both = new Map(
    [0, 1].map((lun) => [lun, { lun, unit: lun ? added : unit, readOnly: false }]),
  )
  const change = () => {
    const before = nexus.luns
    nexus.luns = both
    server.lunsChanged(nexus, before)
  }
  change()
  t.equal(await senseOf(harness, TEST_UNIT_READY), '06/29/00')
  t.equal(await senseOf(harness, TEST_UNIT_READY), '06/3F/0E')
  t.equal(await senseOf(harness, TEST_UNIT_READY, { lun: 1 }), GOOD, 'one unit tells it for all')
  change()
  t.equal(senseText((await harness.run(REQUEST_SENSE)).dataIn), '06/3F/0E')
  t.equal(await senseOf(harness, TEST_UNIT_READY, { lun: 1 }), GOOD, 'REQUEST SENSE, too')
  change()
  unit.establishUnitAttentionFor(ASC.MODE_PARAMETERS_CHANGED, nexus)
  t.equal(await senseOf(harness, REPORT_LUNS), GOOD)
  t.equal(await senseOf(harness, TEST_UNIT_READY, { lun: 1 }), GOOD, 'REPORT LUNS has told it')
  t.equal(await senseOf(harness, TEST_UNIT_READY), '06/2A/01', 'and nothing else is lost')
  t.equal(await senseOf(harness, TEST_UNIT_READY), GOOD)
  harness.device.release()
  await old.done
  t.equal(harness.pool.leased, 0)
})

t.test('counters', async (t) => {
  const harness = createHarness()
  harness.device.holding = true
  const { done, task } = harness.start(READ)
  harness.clock.advance(25)
  harness.device.release()
  await done
  harness.collect(task)
  t.strictSame(harness.unit.statistics[0x28], {
    name: 'READ(10)',
    operations: 1,
    bytes: BLOCK,
    errors: 0,
    mediumErrors: 0,
    latencyMs: 25,
  })
})

t.test('any CDB ends in a legal status, with nothing left behind', async (t) => {
  const harness = createHarness({ keepAttention: true })
  const legal: readonly number[] = Object.values(STATUS)
  const opcodes = [
    0x08, 0x0a, 0x28, 0x2a, 0x2e, 0x2f, 0x34, 0x35, 0x41, 0x42, 0x88, 0x89, 0x8a, 0x8e,
  ]
  const opcode = fc.oneof(
    fc.constantFrom(...opcodes, 0x8f, 0x90, 0x91, 0x93, 0xa8, 0xaa),
    fc.nat(255),
  )
  const field = fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.nat(8), fc.nat(255))
  const command = fc.record({
    cdb: fc.tuple(opcode, fc.array(field, { minLength: 15, maxLength: 15 })),
    dataOut: fc.option(fc.uint8Array({ maxLength: 4096 }), { nil: undefined }),
    expectedBytes: fc.option(fc.constantFrom(0, 1, 24, 512, 1024, 100_000), { nil: undefined }),
    direction: fc.constantFrom('in', 'out', 'none'),
    lun: fc.constantFrom(0, 0, 0, 1),
  } as const)
  const property = fc.asyncProperty(command, async ({ cdb, dataOut, expectedBytes, ...rest }) => {
    const result = await harness.run([cdb[0], ...cdb[1]], {
      ...rest,
      ...(dataOut ? { dataOut: Buffer.from(dataOut) } : {}),
      ...(expectedBytes === undefined ? {} : { expectedBytes }),
    })
    const { task } = result
    harness.unit.stopped = false
    return (
      legal.includes(result.status) &&
      (result.status === STATUS.CHECK_CONDITION) === (result.sense !== undefined) &&
      task.transferOutBytes <= task.expectedBytes &&
      harness.unit.tasks.size === 0 &&
      harness.pool.leased === 0
    )
  })
  await fc.assert(property, { numRuns: 1500 })
  t.pass('1500 commands')
})

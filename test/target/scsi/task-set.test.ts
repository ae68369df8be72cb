/** Order in the task set, fences after aborts, and task management. */
import fc from 'fast-check'
import t from 'tap'
import { STRANGER_LOG_LINES } from '../../../src/base/limits.ts'
import { createLogger } from '../../../src/base/log.ts'
import { createDeviceServer } from '../../../src/target/scsi/device-server.ts'
import { ASC } from '../../../src/target/scsi/sense.ts'
import { STATUS, TASK_ATTRIBUTE, TASK_STATE, type Task } from '../../../src/target/scsi/task.ts'
import { TASK_MANAGEMENT, TASK_MANAGEMENT_RESPONSE } from '../../../src/target/scsi/types.ts'
import {
  createHarness,
  type RunOptions,
  type ScsiHarness,
  senseText,
} from '../../support/scsi-harness.ts'

const BLOCK = 512
const LUN_0 = Buffer.alloc(8)
const { ORDERED, HEAD_OF_QUEUE, SIMPLE, ACA } = TASK_ATTRIBUTE
const { COMPLETE, NO_TASK, NO_LUN, NO_REASSIGN, NOT_AUTHORIZED, UNSUPPORTED } =
  TASK_MANAGEMENT_RESPONSE

const read = (lba: number, blocks = 1) => [0x28, 0, 0, 0, 0, lba, 0, 0, blocks, 0]
const write = (lba: number, blocks = 1) => [0x2a, 0, 0, 0, 0, lba, 0, 0, blocks, 0]
const compareAndWrite = (lba: number) => [0x89, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, 1, 0, 0]
const FLUSH = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]
const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0]
const STOP = [0x1b, 0, 0, 0, 0, 0]

const tick = () => new Promise((resolve) => setImmediate(resolve))

/** A harness whose device holds every request back. */
function holding(): ScsiHarness {
  const harness = createHarness()
  harness.device.holding = true
  return harness
}

function startWrite(harness: ScsiHarness, lba: number, byte: number, options: RunOptions = {}) {
  const blocks = (options.expectedBytes ?? BLOCK) / BLOCK
  const dataOut = Buffer.alloc(blocks * BLOCK, byte)
  return harness.start(write(lba, blocks), { ...options, dataOut })
}

/** What the device has been asked for and not released, as `write 3`. */
function atDevice(harness: ScsiHarness): string[] {
  return harness.device.held.map(({ request }) => `${request.op} ${request.offset / BLOCK}`)
}

function abort(harness: ScsiHarness, task: Task): number {
  return harness.server.manage(TASK_MANAGEMENT.ABORT_TASK, task.nexus, LUN_0, task.tag)
}

async function releaseAll(harness: ScsiHarness): Promise<void> {
  for (let rounds = 0; rounds < 1000 && harness.device.held.length > 0; rounds++) {
    harness.device.release()
    await tick()
  }
}

t.test('plain commands run side by side, in whatever order the disk likes', async (t) => {
  const harness = holding()
  const started = [0, 1, 2].map((lba) => startWrite(harness, lba, lba))
  started.push(harness.start(read(0)), harness.start(FLUSH))
  t.same(atDevice(harness), ['write 0', 'write 1', 'write 2', 'read 0', 'flush 0'])
  harness.device.release(2)
  t.ok(started[2]?.task.completed)
  t.notOk(started[0]?.task.completed)
  await releaseAll(harness)
  for (const { task } of started) harness.collect(task)
  t.equal(harness.unit.tasks.size, 0)
  t.equal(harness.pool.leased, 0)
})

t.test('ORDERED waits for all before it, all after it wait for it', async (t) => {
  const harness = holding()
  startWrite(harness, 0, 1)
  harness.start(read(1))
  startWrite(harness, 2, 2, { attribute: ORDERED })
  harness.start(read(3))
  harness.start(FLUSH)
  t.same(atDevice(harness), ['write 0', 'read 1'])
  harness.device.release()
  t.same(atDevice(harness), ['read 1'])
  harness.device.release()
  t.same(atDevice(harness), ['write 2'], 'the ORDERED one alone')
  harness.device.release()
  t.same(atDevice(harness), ['read 3', 'flush 0'])
  await releaseAll(harness)
  t.equal(harness.unit.tasks.size, 0)
})

t.test('the place in the order is that of the arrival, not of the last data', async (t) => {
  const harness = holding()
  const late = harness.task(write(0), { dataOut: Buffer.alloc(BLOCK, 7) })
  t.ok(harness.server.admit(late.task), 'its Data-Out is still to come')
  const ordered = harness.task(write(0), { dataOut: Buffer.alloc(BLOCK), attribute: ORDERED })
  t.ok(harness.server.admit(ordered.task))
  harness.start(read(0))
  t.same(atDevice(harness), [], 'a SIMPLE one waits for an ORDERED one that collects data')
  harness.execute(ordered.task, Buffer.alloc(BLOCK, 8))
  t.same(atDevice(harness), [], 'which waits for an older one that collects data')
  harness.execute(late.task, Buffer.alloc(BLOCK, 7))
  t.same(atDevice(harness), ['write 0'])
  harness.device.release()
  harness.device.release()
  t.same(atDevice(harness), ['read 0'])
  t.equal(harness.device.bytes[0], 8, 'written in order')
  await releaseAll(harness)
})

t.test('HEAD OF QUEUE passes what waits', async (t) => {
  const harness = holding()
  startWrite(harness, 0, 1)
  startWrite(harness, 1, 2, { attribute: ORDERED })
  harness.start(read(5), { attribute: HEAD_OF_QUEUE })
  t.same(atDevice(harness), ['write 0', 'read 5'])
  harness.device.release()
  t.same(atDevice(harness), ['read 5'], 'ORDERED waits for it')
  harness.device.release()
  t.same(atDevice(harness), ['write 1'])
  await releaseAll(harness)
  const aca = await harness.run(TEST_UNIT_READY, { attribute: ACA })
  t.equal(aca.sense?.[12], ASC.INVALID_MESSAGE_ERROR >> 8)
})

t.test('COMPARE AND WRITE is atomic against overlapping commands only', async (t) => {
  const harness = holding()
  startWrite(harness, 4, 1)
  const first = harness.start(compareAndWrite(4), {
    dataOut: Buffer.concat([Buffer.alloc(BLOCK, 1), Buffer.alloc(BLOCK, 2)]),
  })
  const second = harness.start(compareAndWrite(4), {
    dataOut: Buffer.concat([Buffer.alloc(BLOCK, 2), Buffer.alloc(BLOCK, 3)]),
  })
  startWrite(harness, 4, 9)
  startWrite(harness, 8, 5)
  harness.start(read(4))
  t.same(atDevice(harness), ['write 4', 'write 8'])
  harness.device.release()
  t.same(atDevice(harness), ['write 8', 'read 4'])
  harness.device.release(1)
  await tick()
  t.same(atDevice(harness), ['write 8', 'write 4'], 'the first writes')
  harness.device.release(1)
  await tick()
  t.same(atDevice(harness), ['write 8', 'read 4'], 'then the second reads')
  harness.device.release(1)
  await tick()
  harness.device.release(1)
  await tick()
  t.same([first.task.status, second.task.status], [STATUS.GOOD, STATUS.GOOD])
  t.equal(harness.device.bytes[4 * BLOCK], 3)
  t.same(atDevice(harness), ['write 8', 'write 4', 'read 4'], 'then plain ones, together')
  await releaseAll(harness)
})

t.test('hundreds of COMPARE AND WRITE on one block: exactly one wins each round', async (t) => {
  const harness = createHarness()
  for (let round = 0; round < 4; round++) {
    const results = await Promise.all(
      Array.from({ length: 64 }, (_, i) =>
        harness.run(compareAndWrite(0), {
          dataOut: Buffer.concat([
            Buffer.from(harness.device.bytes.subarray(0, BLOCK)),
            Buffer.alloc(BLOCK, round * 64 + i + 1),
          ]),
        }),
      ),
    )
    const winners = results.filter(({ status }) => status === STATUS.GOOD)
    t.equal(winners.length, 1)
    t.ok(results.every(({ sense }) => sense === undefined || sense.readUInt16BE(12) === 0x1d00))
  }
  t.equal(harness.pool.leased, 0)
})

t.test('a command of class unit has the unit to itself', async (t) => {
  const harness = holding()
  startWrite(harness, 0, 1)
  const stop = harness.start(STOP)
  const after = harness.start(read(1))
  const ready = harness.start(TEST_UNIT_READY)
  t.ok(ready.task.completed, 'commands that touch no medium do not wait')
  t.same(atDevice(harness), ['write 0'])
  harness.device.release()
  await tick()
  t.same(atDevice(harness), ['flush 0'])
  harness.device.release()
  await Promise.all([stop.done, after.done])
  t.equal(stop.task.status, STATUS.GOOD)
  t.equal(after.task.sense?.readUInt16BE(12), 0x0402, 'checked again when its turn came')
})

t.test('ABORT TASK: the fence keeps later overlapping commands behind the old write', async (t) => {
  const harness = holding()
  const old = startWrite(harness, 3, 0xaa, { expectedBytes: 2 * BLOCK })
  t.equal(abort(harness, old.task), COMPLETE, 'answered at once')
  t.notOk(old.task.completed, 'its I/O is still with the disk')
  t.equal(harness.unit.tasks.fences, 1)
  t.equal(abort(harness, old.task), NO_TASK, 'it is gone for task management')
  const fresh = startWrite(harness, 4, 0xbb)
  const reader = harness.start(read(3))
  startWrite(harness, 5, 0xcc)
  harness.start(FLUSH)
  t.same(atDevice(harness), ['write 3', 'write 5', 'flush 0'])
  harness.device.release()
  await old.done
  t.ok(old.task.aborted && old.task.completed, 'its end is told, so that buffers are released')
  harness.collect(old.task)
  t.same(atDevice(harness), ['write 5', 'flush 0', 'write 4', 'read 3'])
  await releaseAll(harness)
  t.equal(harness.device.bytes[4 * BLOCK], 0xbb, 'the newer write is what stays')
  t.ok(reader.task.completed && fresh.task.completed)
  for (const { task } of [fresh, reader]) harness.collect(task)
  t.equal(harness.unit.tasks.fences, 0)
})

t.test('an aborted read is no fence, an aborted task that waits ends at once', async (t) => {
  const harness = holding()
  const reader = harness.start(read(0))
  t.equal(abort(harness, reader.task), COMPLETE)
  startWrite(harness, 0, 1)
  t.same(atDevice(harness), ['read 0', 'write 0'])
  const caw = harness.start(compareAndWrite(0), { dataOut: Buffer.alloc(2 * BLOCK) })
  const behind = harness.start(read(0))
  t.equal(harness.unit.tasks.waiting, 2)
  t.equal(abort(harness, caw.task), COMPLETE)
  t.same(harness.aborted, [reader.task, caw.task], 'the transport hears of both')
  t.equal(caw.task.state, TASK_STATE.OUTSIDE, 'nothing of it is in flight')
  t.same(atDevice(harness), ['read 0', 'write 0', 'read 0'], 'what waited for it starts')
  harness.collect(caw.task)
  await releaseAll(harness)
  t.equal(reader.task.dataIn, undefined, 'data that nobody gets is released by the task')
  harness.collect(behind.task)
  t.ok(behind.task.completed)
})

t.test('COMPARE AND WRITE aborted between its read and its write does not write', async (t) => {
  const harness = holding()
  const dataOut = Buffer.concat([Buffer.alloc(BLOCK), Buffer.alloc(BLOCK, 0xee)])
  const { task, done } = harness.start(compareAndWrite(0), { dataOut })
  t.equal(abort(harness, task), COMPLETE)
  const behind = harness.start(read(0))
  t.same(atDevice(harness), ['read 0'], 'its fence holds others back')
  harness.device.release()
  await done
  await tick()
  t.same(atDevice(harness), ['read 0'], 'the one behind, and no write')
  harness.device.release()
  await behind.done
  t.equal(harness.collect(behind.task).dataIn[0], 0)
  harness.collect(task)
  t.equal(harness.pool.leased, 0)
})

t.test('a task is abortable while its data is collected', async (t) => {
  const harness = holding()
  const make = () => {
    const started = harness.task(write(0), { dataOut: Buffer.alloc(BLOCK) })
    t.ok(harness.server.admit(started.task))
    return started
  }
  const first = make()
  t.equal(abort(harness, first.task), COMPLETE)
  t.same(harness.aborted, [first.task], 'the transport hears of it')
  t.same([first.task.aborted, first.task.completed], [true, false])
  t.equal(harness.unit.tasks.size, 0)
})

t.test('who waits for its initiator holds up its own nexus alone', async (t) => {
  const harness = holding()
  const other = harness.newNexus()
  for (const attribute of [ORDERED, HEAD_OF_QUEUE]) {
    const late = harness.task(write(0), { dataOut: Buffer.alloc(BLOCK), attribute })
    t.ok(harness.server.admit(late.task), 'its Data-Out is still to come')
    const own = harness.start(read(1))
    const ownStop = harness.start(STOP)
    t.same(atDevice(harness), [], 'its own nexus keeps the order')
    harness.start(read(2), { nexus: other })
    harness.start(compareAndWrite(0), { nexus: other, dataOut: Buffer.alloc(2 * BLOCK) })
    startWrite(harness, 3, 1, { nexus: other, attribute: ORDERED })
    t.same(atDevice(harness), ['read 2', 'read 0'], 'other nexuses do not wait')
    await releaseAll(harness)
    harness.execute(late.task, Buffer.alloc(BLOCK, 7))
    t.ok(harness.device.held.length > 0)
    await releaseAll(harness)
    await Promise.all([late.done, own.done, ownStop.done])
    t.equal(harness.device.bytes[0], 7)
    harness.unit.stopped = false
    t.equal(harness.unit.tasks.size, 0)
  }
})

t.test("between two pieces a task is in nobody else's way", async (t) => {
  const harness = holding()
  const other = harness.newNexus()
  const long = harness.task(write(0, 4), {
    dataOut: Buffer.alloc(4 * BLOCK),
    attribute: ORDERED,
  })
  t.ok(harness.server.admit(long.task))
  long.task.pieceBytes = 2 * BLOCK
  harness.execute(long.task, Buffer.alloc(4 * BLOCK, 1))
  t.same(atDevice(harness), ['write 0'])
  const waiting = harness.start(read(9), { nexus: other })
  t.same(atDevice(harness), ['write 0'], 'it is a barrier while it runs')
  harness.device.release()
  t.same([long.task.movedBytes, long.task.completed], [2 * BLOCK, false])
  t.same(atDevice(harness), ['read 9'], 'and none while its initiator is to send the rest')
  await releaseAll(harness)
  await waiting.done
  harness.server.execute(long.task)
  t.same(atDevice(harness), ['write 2'])
  t.equal(abort(harness, long.task), COMPLETE)
  await releaseAll(harness)
  await long.done
  t.equal(harness.unit.tasks.size, 0)
})

t.test('ABORT TASK SET and CLEAR TASK SET', async (t) => {
  const harness = holding()
  const other = harness.newNexus()
  const own = startWrite(harness, 0, 1)
  const foreign = startWrite(harness, 1, 1, { nexus: other })
  const manage = (fn: number) => harness.server.manage(fn, harness.nexus, LUN_0, 0)
  t.equal(manage(TASK_MANAGEMENT.ABORT_TASK_SET), COMPLETE)
  t.same([own.task.aborted, foreign.task.aborted], [true, false])
  t.notOk(harness.unit.hasUnitAttention(other))
  const again = startWrite(harness, 2, 1)
  t.equal(manage(TASK_MANAGEMENT.CLEAR_TASK_SET), COMPLETE)
  t.same([again.task.aborted, foreign.task.aborted], [true, true])
  t.equal(foreign.task.abortAnswer?.status, STATUS.TASK_ABORTED, 'TAS = 1: others are told')
  t.equal(again.task.abortAnswer, undefined, 'the one who asked knows')
  t.notOk(harness.unit.hasUnitAttention(other), 'and so nobody has an attention')
  await releaseAll(harness)
  t.equal(harness.unit.tasks.size, 0)
})

t.test('resets', async (t) => {
  const harness = holding()
  const other = harness.newNexus()
  const { unit, nexus, server } = harness
  const cases = [
    [TASK_MANAGEMENT.LOGICAL_UNIT_RESET, ASC.BUS_DEVICE_RESET_FUNCTION],
    [TASK_MANAGEMENT.TARGET_WARM_RESET, ASC.SCSI_BUS_RESET],
    [TASK_MANAGEMENT.TARGET_COLD_RESET, ASC.SCSI_BUS_RESET],
  ] as const
  for (const [fn, code] of cases) {
    const foreign = harness.task(FLUSH, { nexus: other })
    t.ok(server.admit(foreign.task))
    unit.reservations.reserve(nexus)
    Object.assign(unit.mode, { descriptorSense: true, softwareWriteProtect: true })
    unit.mode.writeCacheEnabled = false
    unit.stopped = true
    const pending = harness.task(FLUSH, { nexus })
    unit.stopped = false
    server.admit(pending.task)
    t.equal(server.manage(fn, nexus, LUN_0, 0), COMPLETE)
    t.same([pending.task.aborted, pending.task.abortAnswer], [true, undefined])
    t.equal(foreign.task.abortAnswer?.status, STATUS.TASK_ABORTED)
    t.equal(unit.reservations.holder, undefined)
    t.strictSame(unit.mode, {
      writeCacheEnabled: true,
      descriptorSense: false,
      softwareWriteProtect: false,
      thresholdNotification: true,
    })
    t.notOk(unit.stopped)
    t.same([unit.takeUnitAttention(nexus), unit.takeUnitAttention(other)], [code, code])
    t.notOk(unit.hasUnitAttention(nexus))
  }
})

t.test('responses to what cannot be done', async (t) => {
  const { server, nexus } = createHarness()
  const lun1 = Buffer.from([0, 1, 0, 0, 0, 0, 0, 0])
  for (const fn of [1, 2, 4, 5]) t.equal(server.manage(fn, nexus, lun1, 0), NO_LUN)
  t.equal(server.manage(TASK_MANAGEMENT.ABORT_TASK, nexus, LUN_0, 99), NO_TASK)
  t.equal(server.manage(TASK_MANAGEMENT.CLEAR_ACA, nexus, LUN_0, 0), UNSUPPORTED)
  t.equal(server.manage(TASK_MANAGEMENT.TASK_REASSIGN, nexus, LUN_0, 0), NO_REASSIGN)
  for (const fn of [0, 9, 10, 12, 127]) t.equal(server.manage(fn, nexus, LUN_0, 0), UNSUPPORTED)
})

t.test('a nexus that may only read cannot touch the tasks of others', async (t) => {
  const harness = createHarness({ readOnly: true })
  const { server, nexus } = harness
  const foreign = harness.task(read(0), { nexus: harness.newNexus() })
  server.admit(foreign.task)
  for (const fn of [4, 5, 6, 7]) t.equal(server.manage(fn, nexus, LUN_0, 0), NOT_AUTHORIZED)
  t.notOk(foreign.task.aborted)
  t.equal(server.manage(TASK_MANAGEMENT.ABORT_TASK_SET, nexus, LUN_0, 0), COMPLETE)
})

t.test('a nexus that sees no LUN has nothing to reset', async (t) => {
  const { server, nexus } = createHarness()
  const previous = nexus.luns
  nexus.luns = new Map()
  server.lunsChanged(nexus, previous)
  const { TARGET_WARM_RESET, TARGET_COLD_RESET } = TASK_MANAGEMENT
  for (const fn of [TARGET_WARM_RESET, TARGET_COLD_RESET]) {
    t.equal(server.manage(fn, nexus, LUN_0, 0), NOT_AUTHORIZED, 'a cold reset would end sessions')
  }
})

t.test('a target reset leaves alone what the nexus may only read', async (t) => {
  const harness = createHarness()
  const { server, nexus, unit } = harness
  const other = createHarness()
  nexus.luns = new Map([...nexus.luns, [1, { lun: 1, unit: other.unit, readOnly: true }]])
  unit.stopped = true
  other.unit.stopped = true
  t.equal(server.manage(TASK_MANAGEMENT.TARGET_WARM_RESET, nexus, LUN_0, 0), COMPLETE)
  t.same([unit.stopped, other.unit.stopped], [false, true])
})

t.test('an initiator with many functions does not hide those of another in the log', async (t) => {
  const lines: string[] = []
  const harness = createHarness()
  const { clock, pool, nexus } = harness
  const log = createLogger('info', 'json', (line) => lines.push(line))
  const server = createDeviceServer({ clock, log, pool })
  const other = harness.newNexus()
  for (let count = 0; count < 5 * STRANGER_LOG_LINES; count++) {
    server.manage(TASK_MANAGEMENT.ABORT_TASK_SET, nexus, LUN_0, 0)
    server.manage(TASK_MANAGEMENT.TARGET_WARM_RESET, nexus, LUN_0, 0)
  }
  server.manage(TASK_MANAGEMENT.LOGICAL_UNIT_RESET, other, LUN_0, 0)
  const of = (name: string) => lines.filter((line) => JSON.parse(line).initiator === name).length
  t.equal(of(nexus.initiatorName), STRANGER_LOG_LINES)
  t.equal(of(other.initiatorName), 1)
})

t.test('tasks on a unit that a nexus loses end with 05/25/00', async (t) => {
  const harness = createHarness()
  const { server, nexus } = harness
  const collecting = harness.task(write(0), { dataOut: Buffer.alloc(BLOCK) })
  server.admit(collecting.task)
  const previous = nexus.luns
  nexus.luns = new Map()
  server.lunsChanged(nexus, previous)
  t.ok(collecting.task.aborted)
  const answer = collecting.task.abortAnswer
  t.same([answer?.status, senseText(answer?.sense)], [STATUS.CHECK_CONDITION, '05/25/00'])
})

t.test('a lost nexus takes its tasks and its reservation along', async (t) => {
  const harness = holding()
  const other = harness.newNexus()
  const { unit, server, nexus } = harness
  unit.reservations.reserve(nexus)
  const own = startWrite(harness, 0, 1)
  const conflict = await harness.run(read(0), { nexus: other })
  t.equal(conflict.status, STATUS.RESERVATION_CONFLICT)
  server.nexusLost(nexus)
  t.ok(own.task.aborted)
  t.equal(unit.reservations.holder, undefined)
  const behind = startWrite(harness, 0, 2, { nexus: other })
  t.same(atDevice(harness), ['write 0'], 'the fence outlives the nexus')
  await releaseAll(harness)
  t.ok(behind.task.completed)
  t.equal(harness.device.bytes[0], 2)
  t.notOk(unit.isAttached(nexus))
})

t.test('whatever comes, in whatever order: nothing conflicts, nothing is stuck', async (t) => {
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constantFrom('read', 'write', 'caw', 'flush', 'stop', 'ready'),
        lba: fc.integer({ min: 0, max: 6 }),
        blocks: fc.integer({ min: 1, max: 3 }),
        attribute: fc.constantFrom(SIMPLE, SIMPLE, SIMPLE, SIMPLE, ORDERED, HEAD_OF_QUEUE),
        delayed: fc.boolean(),
      }),
    },
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('release'), index: fc.nat(20) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('execute'), index: fc.nat(20) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('abort'), index: fc.nat(40) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('clear', 'reset') }) },
  )
  const cdbs = {
    read: read,
    write: write,
    caw: (lba: number) => compareAndWrite(lba),
    flush: () => FLUSH,
    stop: () => [0x1b, 0, 0, 0, 1, 0],
    ready: () => TEST_UNIT_READY,
  } as const

  const property = fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
    const harness = holding()
    const collecting: Task[] = []
    const all: Task[] = []
    const finished = new Set<Task>()
    const fences = new FenceWatch(all)
    for (const action of steps) {
      fences.note()
      harness.unit.takeUnitAttention(harness.nexus)
      if (action.kind === 'release' && 'index' in action) {
        const count = harness.device.held.length
        if (count > 0) harness.device.release(action.index % count)
        await tick()
      } else if (action.kind === 'execute' && 'index' in action) {
        const [task] = collecting.splice(action.index % Math.max(1, collecting.length), 1)
        if (task && !task.aborted) harness.execute(task, Buffer.alloc(task.transferOutBytes))
      } else if (action.kind === 'abort' && 'index' in action) {
        const task = all[action.index % Math.max(1, all.length)]
        if (task) abort(harness, task)
      } else if (action.kind === 'clear' || action.kind === 'reset') {
        harness.server.manage(action.kind === 'clear' ? 4 : 5, harness.nexus, LUN_0, 0)
      } else if ('lba' in action) {
        const make = cdbs[action.kind as keyof typeof cdbs]
        const cdb = make(action.lba, action.blocks)
        const dataOut =
          action.kind === 'write'
            ? Buffer.alloc(action.blocks * BLOCK)
            : action.kind === 'caw'
              ? Buffer.alloc(2 * BLOCK)
              : undefined
        const { attribute } = action
        const { task, done } = harness.task(cdb, dataOut ? { dataOut, attribute } : { attribute })
        void done.then(() => {
          finished.add(task)
          harness.collect(task)
        })
        all.push(task)
        if (!harness.server.admit(task)) continue
        if (action.delayed) collecting.push(task)
        else harness.execute(task, dataOut)
      }
      checkNoConflict(harness, all)
      fences.check()
    }
    for (const task of collecting) {
      if (!task.aborted) harness.execute(task, Buffer.alloc(task.transferOutBytes))
    }
    await releaseAll(harness)
    await tick()
    return (
      all.every((task) => finished.has(task)) &&
      harness.unit.tasks.size === 0 &&
      harness.unit.tasks.fences === 0 &&
      harness.unit.tasks.waiting === 0 &&
      harness.pool.leased === 0
    )
  })
  await fc.assert(property, { numRuns: 150 })
  t.pass('150 runs')
})

/** Sees to it that nothing starts on the blocks of an aborted write that is still with the disk. */
class FenceWatch {
  readonly #all: readonly Task[]
  /** What ran beside a task when it was aborted, which is nobody's fault. */
  readonly #beside = new Map<Task, ReadonlySet<Task>>()
  #running: ReadonlySet<Task> = new Set()

  constructor(all: readonly Task[]) {
    this.#all = all
  }

  note(): void {
    this.#running = new Set(this.#all.filter((task) => task.state === TASK_STATE.RUNNING))
  }

  check(): void {
    const running = this.#all.filter((task) => task.state === TASK_STATE.RUNNING)
    for (const fence of running.filter((task) => task.aborted && task.rangeWrites)) {
      const beside = this.#beside.get(fence) ?? this.#running
      this.#beside.set(fence, beside)
      const newer = running.find(
        (task) => !beside.has(task) && task !== fence && touch(task, fence),
      )
      if (newer) throw new Error(`task ${newer.tag} runs into the fence of task ${fence.tag}`)
    }
  }
}

function touch(a: Task, b: Task): boolean {
  const [aEnd, bEnd] = [a.rangeOffset + a.rangeBytes, b.rangeOffset + b.rangeBytes]
  return a.rangeOffset < bEnd && b.rangeOffset < aEnd && a.rangeBytes > 0 && a.rangeOffset >= 0
}

/**
 * No two requests at the device overlap if one of them is the write of a COMPARE AND WRITE. Reads of aborted tasks do not
 * count: nobody gets what they read.
 */
function checkNoConflict(harness: ScsiHarness, all: readonly Task[]): void {
  const aborted = all.filter((task) => task.aborted && task.state === TASK_STATE.RUNNING)
  const requests = harness.device.held
    .map(({ request }) => request)
    .filter(({ op, offset }) => op !== 'read' || !aborted.some((a) => a.rangeOffset === offset))
  for (const a of requests) {
    for (const b of requests) {
      // COMPARE AND WRITE writes from the second half of its data: nothing else has a data offset.
      const exclusive = a.op === 'write' && a.dataOffset > 0
      if (a === b || !exclusive || b.op === 'flush') continue
      if (a.offset < b.offset + b.length && b.offset < a.offset + a.length) {
        throw new Error(`COMPARE AND WRITE at ${a.offset} beside ${b.op} at ${b.offset}`)
      }
    }
  }
}

/**
 * A thin device that is full, and many writes of one session that want space of it: what other LUNs notice, in the same
 * session and in another one.
 */
import t, { type Test } from 'tap'
import { KIB, MIB } from '../../../src/base/limits.ts'
import { silentLogger } from '../../../src/base/log.ts'
import { TargetNode } from '../../../src/target/iscsi/target-node.ts'
import { BlockUnit } from '../../../src/target/scsi/logical-unit.ts'
import { Machine } from '../../support/engine.ts'
import { Initiator } from '../../support/initiator.ts'
import { INITIATOR_NAME } from '../../support/initiator-login.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { openPortal, settled, TARGET, type TestPortal, write10 } from '../../support/portal.ts'

const THIN = 1
const GOOD = 0
const TASK_SET_FULL = 0x28
const WRITES = 96
const CHUNK = 512 * KIB

/** LUN 0 is a memory device, LUN 1 a thin device without space that lets writes wait by a clock of its own. */
async function openFull(
  t: Test,
): Promise<{ portal: TestPortal; machine: Machine; clock: ManualClock }> {
  const portal = await openPortal(t)
  const clock = new ManualClock()
  const machine = await new Machine({ devices: 2, sizeBytes: 8 * MIB, clock }).start()
  await machine.run('virstor.create', {
    name: 'thin',
    devices: ['d1'],
    size: '1GiB',
    chunk: '512KiB',
  })
  const { pool } = portal
  const thin = new BlockUnit({
    name: 'thin',
    identity: { ...portal.unit.identity, serial: '2' },
    device: machine.open('thin'),
    pool,
    clock,
    log: silentLogger(),
  })
  const target = portal.registry.remove(TARGET)
  if (!target) throw new Error('the portal has a target')
  portal.registry.set(
    new TargetNode({
      name: TARGET,
      alias: 'two',
      portalGroups: [portal.group],
      auth: 'none',
      luns: new Map([
        [0, { lun: 0, unit: portal.unit, readOnly: false }],
        [THIN, { lun: THIN, unit: thin, readOnly: false }],
      ]),
    }),
  )
  return { portal, machine, clock }
}

async function login(portal: TestPortal, name: string): Promise<Initiator> {
  const initiator = await Initiator.open({
    port: portal.port,
    targetName: TARGET,
    initiatorName: `${INITIATOR_NAME}-${name}`,
  })
  for (const lun of [0, THIN]) await initiator.scsi({ cdb: Buffer.alloc(6), lun })
  return initiator
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/**
 * Writes to the thin device, as an initiator does it: what is TASK SET FULL is sent again when another one has ended, as
 * Linux does, or after a second; a unit attention at once.
 */
class ThinWrites {
  readonly #initiator: Initiator
  readonly #onEnd = new Set<() => void>()
  /** Answers of TASK SET FULL. */
  refused = 0

  constructor(initiator: Initiator) {
    this.#initiator = initiator
  }

  /** Resolves to the additional sense code, 0 for GOOD. */
  async write(chunk: number): Promise<number> {
    const cdb = write10((chunk * CHUNK) / 512, (256 * KIB) / 512)
    const write = Buffer.alloc(256 * KIB, 1)
    for (;;) {
      const { status, sense } = await this.#initiator.scsi({ cdb, lun: THIN, write })
      if (status === TASK_SET_FULL) {
        this.refused++
        await this.#anotherEnds()
      } else if (sense?.key !== 6) {
        for (const resolve of this.#onEnd) resolve()
        return sense?.code ?? 0
      }
    }
  }

  #anotherEnds(): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer)
        this.#onEnd.delete(end)
        resolve()
      }
      const timer = setTimeout(end, 1000)
      this.#onEnd.add(end)
    })
  }

  async fill(bytes: number): Promise<void> {
    for (let chunk = 0; chunk < bytes / CHUNK; chunk++) await this.write(chunk)
  }
}

/** Writes to LUN 0, eight at a time: statuses that are not GOOD, and how many ended in this time. */
async function rate(
  initiator: Initiator,
  ms: number,
): Promise<{ bad: Set<number>; ended: number }> {
  const endMs = performance.now() + ms
  const bad = new Set<number>()
  let ended = 0
  const lane = async (at: number): Promise<void> => {
    const cdb = write10(at * 1024, (256 * KIB) / 512)
    const write = Buffer.alloc(256 * KIB, 2)
    while (performance.now() < endMs) {
      const { status } = await initiator.scsi({ cdb, write })
      if (status === GOOD) ended++
      else bad.add(status)
    }
  }
  await Promise.all(Array.from({ length: 8 }, (_, at) => lane(at)))
  return { bad, ended }
}

t.test('other LUNs go on at their rate while many writes want space', async (t) => {
  const { portal, machine, clock } = await openFull(t)
  const one = await login(portal, 'one')
  const two = await login(portal, 'two')
  const { freeBytes = 0 } = machine.volume('thin')
  const thin = new ThinWrites(one)
  await thin.fill(freeBytes)
  t.equal(machine.volume('thin').freeBytes, 0)
  await rate(one, 300)
  const before = [await rate(one, 500), await rate(two, 500)]

  const waiting = Array.from({ length: WRITES }, (_, at) => thin.write(100 + at))
  await portal.until(() => thin.refused + portal.pool.leased >= WRITES)
  const held = portal.pool.totalBytes - portal.pool.freeBytes
  t.ok(held <= MIB, `${held} bytes of the pool are with writes that wait`)
  const during = [await rate(one, 500), await rate(two, 500)]
  for (const [at, { bad, ended }] of during.entries()) {
    const usual = before[at]?.ended ?? 0
    t.same([...bad], [], 'nothing else is refused')
    t.ok(ended > usual / 3, `${ended} writes in half a second, ${usual} before`)
  }

  clock.advance(20_000)
  t.same(new Set(await Promise.all(waiting)), new Set([0x2707]), 'all fail when the time is over')
  await one.close()
  await two.close()
  await settled(portal, t)
})

t.test('all of them go on when there is space', async (t) => {
  const { portal, machine } = await openFull(t)
  const one = await login(portal, 'one')
  const { freeBytes = 0 } = machine.volume('thin')
  const thin = new ThinWrites(one)
  await thin.fill(freeBytes)
  const waiting = Array.from({ length: 8 }, (_, at) => thin.write(100 + at))
  await pause(50)
  await machine.run('virstor.add', { name: 'thin', devices: ['d2'] })
  t.same(new Set(await Promise.all(waiting)), new Set([0]))
  await one.close()
  await settled(portal, t)
})

/**
 * When spares step in, are copied back and are tested (docs/vinum.md, 10): delays, disks that return, several faults,
 * restarts, weak disks, idle tests.
 */
import t, { type Test } from 'tap'
import { MIB, SPARE_FIRST_TEST_MS, SPARE_TEST_MS } from '../../../../src/base/limits.ts'
import { get, pattern, put } from '../../../support/engine.ts'
import { LAYOUTS, SpareRig } from '../../../support/spares.ts'

const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

const SECOND = 1000

/** The content of v, also when it has to be computed without another disk. */
async function holds(t: Test, rig: SpareRig, content: Buffer, without?: string): Promise<void> {
  if (without !== undefined) await rig.machine.pull(without)
  t.ok((await get(rig.volume, 0, content.length)).equals(content), `without ${without ?? 'none'}`)
}

async function spared(rig: SpareRig, pool: Readonly<Record<string, string>> = {}): Promise<void> {
  await rig.start(pool)
  await rig.machine.pull('d1')
  await rig.until('d7 has it', () => rig.states() === 'd7 UP, spares RESERVED AVAILABLE')
}

for (const layout of LAYOUTS) {
  t.test(`${layout}: a cable that is back within the delay costs its dirty regions`, async (t) => {
    const rig = await new SpareRig(layout).start()
    await rig.machine.pull('d1')
    await put(rig.volume, MIB, pattern(2, 4096))
    await rig.pass(25 * SECOND)
    t.equal(rig.states(), 'd1 STALE, spares AVAILABLE AVAILABLE')
    const [writesBefore, sizeBytes] = [rig.device('d1').counts.write, rig.place().length]
    await rig.machine.replug('d1')
    await rig.quiet()
    await rig.pass(60 * SECOND)
    t.equal(rig.states(), 'd1 UP, spares AVAILABLE AVAILABLE')
    const skipped = rig.machine.topology.jobs.list().at(-1)?.report()
    t.match(skipped, { state: 'done' })
    t.ok(rig.device('d1').counts.write - writesBefore < 100, `${sizeBytes} bytes were not copied`)
    t.strictSame(rig.said('spare-reserved'), [])
  })

  t.test(`${layout}: after the delay a spare steps in, once`, async (t) => {
    const rig = await new SpareRig(layout).start({ delay: '2m' })
    await rig.machine.pull('d1')
    await rig.pass(119 * SECOND)
    t.equal(rig.states(), 'd1 STALE, spares AVAILABLE AVAILABLE')
    await rig.pass(2 * SECOND)
    await rig.quiet()
    t.equal(rig.states(), 'd7 UP, spares RESERVED AVAILABLE')
    t.equal(rig.said('spare-step-in').length, 1)
    t.match(rig.said('spare-reserved'), ['spare d7 is reserved'])
    t.match(rig.machine.volume('v'), { health: 'HEALTHY' })
    await holds(t, rig, rig.content, layout === 'raid5' ? 'd3' : 'd2')
  })

  t.test(`${layout}: more than one column away gets no spare until one is back`, async (t) => {
    const rig = await new SpareRig(layout).start()
    await rig.machine.pull('d1')
    await rig.machine.pull('d2')
    await rig.pass(90 * SECOND)
    t.match(rig.column(0).drive, 'd1')
    t.equal(rig.spare('d7'), 'AVAILABLE')
    await rig.machine.replug('d2')
    await rig.until('d7 has it', () => rig.column(0).drive === 'd7')
    await rig.quiet()
    t.equal(rig.states(), 'd7 UP, spares RESERVED AVAILABLE')
    t.match(rig.machine.volume('v'), { health: 'HEALTHY' })
    await holds(t, rig, rig.content)
  })

  t.test(`${layout}: another column that went while the spare was filled is back`, async (t) => {
    const rig = await new SpareRig(layout).start()
    await rig.machine.pull('d1')
    rig.holdJobs()
    await rig.until('d7 is being filled', () => rig.states().startsWith('d7 REVIVING'))
    await rig.machine.pull('d2')
    rig.letJobs()
    await rig.until('d7 is free', () => rig.spare('d7') === 'AVAILABLE')
    await rig.machine.replug('d2')
    await rig.until('d7 has it', () => rig.states() === 'd7 UP, spares RESERVED AVAILABLE')
    await holds(t, rig, rig.content)
  })

  t.test(`${layout}: its own disk is back: copied back when somebody says so`, async (t) => {
    const rig = new SpareRig(layout)
    await spared(rig)
    await put(rig.volume, MIB, pattern(3, MIB))
    await rig.machine.replug('d1')
    await rig.pass(300 * SECOND)
    t.equal(rig.states(), 'd7 UP, spares RESERVED AVAILABLE', 'not by itself')
    await rig.machine.run('volume.create', { name: 'w', concat: ['d1'] })
    t.not(
      rig.objects('volume').at(-1)?.sizeBytes,
      rig.device('d1').media.length,
      'its place is kept',
    )
    await rig.machine.run('spare.copy-back', { volume: 'v' })
    await rig.quiet()
    t.equal(rig.states(), 'd1 UP, spares AVAILABLE AVAILABLE')
    await rig.machine.pull('d7')
    const content = Buffer.concat([rig.content.subarray(0, MIB), pattern(3, MIB)])
    await holds(t, rig, content, layout === 'raid5' ? 'd3' : 'd2')
  })

  t.test(`${layout}: automatic: after it has been back as long as the delay`, async (t) => {
    const rig = new SpareRig(layout)
    await spared(rig, { copyBack: 'automatic' })
    await rig.machine.replug('d1')
    await rig.pass(20 * SECOND)
    t.equal(rig.states(), 'd7 UP, spares RESERVED AVAILABLE')
    await rig.until('it is back', () => rig.states() === 'd1 UP, spares AVAILABLE AVAILABLE')
    await holds(t, rig, rig.content, 'd2')
  })

  t.test(`${layout}: a disk that failed while it was here is not trusted by itself`, async (t) => {
    const rig = await new SpareRig(layout).start({ copyBack: 'automatic' })
    rig.device('d1').fail('write', 'io', 1, rig.place())
    await put(rig.volume, 0, rig.content)
    await rig.until('d7 has it', () => rig.states() === 'd7 UP, spares RESERVED AVAILABLE')
    await rig.pass(600 * SECOND)
    t.equal(rig.states(), 'd7 UP, spares RESERVED AVAILABLE')
    await rig.machine.run('spare.copy-back', { volume: 'v' })
    await rig.quiet()
    t.equal(rig.states(), 'd1 UP, spares AVAILABLE AVAILABLE')
  })

  t.test(
    `${layout}: its own disk is back while the spare is filled: that ends first`,
    async (t) => {
      const rig = await new SpareRig(layout).start({ copyBack: 'automatic' })
      await rig.machine.pull('d1')
      rig.holdJobs()
      await rig.until('d7 is being filled', () => rig.states().startsWith('d7 REVIVING'))
      await rig.machine.replug('d1')
      await rig.pass(60 * SECOND)
      t.equal(rig.states(), 'd7 REVIVING, spares RESERVED AVAILABLE')
      rig.letJobs()
      await rig.until('it is back', () => rig.states() === 'd1 UP, spares AVAILABLE AVAILABLE')
      await holds(t, rig, rig.content, 'd2')
    },
  )

  t.test(`${layout}: the disk is replaced: copied back to the new one by itself`, async (t) => {
    for (const when of ['filled', 'being filled']) {
      const rig = await new SpareRig(layout).start()
      await rig.machine.pull('d1')
      if (when === 'being filled') rig.holdJobs()
      const state = when === 'filled' ? 'd7 UP' : 'd7 REVIVING'
      await rig.until(state, () => rig.states().startsWith(state))
      const plan = await rig.machine.run('volume.replace', {
        name: 'v',
        oldDrive: 'd1',
        newDevice: 'd9',
      })
      t.match(plan.steps.map(({ text }) => text).join(), when === 'filled' ? /move/ : /when job/)
      rig.letJobs()
      await rig.until('d9 has it', () => rig.states() === 'd9 UP, spares AVAILABLE AVAILABLE')
      t.notOk(rig.objects('drive').some(({ name, facts }) => name === 'd1' && facts['format']))
      await rig.machine.pull('d7')
      await holds(t, rig, rig.content, 'd2')
    }
  })

  t.test(`${layout}: killed again and again on the way, it goes on`, async (t) => {
    const rig = await new SpareRig(layout).start({ copyBack: 'automatic' })
    const { machine } = rig
    const others = ['d2', 'd3', 'd4', 'd5', 'd6', 'd7', 'd8', 'd9']
    const restart = async (names: readonly string[]): Promise<void> => {
      machine.kill()
      for (const name of names) await machine.plug(name)
      await machine.topology.settle()
    }
    await machine.pull('d1')
    await rig.pass(20 * SECOND)
    await restart(others)
    rig.holdJobs()
    await rig.until('d7 is being filled', () => rig.states().startsWith('d7 REVIVING'))
    await restart(others)
    t.match(rig.states(), 'd7 REVIVING, spares RESERVED AVAILABLE')
    await rig.until('d7 is filled', () => rig.states().startsWith('d7 UP'))
    machine.renew('d1')
    await restart(['d1', ...others])
    rig.holdJobs()
    await rig.until('it is being copied back', () => rig.column(0).facts['movingTo'] === 'd1')
    await restart(['d1', ...others])
    await rig.until('it is back', () => rig.states() === 'd1 UP, spares AVAILABLE AVAILABLE')
    await restart(['d1', ...others])
    await rig.pass(60 * SECOND)
    await rig.quiet()
    t.equal(rig.states(), 'd1 UP, spares AVAILABLE AVAILABLE')
    await holds(t, rig, rig.content, 'd2')
  })

  t.test(`${layout}: the spare fails in service, and is the last one`, async (t) => {
    const rig = await new SpareRig(layout).start({}, ['d7'])
    await rig.machine.pull('d1')
    await rig.until('d7 has it', () => rig.states().startsWith('d7 UP'))
    // Written since: the disk of the column has missed all of it.
    const content = pattern(5, 2 * MIB)
    await put(rig.volume, 0, content)
    await rig.pass(20 * SECOND)
    await rig.machine.pull('d7')
    await rig.until('it is given back', () => rig.states() === 'd1 STALE, spares BROKEN NONE')
    await rig.machine.replug('d1')
    await rig.quiet()
    t.equal(rig.states(), 'd1 UP, spares BROKEN NONE')
    await holds(t, rig, content, 'd2')
    await rig.machine.replug('d7')
    await rig.quiet()
    t.equal(rig.spare('d7'), 'BROKEN', 'until somebody has looked at it')
    await rig.machine.run('spare.enable', { drive: 'd7' })
    t.equal(rig.spare('d7'), 'AVAILABLE')
  })

  t.test(
    `${layout}: a spare that fails a write in service gives way to the next one`,
    async (t) => {
      const rig = new SpareRig(layout)
      await spared(rig)
      rig.device('d7').fail('write', 'io', 1, rig.place())
      await put(rig.volume, 0, rig.content)
      await rig.until('d8 has it', () => rig.states() === 'd8 UP, spares BROKEN RESERVED')
      t.match(rig.said('spare-broken')[0], /spare d7 is broken: .*injected fault/)
      await rig.machine.replug('d1')
      await rig.machine.run('spare.copy-back', { volume: 'v' })
      await rig.quiet()
      t.equal(rig.states(), 'd1 UP, spares BROKEN AVAILABLE', 'it still knows where it comes from')
    },
  )

  t.test(
    `${layout}: a check gives way, and a new spare is taken as soon as it is there`,
    async (t) => {
      const rig = await new SpareRig(layout).start({}, [])
      rig.holdJobs()
      await rig.machine.run('volume.scrub', { name: 'v' })
      rig.device('d1').fail('write', 'io', 1, rig.place())
      await put(rig.volume, 0, rig.content)
      await rig.pass(60 * SECOND)
      t.equal(rig.states(), 'd1 STALE, spares NONE NONE')
      t.match(rig.said('spare-waits'), [/gets no spare: pool p has no spares/], 'told once')
      await rig.machine.run('spare.add', { pool: 'p', devices: ['d7'] })
      await rig.pass(SECOND)
      t.equal(rig.states(), 'd7 REVIVING, spares RESERVED NONE')
      rig.letJobs()
      await rig.quiet()
      t.equal(rig.states(), 'd7 UP, spares RESERVED NONE')
    },
  )

  t.test(`${layout}: a disk that can hardly be read is copied away before it fails`, async (t) => {
    const rig = await new SpareRig(layout).start()
    const place = rig.place()
    for (let times = 0; times < 64; times++) {
      rig.device('d1').fail('read', 'io', 1, place)
      await rig.machine.run('volume.scrub', { name: 'v' })
      await rig.quiet()
    }
    await rig.until('d7 has it', () => rig.states() === 'd7 UP, spares RESERVED AVAILABLE')
    t.equal(rig.said('spare-copy-away').length, 1)
    await rig.pass(600 * SECOND)
    t.equal(rig.states(), 'd7 UP, spares RESERVED AVAILABLE', 'and not back by itself')
    await holds(t, rig, rig.content, 'd2')
  })
}

t.test('one spare, two volumes: the second one takes it when it is free', async (t) => {
  const rig = await new SpareRig('raid5').start({}, ['d7'])
  const { machine } = rig
  await machine.run('volume.set', { name: 'other', sparePool: 'p' })
  await machine.pull('d4')
  await rig.until('other has it', () => rig.spare('d7') === 'RESERVED')
  await rig.quiet()
  await machine.pull('d1')
  await rig.pass(120 * SECOND)
  t.equal(rig.states(), 'd1 STALE, spares RESERVED NONE')
  t.match(rig.said('spare-waits').at(-1), /pool p has no spare that is available/)
  await machine.replug('d4')
  await machine.run('spare.copy-back', { volume: 'other' })
  await rig.until('v has it', () => rig.states() === 'd7 UP, spares RESERVED NONE')
  await holds(t, rig, rig.content)
})

t.test('idle spares are tested each day', async (t) => {
  const rig = await new SpareRig('raid5').start()
  const before = { ...rig.device('d7').counts }
  await rig.pass(SPARE_FIRST_TEST_MS + 120 * SECOND)
  await rig.pass(120 * SECOND)
  t.ok(rig.device('d7').counts.read > before.read, 'soon after the start')
  t.equal(rig.spare('d7'), 'AVAILABLE')
  rig.device('d7').fail('read', 'io')
  for (let hours = 0; hours < 23; hours++) await rig.pass(3_600 * SECOND)
  t.equal(rig.spare('d7'), 'AVAILABLE', 'not yet')
  await rig.pass(SPARE_TEST_MS)
  await rig.pass(120 * SECOND)
  t.equal(rig.spare('d7'), 'BROKEN')
  t.match(rig.said('spare-broken'), [/spare d7 is broken: a test failed: .*injected fault/])
  const pool = rig.objects('pool')[0]
  t.match(pool, { health: 'DEGRADED', action: /plexus spare enable d7/ })
  await rig.machine.pull('d1')
  await rig.until('d8 has it', () => rig.states() === 'd8 UP, spares BROKEN RESERVED')
  await rig.pass(2 * SPARE_TEST_MS)
  await holds(t, rig, rig.content)
})

t.test('what is broken stays so over a restart', async (t) => {
  const rig = await new SpareRig('mirror').start()
  rig.device('d7').fail('write', 'io', 1, { offset: MIB, length: 12 * MIB })
  await rig.machine.pull('d1')
  await rig.until('d8 has it', () => rig.states() === 'd8 UP, spares BROKEN RESERVED')
  await rig.machine.shutDown()
  await rig.machine.start()
  await rig.quiet()
  t.equal(rig.states(), 'd8 UP, spares BROKEN RESERVED')
})

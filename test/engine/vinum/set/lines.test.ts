/**
 * Sets whose drives were used apart from each other, or are older copies, and sets with a witness: who is served, who is
 * filled as a whole, what an operator is told. The rules are tested in anchor/anchor-quorum.test.ts and test/model.
 */
import t from 'tap'
import { defined } from '../../../../src/base/assert.ts'
import { PlexusError } from '../../../../src/base/errors.ts'
import { MIB, WITNESS_PROBE_MS, WITNESS_WRITE_MS } from '../../../../src/base/limits.ts'
import { flush, get, Machine, Notes, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import { ManualClock } from '../../../support/manual-clock.ts'
import { absentIn, drivesIn } from '../../../support/objects.ts'
import { readAnchor } from '../../../support/read-anchor.ts'

/** A mirror m of two drives that holds pattern 1. */
async function mirror(witness?: Notes): Promise<Machine> {
  const machine = await new Machine({ devices: 2, ...(witness ? { witness } : {}) }).start()
  await machine.run('volume.create', { name: 'm', mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  await store(machine, 1)
  return machine
}

async function store(machine: Machine, seed: number): Promise<void> {
  const volume = machine.open('m')
  await put(volume, 0, pattern(seed, MIB), true)
  await flush(volume)
  await volume.close()
}

/** What each of several reads in turn finds: with two copies, both of them. */
async function found(machine: Machine): Promise<readonly number[]> {
  const volume = machine.open('m')
  const seeds = new Set<number>()
  for (let turn = 0; turn < 4; turn++) {
    const bytes = await get(volume, 0, MIB)
    seeds.add([1, 2, 3, 4].find((seed) => bytes.equals(pattern(seed, MIB))) ?? 0)
  }
  await volume.close()
  return [...seeds]
}

function said(machine: Machine, event: string): string[] {
  const { history } = machine.topology.events
  return history.filter((one) => one.event === event).map(({ message }) => message)
}

/** d1 goes on alone and has pattern 2; then the set is forced on d2 alone, and has pattern 3. */
async function usedApart(): Promise<Machine> {
  const machine = await mirror()
  await machine.pull('d2')
  await store(machine, 2)
  await machine.shutDown()
  await machine.start(['d2'])
  await machine.run('vinum.assemble', { force: true })
  await store(machine, 3)
  return machine
}

t.test('the newer half comes back to a set that was forced without it', async (t) => {
  const machine = await usedApart()
  await machine.plug('d1')
  await machine.jobsDone()
  t.match(said(machine, 'drive-apart'), [/d1 was used apart .*vinum assemble --from d2/])
  t.equal(machine.volume('m').health, 'DEGRADED', 'it is not taken by itself')
  const note = /d1 was used apart from its set.*vinum assemble --from d2/
  t.match(drivesIn(machine.topology).at(-1), { name: 'd1', state: 'APART', note })
  t.match(
    drivesIn(machine.topology).filter(({ health }) => health),
    [{ name: 'd1', health: 'DEGRADED', status: /used apart/, action: /assemble --from d2/ }],
  )
  t.strictSame(await found(machine), [3])
  await machine.run('vinum.assemble', { from: 'd2' })
  await machine.jobsDone()
  t.equal(machine.volume('m').health, 'HEALTHY')
  t.strictSame(await found(machine), [3], 'it was filled as a whole')
  await machine.shutDown()
  await machine.start()
  t.strictSame(await found(machine), [3])
})

t.test('both are there at the next start: an operator says which one is right', async (t) => {
  for (const [name, seed] of [
    ['d1', 2],
    ['d2', 3],
  ] as const) {
    const machine = await usedApart()
    await machine.shutDown()
    await machine.start()
    t.throws(() => machine.volume('m'), 'neither is served by itself')
    t.match(said(machine, 'set-incomplete'), [/used apart from each other.*--from d[12]/])
    t.match(absentIn(machine.topology), [
      { health: 'FAULTED', status: /used apart from each other/, action: /--from d1.* --from d2/ },
    ])
    t.match(await failureOf(machine.run('vinum.assemble', { force: true })), {
      message: /used apart from each other: .*--from d1, or plexus vinum assemble --from d2/,
    })
    await machine.run('vinum.assemble', { from: name })
    await machine.jobsDone()
    t.equal(machine.volume('m').health, 'HEALTHY')
    t.strictSame(await found(machine), [seed], `as ${name} has it`)
    await machine.shutDown()
    await machine.start()
    t.strictSame(await found(machine), [seed], 'it stays so')
  }
})

t.test('both halves were forced', async (t) => {
  const machine = await mirror()
  for (const [name, seed] of [
    ['d1', 2],
    ['d2', 3],
  ] as const) {
    await machine.shutDown()
    await machine.start([name])
    await machine.run('vinum.assemble', { force: true })
    await store(machine, seed)
  }
  await machine.shutDown()
  await machine.start()
  t.throws(() => machine.volume('m'))
  t.match(said(machine, 'set-incomplete'), [/used apart from each other/])
  await machine.run('vinum.assemble', { from: 'd1' })
  await machine.jobsDone()
  t.strictSame(await found(machine), [2])
})

t.test('a drive that was put back to an older image is filled as a whole', async (t) => {
  const machine = await mirror()
  await machine.shutDown()
  const image = Buffer.from(machine.device('d2').media)
  await machine.start()
  await store(machine, 2)
  await machine.shutDown()
  image.copy(machine.device('d2').media)
  await machine.start()
  await machine.jobsDone()
  t.match(said(machine, 'drive-up'), [/an older copy of it/])
  t.equal(machine.volume('m').health, 'HEALTHY')
  t.strictSame(await found(machine), [2])
})

t.test('the image is put back while the set runs without the drive', async (t) => {
  const machine = await mirror()
  await machine.shutDown()
  const image = Buffer.from(machine.device('d2').media)
  await machine.start()
  await store(machine, 2)
  await machine.pull('d2')
  image.copy(machine.device('d2').media)
  await machine.replug('d2')
  await machine.jobsDone()
  t.equal(machine.volume('m').health, 'HEALTHY')
  t.strictSame(await found(machine), [2])
})

t.test('a drive comes back that cannot read either of its slots', async (t) => {
  const machine = await mirror()
  await machine.pull('d2')
  await store(machine, 2)
  machine.renew('d2')
  const device = machine.device('d2')
  for (const { offset } of defined(await readAnchor(device), 'its anchor').slots) {
    device.media.fill(0, offset, offset + 4096)
  }
  await machine.plug('d2')
  await machine.jobsDone()
  t.equal(machine.volume('m').health, 'HEALTHY')
  t.strictSame(await found(machine), [2])
})

t.test('a mirror with a witness: one disk is dead at the start', async (t) => {
  const machine = await mirror(new Notes())
  await machine.shutDown()
  await machine.start(['d2'])
  t.equal(machine.volume('m').health, 'DEGRADED', 'served without a verb')
  await store(machine, 2)
  await machine.shutDown()
  await machine.start(['d1'])
  t.throws(() => machine.volume('m'), 'the witness knows that d2 went on')
  t.match(said(machine, 'set-incomplete'), [/1 drive is missing: d2/])
  await machine.plug('d2')
  await machine.jobsDone()
  t.equal(machine.volume('m').health, 'HEALTHY')
  t.strictSame(await found(machine), [2])
})

t.test('the witness knows that the half which is left is the older one', async (t) => {
  const machine = await mirror(new Notes())
  await machine.pull('d2')
  await store(machine, 2)
  await machine.shutDown()
  await machine.start(['d2'])
  t.equal(machine.topology.providers.has('m'), false, 'it does not start by itself')
  await machine.run('vinum.assemble', { force: true })
  t.strictSame(await found(machine), [1], 'the word of an operator is enough')
  machine.cut()
  await machine.start(['d2'])
  t.strictSame(await found(machine), [1], 'and holds, whatever the witness knew before')
  await machine.plug('d1')
  await machine.jobsDone()
  t.match(said(machine, 'drive-apart'), [/d1 was used apart/])
})

t.test('what an operator has forced holds, although the witness had voted for more', async (t) => {
  const machine = await new Machine({ devices: 4, witness: new Notes() }).start()
  await machine.run('volume.create', { name: 'm', mirror: ['d1', 'd2', 'd3', 'd4'] })
  await machine.jobsDone()
  await store(machine, 1)
  await machine.pull('d4')
  await machine.pull('d3')
  await store(machine, 2)
  await machine.shutDown()
  await machine.start(['d4'])
  await machine.run('vinum.assemble', { force: true })
  machine.cut()
  await machine.start(['d4'])
  t.strictSame(await found(machine), [1])
})

t.test('a witness is lost, or does not know of the last commits', async (t) => {
  const notes = new Notes()
  const machine = await mirror(notes)
  const old = new Map(notes.notes)
  await machine.pull('d1')
  await store(machine, 2)
  await machine.shutDown()
  notes.notes.clear()
  await machine.start(['d1'])
  t.throws(() => machine.volume('m'), 'as without a witness')
  await machine.shutDown()
  await machine.start(['d2'])
  t.equal(machine.volume('m').health, 'DEGRADED', 'd2 is all of its set')
  t.strictSame(await found(machine), [2])
  await machine.shutDown()
  t.equal(old.size, 1)
})

t.test('a witness that cannot be written leaves, and comes back', async (t) => {
  const notes = new Notes()
  const machine = await mirror(notes)
  notes.failure = new PlexusError('io', { op: 'write', subject: 'w', message: 'read-only' })
  await machine.run('volume.set', { name: 'm', readPolicy: 'least-queue' })
  t.match(said(machine, 'witness-lost'), [/has no witness: read-only/])
  t.equal(machine.volume('m').health, 'HEALTHY')
  await machine.shutDown()
  await machine.start(['d2'])
  t.throws(() => machine.volume('m'), 'it did not take the last commit: d1 may have gone on')
  await machine.shutDown()
  notes.failure = undefined
  await machine.start()
  await machine.shutDown()
  await machine.start(['d2'])
  t.equal(machine.volume('m').health, 'DEGRADED', 'it votes again')
})

t.test('a folder of the witness that does not answer holds no change up', async (t) => {
  class Slow extends Notes {
    readonly waiting: (() => void)[] = []
    slow = false

    override async write(setUuid: string, note: string): Promise<void> {
      if (this.slow) await new Promise<void>((resolve) => this.waiting.push(resolve))
      await super.write(setUuid, note)
    }
  }
  const notes = new Slow()
  const clock = new ManualClock()
  const machine = await new Machine({ devices: 2, witness: notes, clock }).start()
  const ended = async (work: Promise<unknown>): Promise<boolean> => {
    let isOver = false
    const over = (): void => {
      isOver = true
    }
    work.then(over, over)
    for (let ms = 0; ms < 2 * WITNESS_WRITE_MS && !isOver; ms += 100) {
      for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
      if (!isOver) clock.advance(100)
    }
    return isOver
  }
  t.ok(await ended(machine.run('volume.create', { name: 'm', mirror: ['d1', 'd2'] })))
  t.ok(await ended(machine.jobsDone()))
  const before = [...notes.notes.values()]
  notes.slow = true
  const change = (readPolicy: string) => machine.run('volume.set', { name: 'm', readPolicy })
  t.ok(await ended(change('least-queue')), 'it goes on without the witness')
  t.match(said(machine, 'witness-lost'), [/has no witness: .*write has not ended within 3 s/])
  t.ok(await ended(change('round-robin')))
  t.equal(notes.waiting.length, 1, 'and asks it no more')
  t.strictSame([...notes.notes.values()], before)
  notes.slow = false
  for (const go of notes.waiting) go()
  clock.advance(WITNESS_PROBE_MS)
  t.ok(await ended(change('least-queue')))
  t.not(`${[...notes.notes.values()]}`, `${before}`, 'it votes again')
  t.match(said(machine, 'witness-lost').length, 1)
})

t.test('a note that is not one is lost', async (t) => {
  const notes = new Notes()
  const machine = await mirror(notes)
  for (const note of ['null', '{"id":1,"commits":[]}', '{"id":"a","commits":[{"line":"b"}]}']) {
    await machine.shutDown()
    for (const uuid of notes.notes.keys()) notes.notes.set(uuid, note)
    await machine.start()
    t.equal(machine.volume('m').health, 'HEALTHY', note)
  }
})

/** The lists of vinum: objects of a type or of all, with what is below them and their free extents. */
import t from 'tap'
import { MIB } from '../../../src/base/limits.ts'
import { Machine } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'

const FILE = `
drive a device d1
drive b device d2
drive c device d3
volume db readpol prefer db.p1
  plex org striped 256k
    sd len 4m drive a
    sd len 4m drive b
  plex org concat
    sd len 8m drive c
volume solo
  plex org raid5 128k left-asymmetric
    sd len 2m drive d4
    sd len 2m drive d5
    sd len 2m drive d6
sd name spare.s0 drive d7 len 1m detached
`

t.test('lists', async (t) => {
  const machine = await new Machine({ devices: 7 }).start()
  machine.topology.jobs.limitBytesPerSecond = 64 * 1024
  await machine.run('vinum.create', { file: FILE })
  const open = machine.open('db')
  const list = async (verb: string, parameters = {}) => machine.list(verb, parameters)
  const all = await list('vinum.list')
  const ofType = (type: string) => all.filter((one) => one.type === type)
  t.strictSame(
    ['drive', 'volume', 'plex', 'subdisk', 'free'].map((type) => ofType(type).length),
    [7, 2, 3, 7, 0],
  )
  const [db] = ofType('volume')
  t.match(db, {
    name: 'db',
    className: 'vinum',
    state: 'SYNCING',
    health: 'DEGRADED',
    sizeBytes: 8 * MIB,
    facts: { plexes: 2, readPolicy: 'prefer db.p1', open: true },
  })
  t.match(ofType('plex')[2], {
    name: 'solo.p0',
    parent: 'solo',
    process: { kind: 'initialise', totalBytes: 4 * MIB },
    facts: { organization: 'raid5', parityLayout: 'left-asymmetric', subdisks: 3 },
  })
  const spare = ofType('subdisk').find((one) => one.name === 'spare.s0')
  t.match(spare, { drive: 'd7', device: 'd7', sizeBytes: MIB })
  t.equal(spare?.parent, undefined, 'a detached one is listed')

  const free = await list('vinum.ld', { freeList: true, objects: ['a'], recursive: true })
  const [a, extent] = free
  t.strictSame(
    free.map(({ type }) => type),
    ['drive', 'free'],
  )
  t.match(a, { facts: { freeBytes: (a?.sizeBytes ?? 0) - 4 * MIB, subdisks: 1, present: true } })
  t.match(extent, { parent: 'a', sizeBytes: a?.facts['freeBytes'] })

  const names = async (verb: string, parameters = {}) =>
    (await list(verb, parameters)).map(({ name }) => name)
  t.strictSame(
    await names('vinum.lv', { objects: ['solo'], recursive: true }),
    ['solo', 'solo.p0', 'solo.p0.s0', 'solo.p0.s1', 'solo.p0.s2', 'd4', 'd5', 'd6'],
    'with what is below, and the drives',
  )
  t.equal((await names('vinum.lp')).length, 3)
  t.equal((await names('vinum.ls')).length, 7)
  t.strictSame(await names('vinum.list', { objects: ['a'] }), ['a'])
  t.strictSame(await names('volume.list'), ['db', 'solo'])
  t.equal((await names('volume.show', { name: 'db' })).length, 1 + 2 + 3 + 3)
  for (const [verb, parameters] of [
    ['vinum.list', { objects: ['nope'] }],
    ['vinum.lv', { objects: ['db.p0'] }],
    ['volume.show', { name: 'db.p0' }],
  ] as const) {
    t.equal((await failureOf(machine.run(verb, parameters))).kind, 'not-found')
  }
  await open.close()
  await machine.shutDown()
})

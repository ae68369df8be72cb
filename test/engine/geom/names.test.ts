/** Names that are not free: of what is away, and of what LUNs have led to, whatever its class is. */
import t from 'tap'
import { MIB } from '../../../src/base/limits.ts'
import { Machine } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'
import { freebsdVirstor } from '../../support/freebsd-virstor.ts'

/** Each class makes something of this name on d4. */
const MAKERS: readonly (readonly [string, object])[] = [
  ['volume.create', { name: 'db', concat: ['d4'] }],
  ['virstor.create', { name: 'db', devices: ['d4'], size: '64MiB' }],
  ['nop.create', { name: 'db', provider: 'd4' }],
]

async function refusals(machine: Machine): Promise<readonly string[]> {
  return Promise.all(
    MAKERS.map(async ([verb, parameters]) => {
      const { kind, message } = await failureOf(machine.run(verb, { ...parameters }))
      return `${kind}: ${message}`
    }),
  )
}

for (const [index, [verb, parameters]] of MAKERS.slice(0, 2).entries()) {
  t.test(`${verb}: while its drives are away no class gives its name away`, async (t) => {
    const ledTo = new Map<string, string>()
    const lunNames = {
      ledTo: (name: string) => ledTo.get(name),
      release: async (names: readonly string[]) => {
        for (const name of names) ledTo.delete(name)
      },
    }
    const machine = await new Machine({ devices: 4, sizeBytes: 16 * MIB, lunNames }).start()
    const devices = ['d1', 'd2', 'd3']
    await machine.run(verb, { ...parameters, [index === 0 ? 'concat' : 'devices']: devices })
    const { uuid } = machine.volume('db')
    t.match(
      await refusals(machine),
      ['', '', ''].map(() => /exists: db (is|exists: it is)/),
    )
    await machine.shutDown()

    await machine.start(['d1', 'd4'])
    t.match(
      await refusals(machine),
      ['', '', ''].map(() => /exists: db exists already on \S+, whi/),
    )
    await machine.shutDown()

    ledTo.set('db', uuid)
    await machine.start(['d4'])
    t.match(
      await refusals(machine),
      ['', '', ''].map(() => /exists: db .*LUNs have led to it/),
    )
    await machine.shutDown()

    await machine.start()
    await machine.run(index === 0 ? 'volume.destroy' : 'virstor.destroy', { name: 'db' })
    // Of vinum's volumes it is the daemon that knows (daemon/kept-sets.ts).
    if (index === 0) ledTo.clear()
    await machine.run('nop.create', { name: 'db', provider: 'd4' })
    await machine.shutDown()
  })
}

t.test('a thin device does not take the place of what LUNs of its name have led to', async (t) => {
  const ledTo = new Map<string, string>()
  const lunNames = { ledTo: (name: string) => ledTo.get(name), release: async () => {} }
  const machine = await new Machine({ devices: 1, sizeBytes: 16 * MIB, lunNames }).start()
  await machine.run('virstor.create', { name: 'db', devices: ['d1'], size: '64MiB' })
  await machine.shutDown()
  ledTo.set('db', '6d1f2b3c-0000-4000-8000-000000000000')
  await machine.start()
  t.notOk(machine.topology.providers.has('db'))
  t.match(machine.volume('db'), { health: 'FAULTED', status: /LUNs of this name have led to/ })
  await machine.shutDown()
})

t.test("nor does one of FreeBSD's", async (t) => {
  const away = '6d1f2b3c-0000-4000-8000-000000000000'
  const ledTo = new Map([['big', away]])
  const lunNames = { ledTo: (name: string) => ledTo.get(name), release: async () => {} }
  const { machine } = freebsdVirstor({ lunNames })
  await machine.start()
  t.strictSame(
    ['big', 'big.freebsd'].map((name) => machine.topology.providers.has(name)),
    [false, true],
  )
  await machine.shutDown()
})

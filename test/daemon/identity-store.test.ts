/** Durable writes, port numbers, and state that another machine has made. src/daemon/{identity-store,identity-draft,machine-id}.ts. */
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { silentLogger } from '../../src/base/log.ts'
import type { Origin } from '../../src/daemon/identity-draft.ts'
import { IdentityStore } from '../../src/daemon/identity-store.ts'
import { machineId } from '../../src/daemon/machine-id.ts'
import type { DeviceIdentity } from '../../src/hal/block-device.ts'
import { NO_IDENTITY } from '../../src/hal/device-identity.ts'

const log = silentLogger()
const [HERE, THERE, ELSEWHERE] = ['aaaaaaaaaaaa', 'bbbbbbbbbbbb', 'cccccccccccc']
const disk = (wwid: string): DeviceIdentity => ({ ...NO_IDENTITY, wwid })

const open = (dir: string, machine?: string) =>
  IdentityStore.open({ dir, revision: '1', log, machine })

/** The identity of `name` while its device is missing, as at the beginning of a reload. */
const planned = async (store: IdentityStore, name: string, origin: Partial<Origin> = {}) => {
  const known = await store.change((draft) =>
    draft.identifyAll([name], new Set([name]), {
      movedFrom: undefined,
      copiedFrom: undefined,
      ...origin,
    }),
  )
  return known.get(name)?.serial
}

/** The identity of `name` when its device has been opened. */
const opened = async (store: IdentityStore, name: string, device: DeviceIdentity) =>
  (await store.change((draft) => draft.identify(name, device, new Set([name])))).serial

t.test('what is asked for together is written together', async (t) => {
  const dir = t.testdir()
  const file = join(dir, 'identities.json')
  const store = open(dir)
  const names = Array.from({ length: 250 }, (_, at) => `d${at}`)
  const inode = () => statSync(file).ino
  await planned(store, 'first')
  const before = inode()
  const all = Promise.all(names.map((name) => planned(store, name)))
  t.equal(inode(), before, 'nothing is written in the turn that asks')
  const serials = await all
  t.equal(new Set(serials).size, names.length)
  const { content } = JSON.parse(readFileSync(file, 'utf8'))
  t.equal(content.devices.length, 251)
  const previous = JSON.parse(readFileSync(`${file}.previous`, 'utf8'))
  t.equal(previous.content.devices.length, 1, 'one write for all of them')
  const again = await Promise.all(names.map((name) => planned(open(dir), name)))
  t.strictSame(again, serials)
})

t.test('nothing is shown that is not on disk', async (t) => {
  const dir = t.testdir()
  const store = open(dir)
  const known = await planned(store, 'known')
  // Also root cannot write there.
  mkdirSync(join(dir, 'identities.json.new'))
  const results = await Promise.allSettled([
    planned(store, 'known'),
    planned(store, 'new'),
    store.change((draft) => draft.portalTags(['san']).get('san')),
  ])
  t.match(results, [
    { status: 'fulfilled', value: known },
    { status: 'rejected', reason: { name: 'PlexusError', kind: 'io' } },
    { status: 'rejected', reason: { name: 'PlexusError' } },
  ])
  rmSync(join(dir, 'identities.json.new'), { recursive: true })
  const later = await planned(store, 'new')
  t.equal(await planned(open(dir), 'new'), later, 'the failed one left nothing behind')
})

t.test('relative target port identifiers are unique over all targets, for ever', async (t) => {
  const dir = t.testdir()
  const ids = async (store: IdentityStore, ...ports: string[]) => {
    const known = await store.change((draft) => draft.portIds(ports))
    return ports.map((port) => known.get(port))
  }
  const store = open(dir)
  t.strictSame(await ids(store, 'iqn.a p', 'iqn.a q', 'iqn.b p'), [1, 2, 3])
  t.strictSame(await ids(store, 'iqn.b q', 'iqn.a q'), [4, 2])
  t.strictSame(await ids(open(dir), 'iqn.b p'), [3], 'also after a restart')
  const many = Array.from({ length: 65_535 }, (_, at) => `iqn.c${at} p`)
  const numbers = await ids(store, ...many)
  t.equal(
    new Set(numbers).size,
    65_535,
    'when all have been used, those of ports that are gone are free',
  )
  await t.rejects(ids(store, ...many, 'iqn.d p'), { kind: 'exhausted', message: /iqn\.d p/ })
})

t.test('a copy of the state on another machine', async (t) => {
  const dir = t.testdir()
  const there = open(dir, THERE)
  const image = await planned(there, 'image')
  await opened(there, 'image', NO_IDENTITY)
  const marked = await planned(there, 'disk')
  await opened(there, 'disk', disk('naa.1'))

  const here = open(dir, HERE)
  await t.rejects(planned(here, 'image'), {
    kind: 'foreign',
    message: /image is from another machine \(b{12}\).*movedFrom: b{12}.*copiedFrom: b{12}/,
  })
  t.equal(await planned(here, 'disk'), marked)
  t.equal(await opened(here, 'disk', disk('naa.1')), marked, 'a disk that names itself is known')
  t.not(await opened(here, 'disk', disk('naa.2')), marked, 'another one is another one')
  await t.rejects(planned(here, 'image', { movedFrom: ELSEWHERE }), {
    kind: 'foreign',
    message: /image/,
  })
  t.not(await planned(here, 'image', { copiedFrom: THERE }), image, 'a new identity')
  t.not(await planned(here, 'image'), image, 'which stays without the word')
})

t.test('disks and state that have moved to another machine', async (t) => {
  const dir = t.testdir()
  const image = await planned(open(dir, THERE), 'image')
  const here = open(dir, HERE)
  t.equal(await planned(here, 'image', { movedFrom: THERE }), image)
  t.equal(await planned(open(dir, HERE), 'image'), image, 'said once is enough')
  const third = open(dir, ELSEWHERE)
  await t.rejects(
    planned(third, 'image', { movedFrom: THERE }),
    { kind: 'foreign', message: /another machine/ },
    'a word for one move',
  )
})

t.test('a device without a name of its own in the place of one that had one', async (t) => {
  const dir = t.testdir()
  const there = open(dir, THERE)
  const marked = await opened(there, 'd', disk('naa.1'))
  t.equal(
    await opened(there, 'd', NO_IDENTITY),
    marked,
    'on the same machine: it has not said it this time',
  )
  const here = open(dir, HERE)
  await t.rejects(opened(here, 'd', NO_IDENTITY), {
    kind: 'foreign',
    message: /another machine/,
    action: /movedFrom/,
    name: 'PlexusError',
  })
})

t.test('where nobody can say which machine it is, nothing is refused', async (t) => {
  const dir = t.testdir()
  const serial = await planned(open(dir), 'image')
  t.equal(await planned(open(dir, HERE), 'image'), serial, 'state from before')
  t.equal(await planned(open(dir), 'image'), serial)
  await t.rejects(
    planned(open(dir, THERE), 'image'),
    { kind: 'foreign', message: /another machine/ },
    'it is known since',
  )
})

t.test('a file that was lent to initiators on another machine is another file', async (t) => {
  const dir = t.testdir()
  const there = open(dir, THERE)
  await there.change((draft) => {
    for (const [name, device] of [
      ['image', NO_IDENTITY],
      ['disk', disk('naa.1')],
    ] as const) {
      draft.identify(name, device, new Set())
      draft.lend(name, name === 'image' ? 'file:/srv/image' : 'naa.1')
    }
  })
  t.strictSame([there.isLent('file:/srv/image'), there.isLent('naa.1')], [true, true])
  const here = open(dir, HERE)
  t.strictSame([here.isLent('file:/srv/image'), here.isLent('naa.1')], [false, true])
})

t.test('the name of a machine', async (t) => {
  const root = t.testdir({ etc: {}, run: {} })
  const write = (text: string) => writeFileSync(join(root, 'etc/machine-id'), text)
  t.equal(machineId(root), undefined, 'none')
  write('uninitialized\n')
  t.equal(machineId(root), undefined, 'an image before its first boot')
  write(`${'0123456789abcdef'.repeat(2)}\n`)
  const id = machineId(root)
  t.match(id, /^[0-9a-f]{12}$/)
  t.notOk('0123456789abcdef'.includes(id ?? ''), 'which is not shown itself')
  write(`${'fedcba9876543210'.repeat(2)}\n`)
  t.not(machineId(root), id)
  writeFileSync(join(root, 'run/machine-id'), '')
  t.equal(machineId(root), undefined, 'one that lasts until the next boot')
})

/** A class that nobody has heard of: its objects are in every view, with the columns, the words and the health that it gives. */
import t, { type Test } from 'tap'
import { z } from 'zod'
import { MIB } from '../../src/base/limits.ts'
import type { ObjectReport, ObjectType } from '../../src/control/reports.ts'
import { SIZE, STATE } from '../../src/control/reports.ts'
import type { Consumer } from '../../src/engine/geom/consumer.ts'
import type { Geom } from '../../src/engine/geom/types.ts'
import { aJob, ControlRig, runTerminal, TestTerminal } from '../support/control.ts'

const TYPES: readonly ObjectType[] = [
  {
    name: 'carpet',
    plural: 'carpets',
    columns: [
      { label: 'carpet', key: 'name' },
      STATE,
      SIZE,
      { label: 'pile', key: 'pileBytes', kind: 'size' },
      { label: 'knots', key: 'knots', kind: 'number', extra: true },
    ],
  },
  { name: 'thread', plural: 'threads', columns: [{ label: 'thread', key: 'name' }, STATE] },
]

const OBJECTS: readonly ObjectReport[] = [
  {
    type: 'carpet',
    className: 'loom',
    name: 'kilim',
    uuid: '',
    state: 'FRAYED',
    health: 'DEGRADED',
    sizeBytes: 16 * MIB,
    note: 'woven of 1 thread',
    status: 'A thread is loose.',
    action: 'plexus device list shows it',
    process: aJob({ object: 'kilim', parent: undefined, kind: 'repair' }),
    facts: { pileBytes: 2 * MIB, knots: 7 },
  },
  {
    type: 'thread',
    className: 'loom',
    name: 'kilim.t0',
    parent: 'kilim',
    uuid: '',
    state: 'LOOSE',
    sizeBytes: 16 * MIB,
    note: 'red',
    drive: 'd1',
    device: 'd1',
    facts: {},
  },
]

/** What the control protocol says of an object, whatever its class. */
const objectSchema = z.strictObject({
  type: z.string().min(1),
  className: z.string().min(1),
  name: z.string().min(1),
  uuid: z.string(),
  set: z.string().optional(),
  parent: z.string().optional(),
  state: z.string().regex(/^[A-Z -]+$/),
  health: z.enum(['HEALTHY', 'DEGRADED', 'FAULTED']).optional(),
  sizeBytes: z.number(),
  note: z.string(),
  status: z.string().optional(),
  action: z.string().optional(),
  errors: z.strictObject({ read: z.number(), write: z.number(), parity: z.number() }).optional(),
  process: z.looseObject({ id: z.string(), doneBytes: z.number() }).optional(),
  drive: z.string().optional(),
  device: z.string().optional(),
  lastDevice: z.string().optional(),
  facts: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
  exported: z.array(z.looseObject({ target: z.string() })).optional(),
})

/** A rig with the class loom, whose carpet kilim is a provider over d1. */
async function rig(t: Test): Promise<ControlRig> {
  const made = await new ControlRig([], 'loom').start()
  t.teardown(() => made.stop())
  made.fake.types = TYPES
  made.fake.objects = OBJECTS
  const { topology } = made
  await topology.change(async () => {
    const consumers: Consumer[] = []
    const geom: Geom = {
      name: 'loom1',
      className: 'loom',
      providers: [],
      consumers,
      start: (request) => queueMicrotask(() => request.complete(undefined)),
      orphan: () => {},
      wither: async () => {},
    }
    const below = topology.find('d1')
    consumers.push(topology.attach(below, geom, 'loom', { read: 1, write: 0, exclusive: 0 }))
    const { geometry, identity, features } = below
    const provider = topology.makeProvider(geom, { name: 'kilim', geometry, identity, features })
    Object.assign(geom, { providers: [provider] })
    topology.addGeom(geom)
  })
  return made
}

t.test('status, tree, list, wait and stat show it', async (t) => {
  const made = await rig(t)
  const status = await made.cli(['status', 'kilim'])
  t.equal(
    status.out,
    `  carpet: kilim     state: FRAYED   16 MiB woven of 1 thread
  status: A thread is loose.
  action: plexus device list shows it
  repair: [########>-----------]  41.2%  768 GiB of 1.82 TiB   212 MiB/s   1h 28m to go
  NAME            STATE   PATHS  NOTE
  kilim           FRAYED
    kilim.t0  d1  LOOSE   1/1    red
`,
  )
  t.match(await made.cli(['status', 'kilim.t0']), { out: status.out }, 'by a part of it, too')
  t.equal((await made.cli(['status', 'kilim', '--check'])).exit, 10)
  const { objects } = JSON.parse((await made.cli(['status', '--json'])).out)
  t.match(objects, [{ name: 'kilim', facts: { pileBytes: 2 * MIB } }, { parent: 'kilim' }])

  t.match(await made.cli(['tree']), { out: /d1 \[LOOSE\] ── disk ──+ loom ── kilim \[FRAYED\]\n/ })

  t.equal(
    (await made.cli(['list', 'carpet'])).out,
    `CARPET  STATE     SIZE   PILE
kilim   FRAYED  16 MiB  2 MiB
`,
  )
  t.match(await made.cli(['list']), { out: /^CARPET.*\n.*\n\nTHREAD +STATE\nkilim.t0 +LOOSE\n$/ })
  t.match(await made.cli(['list', 'carpets', 'kilim', '-r']), { out: /kilim\.t0/ })
  t.match(await made.cli(['list', 'carpet', '-o', 'knots', '--no-headings']), { out: '7\n' })
  t.match(await made.cli(['list', 'rug']), {
    exit: 4,
    err: /no type "rug"; there are: carpet, thr/,
  })
  t.match(await made.cli(['list', 'carpet', 'kilin']), { exit: 4, err: /did you mean "kilim"/ })

  t.match(await made.cli(['stat', '-I', '1ms']), { exit: 0, out: /^kilim +0 /m })

  let end = (): void => {}
  const gate = new Promise<void>((resolve) => {
    end = resolve
  })
  const nothing = async (): Promise<void> => {}
  made.topology.jobs.start({
    id: 'j9',
    kind: 'repair',
    object: 'kilim.t0',
    parent: 'kilim',
    totalBytes: 1,
    startBytes: 0,
    step: () => gate.then(() => 1),
    checkpoint: nothing,
    finish: nothing,
    abandon: nothing,
  })
  t.match(await made.cli(['wait', 'kilim', '--now']), { exit: 7, err: /jobs of kilim still run/ })
  const waiting = made.cli(['wait', 'kilim'])
  end()
  t.match(await waiting, { exit: 0 })
  t.equal((await made.cli(['wait', 'kelim'])).exit, 4)

  const words = ['__complete', '--socket', made.dir, '--', 'list', '']
  t.match(await runTerminal(words, new TestTerminal()), { out: 'carpet\nthread\n' })
})

t.test('objects have the shape of the control protocol', async (t) => {
  const made = await rig(t)
  const { objects } = JSON.parse((await made.cli(['status', '--json'])).out)
  for (const one of objects) t.match(objectSchema.safeParse(one), { success: true }, one.name)
})

/** Whatever verbs follow each other, the configuration is sound, and no volume in use loses data by them. */
import fc from 'fast-check'
import t from 'tap'
import { PlexusError } from '../../../../src/base/errors.ts'
import type { VerbParameters } from '../../../../src/engine/geom/types.ts'
import { firstUncovered } from '../../../../src/engine/vinum/coverage.ts'
import { VerbBench } from '../../../support/vinum-verbs.ts'

type Call =
  | { readonly words: string; readonly parameters: VerbParameters }
  | { readonly words: 'settle' | 'open'; readonly parameters: { readonly pick: string } }

const device = fc.integer({ min: 1, max: 9 }).map((number) => `d${number}`)
const devices = fc.uniqueArray(device, { minLength: 1, maxLength: 4 })
const volume = fc.constantFrom('u', 'v', 'w')
const plex = fc.tuple(volume, fc.integer({ min: 0, max: 2 })).map(([one, n]) => `${one}.p${n}`)
const subdisk = fc.tuple(plex, fc.integer({ min: 0, max: 3 })).map(([one, n]) => `${one}.s${n}`)
const object = fc.oneof(volume, plex, subdisk, device)
const flags = fc.record({ force: fc.boolean(), recursive: fc.boolean() })

function call(words: string, parameters: fc.Arbitrary<object>): fc.Arbitrary<Call> {
  return parameters.map((one) => ({ words, parameters: one as VerbParameters }))
}

/** Weights lead to volumes that live for a while. */
const calls = fc.oneof(
  { weight: 3, arbitrary: fc.constant<Call>({ words: 'settle', parameters: { pick: '' } }) },
  { weight: 1, arbitrary: volume.map<Call>((pick) => ({ words: 'open', parameters: { pick } })) },
  ...(['concat', 'stripe', 'mirror', 'raid5'] as const).map((layout) => ({
    weight: 2,
    arbitrary: call(
      'volume create',
      fc
        .tuple(volume, devices, fc.constantFrom('3MiB', '16MiB', '500MiB'))
        .map(([name, list, size]) => ({ name, [layout]: list, size })),
    ),
  })),
  { weight: 2, arbitrary: call('volume grow', fc.record({ name: volume, devices })) },
  { weight: 1, arbitrary: call('vinum grow', fc.record({ plex, devices })) },
  { weight: 2, arbitrary: call('volume add-mirror', fc.record({ name: volume, devices })) },
  { weight: 1, arbitrary: call('volume remove-mirror', fc.record({ name: volume, plex })) },
  {
    weight: 3,
    arbitrary: call(
      'volume replace',
      fc.record({ name: volume, oldDrive: device, newDevice: device }),
    ),
  },
  {
    weight: 3,
    arbitrary: call(
      'vinum detach',
      fc.record({ object: fc.oneof(plex, subdisk), force: fc.boolean() }),
    ),
  },
  {
    weight: 4,
    arbitrary: call(
      'vinum attach',
      fc
        .tuple(fc.oneof(plex, subdisk), fc.oneof(volume, plex), fc.boolean())
        .map(([one, parent, rename]) => ({
          object: one,
          parent,
          details: rename ? ['rename'] : [],
        })),
    ),
  },
  {
    weight: 2,
    arbitrary: call(
      'vinum move',
      fc
        .tuple(device, subdisk, fc.boolean())
        .map(([drive, one, force]) => ({ drive, subdisks: [one], force })),
    ),
  },
  {
    weight: 2,
    arbitrary: call(
      'vinum rm',
      fc.tuple(object, flags).map(([one, wish]) => ({ objects: [one], ...wish })),
    ),
  },
  { weight: 1, arbitrary: call('vinum rename', fc.record({ from: object, to: volume })) },
  {
    weight: 1,
    arbitrary: call(
      'vinum start',
      object.map((one) => ({ objects: [one] })),
    ),
  },
  { weight: 1, arbitrary: call('volume scrub', fc.record({ name: volume })) },
  {
    weight: 1,
    arbitrary: call(
      'vinum setstate',
      fc.record({
        state: fc.constantFrom('up', 'down', 'stale'),
        object,
        force: fc.boolean(),
      }),
    ),
  },
)

/** Volumes in use whose every byte has a valid copy. */
function servingOpen(bench: VerbBench): readonly string[] {
  return bench.model.volumes
    .filter((one) => bench.open.has(one.uuid) && firstUncovered(bench.model, one) === undefined)
    .map((one) => one.uuid)
}

t.test('any sequence of verbs keeps the configuration sound', async (t) => {
  let planned = 0
  let refused = 0
  fc.assert(
    fc.property(fc.array(calls, { minLength: 4, maxLength: 24 }), fc.integer(), (list, seed) => {
      const bench = new VerbBench(String(seed))
      for (const { words, parameters } of list) {
        if (words === 'settle') {
          bench.settle()
          continue
        }
        if (words === 'open') {
          const one = bench.model.volumes.find(({ name }) => name === parameters['pick'])
          if (one) bench.open.add(one.uuid)
          continue
        }
        const serving = servingOpen(bench)
        try {
          // Checks what was planned by writing and reading it as on disk.
          bench.run(words, parameters)
          planned++
        } catch (error) {
          if (!(error instanceof PlexusError) || error.kind === 'corrupt') throw error
          refused++
        }
        // Only an order that names the state and is forced may take a volume away from those who use it.
        if (words === 'vinum setstate') continue
        const after = servingOpen(bench)
        const lost = serving.find((one) => !after.includes(one))
        if (lost !== undefined)
          throw new Error(`${words} ${JSON.stringify(parameters)} lost ${lost}`)
      }
    }),
    { numRuns: 400 },
  )
  t.ok(planned > 500, `${planned} verbs took effect`)
  t.ok(refused > 500, `${refused} were refused`)
})

/** Whatever verbs follow each other, the configuration is sound, and no volume in use loses data by them. */
import fc from 'fast-check'
import t from 'tap'
import { PlexusError } from '../../../../src/base/errors.ts'
import type { VerbParameters } from '../../../../src/engine/geom/types.ts'
import { firstUncovered } from '../../../../src/engine/vinum/model/coverage.ts'
import { allNames } from '../../../../src/engine/vinum/verbs/lookup.ts'
import { VerbBench } from '../../../support/vinum-verbs.ts'

/** What one call chooses with: numbers that pick from what exists when it is made. */
interface Dice {
  readonly a: number
  readonly b: number
  readonly c: number
  readonly yes: boolean
  readonly no: boolean
}

function pick<T>(from: readonly T[], number: number, otherwise: T): T {
  return from[number % from.length] ?? otherwise
}

const named = (records: readonly { readonly name: string }[], number: number): string =>
  pick(
    records.map((one) => one.name),
    number,
    'none',
  )

/** One to four devices in a row, from any of them on. */
const someDevices = (a: number, b: number): readonly string[] =>
  Array.from({ length: 1 + (b % 4) }, (_, index) => `d${1 + ((a + index) % 12)}`)

const volumeOf = ({ model }: VerbBench, number: number) => named(model.volumes, number)
const plexOf = ({ model }: VerbBench, number: number) => named(model.plexes, number)
const subdiskOf = ({ model }: VerbBench, number: number) => named(model.subdisks, number)
const anyOf = ({ model }: VerbBench, number: number) => pick(allNames(model), number, 'none')
const SIZES = ['3MiB', '16MiB', '200MiB']
const LAYOUTS = ['concat', 'stripe', 'mirror', 'raid5']

const CALLS: Readonly<Record<string, (bench: VerbBench, dice: Dice) => VerbParameters>> = {
  'volume create': (_, { a, b, c }) => ({
    name: pick(['u', 'v', 'w', 'x'], a, 'u'),
    size: pick(SIZES, b, '3MiB'),
    [pick(LAYOUTS, c, 'concat')]: someDevices(b, a + c),
  }),
  'volume grow': (bench, { a, b, c }) => ({ name: volumeOf(bench, a), devices: someDevices(b, c) }),
  'vinum grow': (bench, { a, b, c }) => ({
    plex: plexOf(bench, a),
    devices: someDevices(b, c % 2),
  }),
  'volume add-mirror': (bench, { a, b, c }) => ({
    name: volumeOf(bench, a),
    devices: someDevices(b, c % 2),
  }),
  'volume remove-mirror': (bench, { a, b }) => ({
    name: volumeOf(bench, a),
    plex: plexOf(bench, b),
  }),
  'volume replace': (bench, { a, b, c }) => ({
    name: volumeOf(bench, a),
    oldDrive: named(bench.model.drives, b),
    newDevice: `d${1 + (c % 12)}`,
  }),
  'vinum detach': (bench, { a, b, yes }) => ({
    object: b % 2 === 0 ? plexOf(bench, a) : subdiskOf(bench, a),
    force: yes,
  }),
  'vinum attach': ({ model }, { a, b, c, yes, no }) => {
    const details = no ? ['rename'] : []
    const [plexes, subdisks] = [
      model.plexes.filter((one) => one.volumeUuid === undefined),
      model.subdisks.filter((one) => one.plexUuid === undefined),
    ]
    return yes
      ? { object: named(plexes, a), parent: named(model.volumes, b), details }
      : { object: named(subdisks, a), parent: named(model.plexes, b + c), details }
  },
  'vinum move': (bench, { a, b, yes }) => ({
    drive: `d${1 + (a % 12)}`,
    subdisks: [subdiskOf(bench, b)],
    force: yes,
  }),
  'vinum rm': (bench, { a, yes, no }) => ({
    objects: [anyOf(bench, a)],
    recursive: yes,
    force: no,
  }),
  'vinum rename': (bench, { a, b, yes }) => ({
    from: anyOf(bench, a),
    to: `n${b % 3}${pick(['', '.p1', '.p1.s2'], b, '')}`,
    recursive: yes,
  }),
  'vinum start': (bench, { a }) => ({ objects: [anyOf(bench, a)] }),
  'volume scrub': (bench, { a, yes }) => ({ name: volumeOf(bench, a), repair: yes }),
  'volume set': (bench, { a, b }) => ({
    name: volumeOf(bench, a),
    readPolicy: 'prefer',
    plex: plexOf(bench, b),
  }),
  'vinum setstate': (bench, { a, b, yes }) => ({
    state: pick(['up', 'down', 'stale'], b, 'up'),
    object: anyOf(bench, a),
    force: yes,
  }),
  'volume destroy': (bench, { a }) => ({ name: volumeOf(bench, a) }),
}

/** What happens beside the verbs. */
const EVENTS: Readonly<Record<string, (bench: VerbBench, dice: Dice) => void>> = {
  'jobs end': (bench) => bench.settle(),
  'jobs end again': (bench) => bench.settle(),
  open: ({ model, open }, { a }) => {
    const one = pick(model.volumes, a, undefined)
    if (one) open.add(one.uuid)
  },
  close: ({ open }) => open.clear(),
}

/** Volumes in use whose every byte has a valid copy. */
function servingOpen({ model, open }: VerbBench): readonly string[] {
  return model.volumes
    .filter((one) => open.has(one.uuid) && one.sizeBytes > 0)
    .filter((one) => firstUncovered(model, one) === undefined)
    .map((one) => one.uuid)
}

const dice: fc.Arbitrary<Dice> = fc.record({
  a: fc.nat(99),
  b: fc.nat(99),
  c: fc.nat(99),
  yes: fc.boolean(),
  no: fc.boolean(),
})
const calls = fc.tuple(fc.constantFrom(...Object.keys(CALLS), ...Object.keys(EVENTS)), dice)

function started(seed: number): VerbBench {
  const bench = new VerbBench(String(seed), 12)
  bench.run('volume create', { name: 'u', mirror: ['d1', 'd2'], size: '16MiB' })
  bench.run('volume create', { name: 'v', raid5: ['d3', 'd4', 'd5', 'd6'], size: '16MiB' })
  bench.run('volume create', { name: 'w', concat: ['d7'], size: '16MiB' })
  bench.settle()
  return bench
}

t.test('any sequence of verbs keeps the configuration sound', async (t) => {
  const effects = new Map<string, number>()
  fc.assert(
    fc.property(
      fc.array(calls, { minLength: 10, maxLength: 40, size: 'max' }),
      fc.integer(),
      (list, seed) => {
        const bench = started(seed)
        for (const [words, thrown] of list) {
          const event = EVENTS[words]
          if (event) {
            event(bench, thrown)
            continue
          }
          const parameters = CALLS[words]?.(bench, thrown) ?? {}
          const serving = servingOpen(bench)
          try {
            // Checks what was planned by writing and reading it as on disk.
            bench.run(words, parameters)
            effects.set(words, (effects.get(words) ?? 0) + 1)
            const { plexes } = bench.model
            const raid5 = plexes.filter((one) => one.organization === 'raid5' && one.volumeUuid)
            for (const { uuid, volumeUuid } of raid5) {
              const beside = plexes.find(
                (one) => one.volumeUuid === volumeUuid && one.uuid !== uuid,
              )
              if (beside) throw new Error(`${beside.name} beside raid5`)
            }
          } catch (error) {
            if (!(error instanceof PlexusError) || error.kind === 'corrupt') {
              throw new Error(`${words} ${JSON.stringify(parameters)}`, { cause: error })
            }
          }
          // Only an order that names the state and is forced may take a volume away from those who use it.
          if (words === 'vinum setstate') continue
          const after = servingOpen(bench)
          const lost = serving.find((one) => !after.includes(one))
          if (lost === undefined) continue
          throw new Error(`${words} ${JSON.stringify(parameters)} lost ${lost}`)
        }
      },
    ),
    { numRuns: 150 },
  )
  for (const words of Object.keys(CALLS)) {
    t.ok((effects.get(words) ?? 0) > 0, `${words} took effect ${effects.get(words)} times`)
  }
})

/** The configuration of a thin device from a disk: what a damaged or hostile label says is refused, field by field. */
import t from 'tap'
import { PlexusError } from '../../../src/base/errors.ts'
import { MIB } from '../../../src/base/limits.ts'
import type { RandomTape } from '../../../src/engine/verbs/candidates.ts'
import { VIRSTOR_CODEC } from '../../../src/engine/virstor/codec.ts'
import { emptyVirstor, type VirstorModel } from '../../../src/engine/virstor/model.ts'
import { VIRSTOR_VERBS } from '../../../src/engine/virstor/verbs.ts'

const [create] = VIRSTOR_VERBS
let calls = 0
const random = {
  bytes: (length: number) => Buffer.alloc(length, ++calls),
} as unknown as RandomTape

function planned(): VirstorModel {
  const disk = (name: string) => ({
    name,
    path: `/dev/${name}`,
    className: 'disk',
    sizeBytes: 16 * MIB,
    blockBytes: 512,
    readOnly: false,
    inUse: undefined,
    twin: undefined,
    contents: '',
  })
  const setUuid = '6c7005eb-356e-4b87-b301-624d74cb657a'
  const context = {
    model: emptyVirstor(setUuid),
    candidate: disk,
    isPresent: () => true,
    isOpen: false,
    map: undefined,
    space: undefined,
    random,
  }
  const parameters = { name: 'thin', devices: ['d1', 'd2', 'd3'], size: '1GiB', chunk: '128KiB' }
  if (!create) throw new Error('there is a verb')
  return { ...create.plan(context, parameters).model, setUuid, line: setUuid }
}

const MODEL = planned()

function refusal(change: (model: VirstorModel) => object): string {
  return refusalOf(Buffer.from(JSON.stringify({ format: 1, ...change(MODEL) })))
}

function refusalOf(bytes: Buffer): string {
  try {
    VIRSTOR_CODEC.decode(bytes)
  } catch (error) {
    if (error instanceof PlexusError && error.kind === 'corrupt') return error.message
    throw error
  }
  return 'taken'
}

t.test('what a verb has planned comes back as it was', async (t) => {
  const model = MODEL
  t.strictSame(VIRSTOR_CODEC.decode(VIRSTOR_CODEC.encode(model)), model)
  const empty = { ...emptyVirstor(model.setUuid) }
  t.strictSame(VIRSTOR_CODEC.decode(VIRSTOR_CODEC.encode(empty)), empty)
})

t.test('what cannot be is refused, and names its field', async (t) => {
  const [first, second] = MODEL.components
  const [copy, other] = MODEL.copies
  if (!first || !second || !copy || !other) throw new Error('there are two')
  const [drive] = MODEL.drives
  if (!drive) throw new Error('there is one')
  const withDrive = (change: object) => ({
    drives: [{ ...drive, ...change }, ...MODEL.drives.slice(1)],
  })
  const CASES: readonly (readonly [string, object, RegExp])[] = [
    ['no name', { name: '' }, /model.name: a name must not be empty/],
    ['a name of two lines', { name: 'a\nb' }, /model.name: .*control characters/],
    ['no chunk', { chunkBytes: 0 }, /chunkBytes/],
    ['a chunk of odd size', { chunkBytes: 100_000 }, /chunkBytes/],
    ['a chunk that is too large', { chunkBytes: 2 ** 40, virtualBytes: 2 ** 40 }, /chunkBytes/],
    ['a size that is no chunks', { virtualBytes: 1000 }, /virtualBytes/],
    ['a size without end', { virtualBytes: 2 ** 52 }, /virtualBytes/],
    ['no journal', { journalBlocks: 0 }, /journalBlocks/],
    ['an endless journal', { journalBlocks: 2 ** 50 }, /journalBlocks/],
    ['no UUID', { uuid: 'x' }, /uuid/],
    ['no copy', { copies: [] }, /copies/],
    ['an id twice', { components: [first, { ...second, id: first.id }] }, /components/],
    ['an id to come', { components: [{ ...first, id: 60_000 }] }, /components/],
    ['a drive twice', { components: [first, { ...second, driveUuid: first.driveUuid }] }, /drive/],
    ['chunks over the end', { components: [{ ...first, chunks: 10_000 }, second] }, /do not fit/],
    ['chunks in the label', { components: [{ ...first, startBytes: 0 }, second] }, /do not fit/],
    ['a copy on nothing', { copies: [{ ...copy, component: 77 }] }, /no component 77/],
    ['two copies on one', { copies: [copy, copy] }, /two are on one/],
    ['an epoch to come', { copies: [{ ...copy, epoch: 9 }, other] }, /epoch/],
    ['too few places', { copies: [{ ...copy, runs: [] }, other] }, /the map takes/],
    ['places outside', { copies: [{ ...copy, runs: [{ number: 9_999, count: 5 }] }] }, /places/],
    ['no name', { name: '' }, /name/],
    ['a name with an escape sequence', { name: 'a\x1b[2J' }, /name/],
    ['a line that is none', { line: 'x' }, /line/],
    ['a voter that is none', { votersBefore: [['x']] }, /votersBefore/],
    ['a drive without a UUID', withDrive({ uuid: 'x' }), /drive "d1", uuid/],
    ['two drives with one UUID', { drives: [drive, ...MODEL.drives] }, /drives/],
    [
      'a drive that ends behind its medium',
      withDrive({ mediaBytes: MIB }),
      /drive "d1", dataEndBytes/,
    ],
    ['a drive of larger blocks', withDrive({ blockBytes: 4096 }), /blockBytes/],
    ['a drive of odd blocks', withDrive({ blockBytes: 1536 }), /drive "d1", blockBytes/],
    ['a component lost that was never there', { lost: [4] }, /lost: 4/],
    ['a component lost that is there', { lost: [3] }, /lost: 3/],
    ['one lost behind all ids', { nextComponent: 70_000, lost: [65_535] }, /lost: 65535/],
    ['no epoch left', { nextEpoch: 2 ** 32 }, /nextEpoch/],
    ['a wait without end', { fullWaitMs: 2 ** 40 }, /fullWaitMs/],
    [
      'a job that never gets on',
      { job: { kind: 'rebalance', paused: false, limitBytesPerSecond: 0 } },
      /job/,
    ],
    ['one place twice', { copies: [{ ...copy, runs: [...copy.runs, ...copy.runs] }] }, /places/],
  ]
  for (const [what, change, message] of CASES) {
    t.match(
      refusal((model) => ({ ...model, ...change })),
      message,
      what,
    )
  }
  const lists = `${'['.repeat(100_000)}${']'.repeat(100_000)}`
  for (const field of ['virtualBytes', 'policy', 'name']) {
    const { [field]: _, ...rest } = MODEL as unknown as Record<string, unknown>
    const text = JSON.stringify({ format: 1, ...rest }).replace(/}$/, `,"${field}":${lists}}`)
    t.match(
      refusalOf(Buffer.from(text)),
      new RegExp(field),
      `${field}: lists deeper than the stack`,
    )
  }
})

/** Who has missed nothing when power goes in one commit after the other: with all drives there, every one of them. */
import fc from 'fast-check'
import t from 'tap'
import { crc32c } from '../../../../src/base/crc32c.ts'
import type {
  AnchoredDevice,
  CommitOptions,
  Slot,
} from '../../../../src/engine/geom/anchored-device.ts'
import { decodeModel, encodeModel } from '../../../../src/engine/vinum/model/codec.ts'
import type { VinumModel } from '../../../../src/engine/vinum/model/model.ts'
import { ConfigStore } from '../../../../src/engine/vinum/set/config-store.ts'
import type { Member } from '../../../../src/engine/vinum/set/drive.ts'
import {
  chooseMember,
  currentMembers,
  modelOf,
  startAfter,
} from '../../../../src/engine/vinum/set/members.ts'
import { buildModel, uuidOf } from '../../../support/vinum-model.ts'

/** What becomes of a write when the power goes. */
type Fate = 'done' | 'torn' | 'lost'

/** The two slots of a drive, as AnchoredDevice has them. */
class Label {
  readonly uuid: string
  newest: Slot | undefined
  older: Slot | undefined
  /** Power goes in the next commit. */
  fate: Fate | undefined
  readonly payloadRoom = Number.POSITIVE_INFINITY

  constructor(name: string) {
    this.uuid = uuidOf(name)
  }

  async commit(generation: number, payload: Buffer, { overNewest, follows }: CommitOptions = {}) {
    if (this.fate !== 'lost') {
      // AnchoredDevice goes back to the older one before it writes over the newest.
      if (overNewest && this.older) this.newest = this.older
      this.older = undefined
      if (this.fate !== 'torn') {
        this.older = this.newest
        this.newest = { generation, payloadCrc: crc32c(payload), payload, previous: follows }
      }
    }
    if (this.fate) await new Promise(() => {})
  }

  async repeat() {
    this.older = undefined
  }

  /** As a start finds it: drive.ts, readMember. */
  member(): Member {
    const { uuid, newest, older } = this
    const found = newest && { ...newest, older, damaged: false }
    return {
      uuid,
      slot: found,
      model: found && decodeModel(found.payload),
      olderModel: found?.older && decodeModel(found.older.payload),
      error: undefined,
    } as unknown as Member
  }
}

const NAMES = ['d1', 'd2', 'd3', 'd4', 'd5']

t.test('nobody was left behind', async (t) => {
  const fate = fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom<Fate>('done', 'lost') },
    { weight: 1, arbitrary: fc.constant<Fate>('torn') },
  )
  const starts = fc.array(
    fc.record({
      /** Commits before the one in which the power goes. */
      commits: fc.constantFrom(0, 0, 0, 1, 2),
      fates: fc.array(fate, { minLength: 5, maxLength: 5 }),
    }),
    { minLength: 1, maxLength: 5 },
  )
  let assembled = 0
  let left = 0
  const property = fc.asyncProperty(fc.integer({ min: 2, max: 5 }), starts, async (count, list) => {
    const names = NAMES.slice(0, count)
    const labels = new Map(names.map((name) => [uuidOf(name), new Label(name)]))
    const first = buildModel({ drives: names.map((name) => `${name}:64MiB`), volumes: {} })
    for (const label of labels.values()) await label.commit(1, encodeModel(first))
    for (const { commits, fates } of list) {
      const members = new Map([...labels].map(([uuid, label]) => [uuid, label.member()]))
      const choice = chooseMember(members)
      if (choice.kind !== 'complete') {
        left++
        return true
      }
      assembled++
      const model = modelOf(members, choice)
      if (currentMembers(members, choice, model).size !== count) return false
      const store = new ConfigStore({
        model,
        ...startAfter(choice, [...members.values()]),
        label: (uuid) => labels.get(uuid) as unknown as AnchoredDevice,
        loseDrives: () => t.fail('a drive has failed') as unknown as VinumModel,
        onCommit() {},
      })
      for (let done = 0; done < commits; done++) await store.commit((model) => ({ ...model }))
      for (const [index, label] of [...labels.values()].entries()) label.fate = fates[index]
      void store.commit((model) => ({ ...model }))
      await new Promise(setImmediate)
      for (const label of labels.values()) label.fate = undefined
    }
    return true
  })
  /** `d` done, `t` torn, `l` lost; one word for each cut. */
  const story = (words: string) =>
    words.split(' ').map((word) => ({
      commits: 0 as const,
      fates: [...word].map((one): Fate => (one === 'd' ? 'done' : one === 't' ? 'torn' : 'lost')),
    }))
  const examples: [number, ReturnType<typeof story>][] = [
    [3, story('ldd ddl lll')],
    [3, story('ldd ddl lld tdd')],
    [3, story('ldd dll ldd dtd')],
    [4, story('lddd dltl dldd dddl llll')],
    [3, story('dld tdl dtd ddl ddd')],
  ]
  await fc.assert(property, { numRuns: Number(process.env['RUNS'] ?? 1500), examples })
  t.ok(left * 20 < assembled, `${left} left to an operator, ${assembled} assembled`)
})

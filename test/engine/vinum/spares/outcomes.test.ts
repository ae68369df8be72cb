/**
 * What becomes of a spare and of the column that it stands for: the table of Solaris Volume Manager's resync (docs/vinum.md,
 * 10.3), a row each, for raid5 and for mirrors. The column is the first one, of d1; the spares are d7 and d8.
 */
import t from 'tap'
import { get, put } from '../../../support/engine.ts'
import { LAYOUTS, SpareRig } from '../../../support/spares.ts'

const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

interface Row {
  readonly name: string
  /** What has happened before, up to the moment when the job is at work. */
  readonly before: 'fill' | 'copy-back' | 'fill without a spare'
  readonly spares?: readonly string[]
  readonly happens: (rig: SpareRig) => unknown
  readonly after: string
}

const ROWS: readonly Row[] = [
  {
    name: 'filled: OKAY',
    before: 'fill',
    happens: () => {},
    after: 'd7 UP, spares RESERVED AVAILABLE',
  },
  {
    name: 'filled: the spare cannot be written, the next one is tried',
    before: 'fill',
    happens: (rig) => rig.device('d7').fail('write', 'io', 1000, rig.place()),
    after: 'd8 UP, spares BROKEN RESERVED',
  },
  {
    name: 'filled: the only spare cannot be written, the column goes back to its own place',
    before: 'fill',
    spares: ['d7'],
    happens: (rig) => rig.device('d7').fail('write', 'io', 1000, rig.place()),
    after: 'd1 STALE, spares BROKEN NONE',
  },
  {
    name: 'filled: the spare goes, the next one is tried',
    before: 'fill',
    happens: (rig) => rig.machine.pull('d7'),
    after: 'd8 UP, spares BROKEN RESERVED',
  },
  {
    name: 'filled: another column goes meanwhile, the spare is free',
    before: 'fill',
    happens: (rig) => rig.machine.pull('d2'),
    after: 'd1 STALE, spares AVAILABLE AVAILABLE',
  },
  {
    name: 'filled: the job is cancelled, the spare is free',
    before: 'fill',
    happens: (rig) => runningJob(rig)?.cancel(),
    after: 'd1 STALE, spares AVAILABLE AVAILABLE',
  },
  {
    name: 'copied back: OKAY',
    before: 'copy-back',
    happens: () => {},
    after: 'd1 UP, spares AVAILABLE AVAILABLE',
  },
  {
    name: 'copied back: the target cannot be written, the spare stays',
    before: 'copy-back',
    happens: (rig) => rig.device('d1').fail('write', 'io', 1000, rig.place()),
    after: 'd7 UP, spares RESERVED AVAILABLE',
  },
  {
    name: 'copied back: the target goes, the spare stays',
    before: 'copy-back',
    happens: (rig) => rig.machine.pull('d1'),
    after: 'd7 UP, spares RESERVED AVAILABLE',
  },
  {
    name: 'copied back: the spare has a block that cannot be read, which the others have',
    before: 'copy-back',
    happens: (rig) => rig.device('d7').fail('read', 'io', 1, rig.place()),
    after: 'd1 UP, spares BROKEN AVAILABLE',
  },
  {
    name: 'copied back: another column goes meanwhile, and is filled on the other spare after it',
    before: 'copy-back',
    happens: (rig) => rig.machine.pull('d2'),
    after: 'd1 UP, spares RESERVED AVAILABLE',
  },
  {
    name: 'no spare: OKAY',
    before: 'fill without a spare',
    spares: [],
    happens: () => {},
    after: 'd1 UP, spares NONE NONE',
  },
  {
    name: 'no spare: the target cannot be written',
    before: 'fill without a spare',
    spares: [],
    happens: (rig) => rig.device('d1').fail('write', 'io', 1000, rig.place()),
    after: 'd1 STALE, spares NONE NONE',
  },
  {
    name: 'no spare: another column goes meanwhile',
    before: 'fill without a spare',
    spares: [],
    happens: (rig) => rig.machine.pull('d2'),
    after: 'd1 STALE, spares NONE NONE',
  },
]

async function brought(rig: SpareRig, { before }: Row): Promise<void> {
  const { machine } = rig
  const isAtWork = () => (runningJob(rig)?.doneBytes ?? 0) > 0
  if (before === 'fill without a spare') {
    rig.device('d1').fail('write', 'io', 1, rig.place())
    await put(rig.volume, 0, rig.content)
    rig.holdJobs()
    await machine.run('vinum.start', { objects: ['v'] })
    await rig.until('a job is at work', isAtWork)
    return
  }
  await machine.pull('d1')
  if (before === 'copy-back') {
    await rig.until('d7 has stepped in', () => rig.column(0).drive === 'd7')
    await rig.quiet()
    await machine.replug('d1')
    rig.holdJobs()
    await machine.run('spare.copy-back', { volume: 'v' })
  } else rig.holdJobs()
  await rig.until('a job is at work', isAtWork)
}

function runningJob(rig: SpareRig) {
  return rig.machine.topology.jobs.list().find(({ state }) => state === 'running')
}

for (const layout of LAYOUTS) {
  for (const row of ROWS) {
    t.test(`${layout}: ${row.name}`, async (t) => {
      const rig = await new SpareRig(layout).start({}, row.spares)
      await brought(rig, row)
      await row.happens(rig)
      rig.letJobs()
      await rig.pass(1000)
      await rig.quiet()
      await rig.pass(40_000)
      await rig.quiet()
      t.equal(rig.states(), row.after)
      if (rig.machine.volume('v').health !== 'FAULTED') {
        t.ok((await get(rig.volume, 0, rig.content.length)).equals(rig.content))
      }
    })
  }
}

/** `plexus virstor fsck` on the command line: its text, its JSON and its exit code. */
import t from 'tap'
import { type FsckReport, VIRSTOR_VERB_SPECS } from '../../src/control/virstor-verbs.ts'
import { ControlRig } from '../support/control.ts'

const CHECKED = { pages: 3, journalBlocks: 1, chunks: 512, components: 3 }

t.test('fsck says what it found, what to do, and ends with 10', async (t) => {
  const made = await new ControlRig(VIRSTOR_VERB_SPECS).start()
  t.teardown(() => made.stop())
  const sound: FsckReport = { name: 'thin', checked: CHECKED, found: 0, findings: [] }
  made.fake.answer = sound
  t.match(await made.cli(['virstor', 'fsck', 'thin']), {
    exit: 0,
    out: /thin: 3 pages and 1 blocks .*: nothing is wrong/,
  })
  const damaged = {
    severity: 'warning',
    object: 'd1',
    message: 'slot A of page 0 of the map is damaged',
    repaired: false,
    action: 'plexus virstor fsck thin --repair',
  } as const
  const mended = { ...damaged, repaired: true, action: '' }
  made.fake.answer = { ...sound, found: 5, findings: [damaged, mended] }
  const { exit, out } = await made.cli(['virstor', 'fsck', 'thin'])
  t.equal(exit, 10)
  t.match(out, / {2}WARNING {2}d1: slot A .*\n {4}plexus virstor fsck thin --repair\n/)
  t.match(out, / {2}REPAIRED {2}d1: .*\n {2}and 3 more\n/)
  t.match(out, /: 5 findings\n$/)
  const json = await made.cli(['virstor', 'fsck', 'thin', '--json'])
  t.equal(json.exit, 10)
  t.match(JSON.parse(json.out), { found: 5, findings: [damaged, mended] })
})

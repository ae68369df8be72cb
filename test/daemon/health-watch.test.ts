/** Events of states: each change once, whatever the labels on disks say. */
import t from 'tap'
import type { ObjectReport } from '../../src/control/reports.ts'
import { HealthWatch } from '../../src/daemon/health-watch.ts'

function device(set: string, state: 'UP' | 'DOWN'): ObjectReport {
  return {
    type: 'virstor',
    className: 'virstor',
    name: 'thin',
    // A copied label: both say so.
    uuid: '6c7005eb-356e-4b87-b301-624d74cb657a',
    set,
    state,
    health: state === 'UP' ? 'HEALTHY' : 'FAULTED',
    sizeBytes: 0,
    note: '',
    facts: {},
  }
}

t.test('two objects that claim one UUID have a state each', async (t) => {
  const said: string[] = []
  let objects: readonly ObjectReport[] = [device('virstor-1', 'UP'), device('virstor-2', 'DOWN')]
  const emit = (...words: readonly string[]) => said.push(words.at(-1) ?? '')
  const watch = new HealthWatch({ emit: emit as never }, () => objects)
  for (let times = 0; times < 3; times++) watch.look()
  t.strictSame(said.splice(0), ['virstor thin is DOWN'])
  objects = [device('virstor-1', 'DOWN')]
  for (let times = 0; times < 3; times++) watch.look()
  t.strictSame(said.splice(0), ['virstor thin is DOWN, was UP'])
  objects = []
  watch.look()
  objects = [device('virstor-1', 'UP')]
  watch.look()
  t.strictSame(said, [], 'what is seen for the first time, and healthy, is no news')
})

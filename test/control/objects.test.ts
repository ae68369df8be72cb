/** Objects and their parts, whatever their names are: those of a disk may be anything. */
import t from 'tap'
import { partsIn, topOf, withParts } from '../../src/control/objects.ts'
import type { ObjectReport } from '../../src/control/reports.ts'

function object(set: string, type: string, name: string, parent?: string): ObjectReport {
  const common = { className: 'virstor', uuid: '', state: 'UP', sizeBytes: 0, note: '', facts: {} }
  return { ...common, set, type, name, ...(parent === undefined ? {} : { parent }) }
}

t.test(
  'a part that has the name of its whole, or of another one, is in the tree once',
  async (t) => {
    const objects = [
      object('s1', 'virstor', 'a'),
      object('s1', 'component', 'a', 'a'),
      object('s1', 'component', 'b', 'a'),
      object('s2', 'virstor', 'b'),
      object('s2', 'component', 'a', 'b'),
      object('s3', 'set', 'a'),
      object('s3', 'virstor', 'c', 'a'),
    ]
    const partsOf = partsIn(objects)
    const trees = objects.map((one) => withParts(one, partsOf).map((part) => objects.indexOf(part)))
    t.same(trees, [[0, 1, 2], [1], [2], [3, 4], [4], [5, 6], [6]])
    t.same(
      objects.map((one) => objects.indexOf(topOf(one, objects))),
      [0, 0, 0, 3, 3, 5, 5],
    )
  },
)

/** The oracle: which contents a read may show, where the simulator alone would meet a case too seldom. */
import t from 'tap'
import { Oracle, OracleClock } from './oracle.ts'

const BLOCK_BYTES = 512

t.test('a write that is under way while disks are joined may win over one that came later', (t) => {
  const oracle = new Oracle(BLOCK_BYTES, BLOCK_BYTES, new OracleClock())
  const [slow, quick] = [Buffer.alloc(BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES)]
  const first = oracle.beginWrite(0, slow)
  oracle.join([oracle.contents()])
  const second = oracle.beginWrite(0, quick)
  oracle.endWrite(second, true, true)
  oracle.endWrite(first, false, false)
  for (const found of [quick, slow]) {
    t.equal(oracle.endRead(oracle.beginRead(0, BLOCK_BYTES), found), undefined)
  }
  const other = oracle.endRead(oracle.beginRead(0, BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES))
  t.match(other, { found: 'zeroes' })
  t.end()
})

t.test('zeroes under way while disks are joined are not taken for other zeroes', (t) => {
  for (const when of ['before', 'after'] as const) {
    const oracle = new Oracle(BLOCK_BYTES, BLOCK_BYTES, new OracleClock())
    const [zeroes, data] = [Buffer.alloc(BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES)]
    const slow = oracle.beginZeroes(0, BLOCK_BYTES, true)
    const quick = oracle.beginZeroes(0, BLOCK_BYTES, true)
    if (when === 'before') oracle.endWrite(quick, true, true)
    oracle.join([oracle.contents()])
    if (when === 'after') oracle.endWrite(quick, true, true)
    oracle.endWrite(oracle.beginWrite(0, data), true, true)
    oracle.endWrite(slow, true, true)
    const found = oracle.endRead(oracle.beginRead(0, BLOCK_BYTES), zeroes)
    t.equal(found, undefined, `others that ended ${when} the joining`)
    const other = oracle.endRead(oracle.beginRead(0, BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES, 1))
    t.match(other, { allowed: ['zeroes'] }, 'what is found is there for good')
  }
  t.end()
})

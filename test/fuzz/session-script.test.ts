import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Daemon, oneDisk, TARGET } from '../support/daemon.ts'
import { Wire } from '../support/initiator-wire.ts'
import { Random } from './random.ts'
import { ScriptSession } from './script-session.ts'
import { SECTIONS, sessionScript } from './session-script.ts'

t.test('the script of a session, undisturbed, is answered with GOOD throughout', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plexus-script-'))
  const image = join(dir, 'disk')
  writeFileSync(image, '')
  truncateSync(image, 64 * 1024 * 1024)
  const daemon = await Daemon.start({ config: oneDisk(image) })
  t.teardown(async () => {
    await daemon.stop()
    rmSync(dir, { recursive: true, force: true })
  })
  // Transfers above the limit that VPD B0 announces may be refused.
  const names = Object.keys(SECTIONS).filter((name) => name !== 'a transfer above 4 MiB')
  for (let seed = 1; seed <= 8; seed++) {
    const wire = await Wire.connect({ port: daemon.port })
    const random = new Random(seed)
    const initiatorName = 'iqn.2026-11.test.plexus:script'
    const session = new ScriptSession({ wire, random, initiatorName, targetName: TARGET })
    let pdus = 0
    // The first commands take the unit attentions.
    for await (const { draft } of sessionScript(session, ['inquiries', 'inquiries', ...names])) {
      wire.write(session.encode(draft))
      pdus++
    }
    const bad = session.statuses.slice(10).filter((status) => status !== 0)
    t.same(bad, [], `seed ${seed}: ${pdus} PDUs`)
    t.ok(session.statuses.length > 30, `${session.statuses.length} commands have a status`)
    t.ok(await wire.closedWithin(300), 'the target closes after the logout')
  }
})

/**
 * All verbs that the command line knows, in the order of its help: the daemon's own and those of the
 * engine's classes. A new class is one more line here.
 */
import { DAEMON_VERB_SPECS } from './daemon-verbs.ts'
import { NOP_VERB_SPECS } from './nop-verbs.ts'
import { SPARE_VERB_SPECS } from './spare-verbs.ts'
import type { VerbSpec } from './verb-spec.ts'
import { VINUM_VERB_SPECS } from './vinum-verbs.ts'
import { VIRSTOR_VERB_SPECS } from './virstor-verbs.ts'
import { VOLUME_VERB_SPECS } from './volume-verbs.ts'

export const ALL_VERB_SPECS: readonly VerbSpec[] = [
  ...DAEMON_VERB_SPECS,
  ...VOLUME_VERB_SPECS,
  ...SPARE_VERB_SPECS,
  ...VINUM_VERB_SPECS,
  ...VIRSTOR_VERB_SPECS,
  ...NOP_VERB_SPECS,
]

/** What each noun is about, for the help. */
export const NOUN_SUMMARIES: Readonly<Record<string, string>> = {
  config: 'the configuration',
  device: 'what is on each disk, and whether it is safe',
  events: 'what has happened',
  geom: 'the graph of the engine',
  job: 'long work: sync, rebuild, initialise, check, grow, move',
  lun: 'logical units',
  nop: 'delays, errors and torn writes on purpose, for tests',
  spare: 'pools of drives that take the place of failed ones',
  session: 'initiators that are logged in',
  target: 'iSCSI targets',
  vinum: 'drives, plexes and subdisks one by one, as gvinum(8) has them',
  virstor: 'thin devices: larger than the disks below, which give space as it is written',
  volume: 'volumes: create, grow, replace a disk',
}

/** The plex in operation for each organisation (model/plex-kinds.ts). */
import { LinearPlex } from '../io/plex-linear.ts'
import type { Organization } from '../model/plex-kinds.ts'
import { Raid5Plex } from '../raid5/plex-raid5.ts'
import type { Plex, PlexOptions } from '../runtime.ts'

const PLEXES: Readonly<Record<Organization, new (options: PlexOptions) => Plex>> = {
  concat: LinearPlex,
  striped: LinearPlex,
  raid5: Raid5Plex,
}

export function makePlex(options: PlexOptions): Plex {
  return new PLEXES[options.record.organization](options)
}

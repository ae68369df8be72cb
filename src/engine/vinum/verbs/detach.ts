/**
 * `vinum detach`: a plex leaves its volume, a subdisk its plex. What leaves stays in the configuration
 * (docs/vinum.md, 8.10). A subdisk's place in the plex is kept by a placeholder, so that the plex keeps its
 * columns and its size, until another subdisk is attached there.
 */
import { newUuid } from '../../../base/random.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import type { PlexRecord, SubdiskRecord } from '../model/model.ts'
import { spareOf } from '../model/spares.ts'
import { type Draft, forgetPreference, planning } from './draft.ts'
import { addPlaceholder } from './drives.ts'
import { findObject, freeName } from './lookup.ts'
import { checkLoss, warnOfOneCopy } from './remove.ts'

export const DETACH = planning(VINUM_SPECS.detach, [], (draft) => {
  const found = findObject(draft.model, draft.text('object'))
  if (found.type === 'plex') detachPlex(draft, found.record)
  else if (found.type === 'subdisk') detachSubdisk(draft, found.record)
  else {
    const { name } = found.record
    throw draft.invalid`${name} is a ${found.type}; only plexes and subdisks are attached`
  }
})

/** Throws as {@link checkLoss} where the subdisks leave with a part of the volume. */
function checkCopyStays(draft: Draft, plex: PlexRecord, subdisks: readonly SubdiskRecord[]): void {
  const lost = draft.lastCopyLost(subdisks)
  const volume = draft.volumeOf(plex)
  if (lost === undefined || !volume) return
  const fact = `plex ${plex.name} holds the last good copy of ${lost}`
  checkLoss(draft, volume, plex, fact, 'goes out of service')
}

function detachPlex(draft: Draft, plex: PlexRecord): void {
  const volume = draft.volumeOf(plex)
  if (!volume) {
    draft.warn`plex ${plex.name} is detached already`
    return
  }
  draft.checkIdle(plex, 'detach')
  const open = draft.context.isOpen(volume.uuid)
  if (!draft.flag('force') && (open || plex.state === 'up')) {
    const why = open
      ? `volume ${volume.name} is in use; -f detaches ${plex.name} all the same`
      : `plex ${plex.name} is up and serves ${volume.name}; -f detaches it all the same`
    draft.fail('in-use', plex.name, why)
  }
  checkCopyStays(draft, plex, draft.subdisksOf(plex))
  draft.put('plexes', { ...plex, volumeUuid: undefined })
  const left = forgetPreference(volume, new Set([plex.uuid]))
  // The volume without any plex has no size.
  const sizeBytes = draft.plexesOf(volume).length === 0 ? 0 : volume.sizeBytes
  draft.put('volumes', { ...left, sizeBytes })
  draft.step`detach plex ${plex.name} from volume ${volume.name}`
  warnOfOneCopy(draft, volume)
}

function detachSubdisk(draft: Draft, subdisk: SubdiskRecord): void {
  const plex = draft.plexOf(subdisk)
  if (!plex) {
    draft.warn`subdisk ${subdisk.name} is detached already`
    return
  }
  if (draft.isHole(subdisk))
    throw draft.invalid`${subdisk.name} only keeps a place in ${plex.name}; attach a subdisk to the plex, or rm the plex`
  if (spareOf(draft.model, subdisk.driveUuid))
    throw draft.inUse`subdisk ${subdisk.name} is on the spare ${draft.drive(subdisk.driveUuid)?.name}; move it to another drive first: plexus vinum move DRIVE ${subdisk.name}`
  draft.checkIdle(plex, 'detach')
  const serving = plex.state !== 'down' && subdisk.state === 'up'
  if (!draft.flag('force') && serving)
    throw draft.inUse`subdisk ${subdisk.name} serves plex ${plex.name} (${plex.state}); -f detaches it all the same`
  checkCopyStays(draft, plex, [subdisk])
  leavePlaceholder(draft, subdisk)
  draft.put('subdisks', { ...subdisk, plexUuid: undefined, plexOffsetBytes: 0 })
  draft.step`detach subdisk ${subdisk.name} from plex ${plex.name}`
  if (serving) draft.warn`plex ${plex.name} works without ${subdisk.name}, until one is attached`
}

/** A subdisk without a device, in the place of one that leaves its plex. */
function leavePlaceholder(draft: Draft, subdisk: SubdiskRecord): void {
  const { sizeBytes } = subdisk
  const drive = addPlaceholder(draft, {
    mediaBytes: sizeBytes,
    blockBytes: draft.drive(subdisk.driveUuid)?.blockBytes ?? 512,
    dataStartBytes: 0,
    dataEndBytes: sizeBytes,
    last: undefined,
  })
  draft.add('subdisks', {
    ...subdisk,
    uuid: newUuid(draft.context.random),
    name: freeName(draft.model, `${drive.name}.s`),
    driveUuid: drive.uuid,
    driveOffsetBytes: 0,
    state: 'stale',
    move: undefined,
    origin: undefined,
  })
}

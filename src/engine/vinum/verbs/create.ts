/**
 * `vinum create FILE`: objects from vinum's own configuration text (docs/vinum.md, 2.1, 4 and 6). All lines are
 * checked before anything is created (8.24); a name that exists is an error, or skipped with -f.
 */
import { alignDown, formatSize } from '../../../base/bytes.ts'
import { PlexusError } from '../../../base/errors.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import type { DriveRecord, PlexRecord, VolumeRecord } from '../model/model.ts'
import { hasParity, isStriped, kindOf } from '../model/plex-kinds.ts'
import type { PlanningVerb } from '../plan.ts'
import {
  parseConfigText,
  type TextObject,
  type TextPlex,
  type TextSubdisk,
  type TextVolume,
} from '../text/config.ts'
import {
  appendSubdisk,
  checkOneMore,
  checkStripe,
  checkSubdiskCount,
  largestFree,
  newPlex,
  newVolume,
  placeAlignment,
  placeSubdisk,
} from './build.ts'
import { type Draft, listOf, planning } from './draft.ts'
import { newDrive, resolveDrive } from './drives.ts'
import { checkFits, trimPlex } from './growth.ts'
import { checkNewName, findTyped, lookUp } from './lookup.ts'
import { checkVolumeName } from './short-forms.ts'

const ORIGIN = 'configuration'

function parse(file: string, draft?: Draft): readonly TextObject[] {
  return parseConfigText(file, {
    origin: ORIGIN,
    ...(draft && {
      isTaken: (name: string) => lookUp(draft.context.model, name) !== undefined,
      warn: (warning: string) => draft.warn`${warning}`,
    }),
  })
}

function ofType<T extends TextObject['type']>(
  objects: readonly TextObject[],
  type: T,
): readonly Extract<TextObject, { readonly type: T }>[] {
  return objects.filter(
    (one): one is Extract<TextObject, { readonly type: T }> => one.type === type,
  )
}

export const CREATE: PlanningVerb = {
  ...planning(VINUM_SPECS.create, [], (draft) => {
    const objects = parse(draft.text('file'), draft)
    if (objects.length === 0)
      throw draft.invalid`${ORIGIN}: it has no objects; plexus vinum printconfig shows the form`
    new Creation(draft, objects).run()
  }),
  devices: (parameters) =>
    parse(listOf(parameters, 'file').join()).flatMap((one) => {
      if (one.type === 'drive') return [one.device]
      if (one.type === 'subdisk') return [one.drive]
      return one.type === 'volume' ? [one.name] : []
    }),
}

/** A subdisk of the text with its drive and, after trimming, its size. */
interface Part {
  readonly text: TextSubdisk
  readonly drive: DriveRecord
  sizeBytes: number
}

class Creation {
  readonly #draft: Draft
  readonly #objects: readonly TextObject[]
  /** What is new in the text: without the objects that -f skips. */
  readonly #fresh: readonly TextObject[]

  constructor(draft: Draft, objects: readonly TextObject[]) {
    this.#draft = draft
    this.#objects = objects
    const force = draft.flag('force')
    this.#fresh = objects.filter((one) => {
      if (!force || lookUp(draft.model, one.name)?.type !== one.type) return true
      draft.warn`${one.name} exists and is left as it is`
      return false
    })
  }

  run(): void {
    this.#each(this.#fresh, (one) => {
      if (one.type === 'volume') checkVolumeName(this.#draft, one.name)
      else checkNewName(this.#draft, one.type, one.name)
    })
    this.#createDrives()
    const volumes = this.#each(ofType(this.#fresh, 'volume'), (one) => this.#createVolume(one))
    const added = this.#each(ofType(this.#fresh, 'plex'), (one) => this.#createPlex(one))
    this.#createDetached()
    this.#each(ofType(this.#fresh, 'volume'), (one) => this.#finishVolume(one))
    const known = new Set([undefined, ...volumes.map((one) => one.uuid)])
    const copies = added.filter((one) => !known.has(one.volumeUuid))
    const filled = volumes.filter((one) => this.#draft.plexesOf(one).length > 0)
    this.#draft.startJobs(...filled, ...copies)
  }

  /** What is refused while an object is made names the line of that object. */
  #each<T extends TextObject, R>(objects: readonly T[], make: (one: T) => R): readonly R[] {
    return objects.map((one) => {
      try {
        return make(one)
      } catch (error) {
        if (!(error instanceof PlexusError) || error.message.startsWith(`${ORIGIN}:`)) throw error
        const { kind, op, subject, message } = error
        const placed = `${ORIGIN}:${one.line}: ${message}`
        throw new PlexusError(kind, { op, subject, message: placed, cause: error })
      }
    })
  }

  #fail(line: number, subject: string, message: string): never {
    return this.#draft.fail('invalid', subject, `${ORIGIN}:${line}: ${message}`)
  }

  #createDrives(): void {
    this.#each(ofType(this.#fresh, 'drive'), (one) => newDrive(this.#draft, one.device, one.name))
    this.#each(ofType(this.#fresh, 'subdisk'), (one) => this.#driveOf(one))
  }

  #driveOf(subdisk: TextSubdisk): DriveRecord {
    return resolveDrive(this.#draft, subdisk.drive)
  }

  #createVolume(one: TextVolume): VolumeRecord {
    const volume = newVolume(this.#draft, one.name, undefined)
    const named = { ...volume, readPolicy: one.readPolicy ?? volume.readPolicy }
    // The preferred plex is named when it exists.
    this.#draft.put('volumes', {
      ...named,
      readPolicy: one.preferredPlex ? 'round-robin' : named.readPolicy,
    })
    return volume
  }

  #createPlex(one: TextPlex): PlexRecord {
    const draft = this.#draft
    const members = ofType(this.#objects, 'subdisk').filter((two) => two.plex === one.name)
    const volume =
      one.volume === undefined ? undefined : findTyped(draft.model, 'volume', one.volume)
    if (volume) checkOneMore(draft, volume, one.organization)
    const parts = this.#each(members, (two) => this.#part(two))
    this.#checkMembers(one, parts)
    this.#trim(one, parts)
    const beside = volume ? draft.plexesOf(volume) : []
    const plex = newPlex(
      draft,
      {
        name: one.name,
        volumeUuid: volume?.uuid,
        organization: one.organization,
        stripeBytes: one.stripeBytes,
        parityLayout: hasParity(one) ? (one.parityLayout ?? 'left-asymmetric') : undefined,
      },
      parts.length,
    )
    if (volume && volume.sizeBytes > 0)
      for (const { drive } of parts) checkFits(draft, volume, drive)
    this.#placeParts(one, plex, parts, beside.length > 0 ? 'stale' : 'up')
    const sizeBytes = draft.plexBytes(plex)
    if (volume && sizeBytes < volume.sizeBytes) {
      const why = `plex ${one.name} has ${formatSize(sizeBytes)}, and volume ${volume.name} ${formatSize(volume.sizeBytes)}; a copy must be as large as its volume`
      this.#fail(one.line, one.name, why)
    }
    if (volume && volume.sizeBytes > 0) trimPlex(draft, plex, volume.sizeBytes)
    return plex
  }

  #part(one: TextSubdisk): Part {
    const drive = this.#driveOf(one)
    const alignment = placeAlignment([drive])
    const room = largestFree(this.#draft.model, drive, alignment)
    const sizeBytes = alignDown(one.sizeBytes ?? room, alignment)
    if (one.sizeBytes !== undefined && sizeBytes < one.sizeBytes) {
      this.#draft
        .warn`subdisk ${one.name} is trimmed to ${formatSize(sizeBytes)}, a multiple of ${alignment}`
    }
    if (sizeBytes > 0) return { text: one, drive, sizeBytes }
    const why = `${ORIGIN}:${one.line}: no room for subdisk ${one.name} on drive ${drive.name}; the largest free extent is ${formatSize(room)}`
    return this.#draft.fail('no-space', one.name, why)
  }

  #checkMembers(one: TextPlex, parts: readonly Part[]): void {
    const fewest = kindOf(one).columnsMin
    const empty = one.volume === undefined && parts.length === 0
    if (parts.length < fewest && !empty) {
      const why = `plex ${one.name} is ${one.organization} and needs at least ${fewest} subdisks; it has ${parts.length}`
      this.#fail(one.line, one.name, why)
    }
    checkSubdiskCount(this.#draft, parts.length)
    const drives = parts.map(({ drive }) => drive)
    if (!isStriped(one)) return
    checkStripe(this.#draft, one.stripeBytes, drives)
    const twice = drives.find((two, index) => drives.indexOf(two) !== index)
    if (twice) {
      this.#draft
        .warn`drive ${twice.name} carries two columns of ${one.name}: its failure costs both`
    }
  }

  /** Columns are whole stripes, and all as large as the smallest (docs/vinum.md, 4). */
  #trim(one: TextPlex, parts: readonly Part[]): void {
    if (!isStriped(one) || parts.length === 0) return
    const column = alignDown(Math.min(...parts.map(({ sizeBytes }) => sizeBytes)), one.stripeBytes)
    if (column === 0) {
      const why = `the smallest column of ${one.name} has less than one stripe, ${formatSize(one.stripeBytes)}`
      this.#fail(one.line, one.name, why)
    }
    for (const part of parts) {
      if (part.text.sizeBytes !== undefined && part.sizeBytes > column) {
        this.#draft
          .warn`subdisk ${part.text.name} is trimmed to ${formatSize(column)}, as all columns`
      }
      part.sizeBytes = column
    }
  }

  #placeParts(
    one: TextPlex,
    plex: PlexRecord,
    parts: readonly Part[],
    state: 'up' | 'stale',
  ): void {
    const bytesOf = (part: Part): number => (isStriped(one) ? one.stripeBytes : part.sizeBytes)
    let end = 0
    const places = parts.map((part) => {
      const at = part.text.plexOffsetBytes ?? end
      end = at + bytesOf(part)
      return { part, at }
    })
    places.sort((a, b) => a.at - b.at)
    let expected = 0
    for (const { part, at } of places) {
      const { text, drive, sizeBytes } = part
      const { name, driveOffsetBytes } = text
      if (at !== expected) {
        const why = `subdisk ${name} is at ${at} of ${one.name}, and ${expected} is next: pieces must neither overlap nor leave gaps`
        this.#fail(text.line, name, why)
      }
      expected += bytesOf(part)
      const init = { name, drive, sizeBytes, state, driveOffsetBytes }
      this.#each([text], () => appendSubdisk(this.#draft, plex, init))
    }
  }

  /** Subdisks without a plex; those of a plex that exists already are attached by a verb of their own. */
  #createDetached(): void {
    this.#each(ofType(this.#fresh, 'subdisk'), (one) => {
      if (one.plex === undefined) {
        const { name, driveOffsetBytes } = one
        const place = { name, driveOffsetBytes, plexOffsetBytes: 0, state: 'up' } as const
        placeSubdisk(this.#draft, undefined, { ...this.#part(one), ...place })
      } else if (!lookUp(this.#draft.model, one.name)) {
        findTyped(this.#draft.model, 'plex', one.plex)
        const why = `plex ${one.plex} exists already; to make it larger: plexus vinum grow ${one.plex} DEVICE`
        this.#fail(one.line, one.name, why)
      }
    })
  }

  #finishVolume(one: TextVolume): void {
    const draft = this.#draft
    const volume = findTyped(draft.model, 'volume', one.name)
    const plexes = draft.plexesOf(volume)
    const sizes = plexes.map((plex) => draft.plexBytes(plex))
    const sizeBytes = sizes.length === 0 ? 0 : Math.min(...sizes)
    for (const plex of plexes) trimPlex(draft, plex, sizeBytes)
    const preferred = this.#preferred(one, volume)
    draft.put('volumes', {
      ...volume,
      sizeBytes,
      readPolicy: preferred ? 'prefer' : volume.readPolicy,
      preferredPlexUuid: preferred?.uuid,
    })
  }

  #preferred(one: TextVolume, volume: VolumeRecord): PlexRecord | undefined {
    if (one.preferredPlex === undefined) return undefined
    const plex = findTyped(this.#draft.model, 'plex', one.preferredPlex)
    if (plex.volumeUuid === volume.uuid) return plex
    return this.#fail(one.line, one.name, `plex ${plex.name} does not belong to volume ${one.name}`)
  }
}

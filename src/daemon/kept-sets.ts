/**
 * What this machine remembers of its sets of drives (engine/vinum/set/memory.ts): the configurations that they had, one
 * file each in the state folder, as vgcfgbackup(8) keeps them. So `plexus status` knows a set of which no disk is here,
 * `volume create` refuses a name that such a set has, and `volume undelete` finds what was destroyed.
 *
 *   STATE/sets/0001-SET-UUID/0000000042.json     number of the set, generation of the configuration
 *   {"format":"plexus-set","version":1,"time":"…","drives":{"UUID":"WDC WD40, serial WD-4F2"},"model":{…}}
 *
 * The numbers are in the order in which this machine came to know the sets. A file is replaced whole, and a new
 * generation of the same objects takes the place of the one before. Made by plexusd.ts; names of LUNs are the identity store's.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { toPlexusError } from '../base/errors.ts'
import { SET_CONFIGURATIONS_KEPT, SETS_KEPT } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { LunNames } from '../engine/geom/names.ts'
import { decodeModel, encodeModel } from '../engine/vinum/model/codec.ts'
import type { VinumModel } from '../engine/vinum/model/model.ts'
import type { KeptConfiguration, SetMemory } from '../engine/vinum/set/memory.ts'

const FORMAT = 'plexus-set'
const VERSION = 1
const fileSchema = z.object({
  format: z.literal(FORMAT),
  version: z.literal(VERSION),
  time: z.string(),
  drives: z.record(z.string(), z.string()),
  model: z.record(z.string(), z.unknown()),
})
const FOLDER = /^(\d+)-(.+)$/

interface Kept {
  readonly number: number
  readonly folder: string
  /** Names of the files, oldest first. */
  files: readonly string[]
  newest: KeptConfiguration | undefined
}

export interface KeptSetsOptions {
  /** The state folder. */
  readonly dir: string
  readonly lunNames: LunNames
  readonly log: Logger
  readonly now: () => Date
}

export class KeptSets implements SetMemory {
  readonly #options: KeptSetsOptions
  readonly #dir: string
  readonly #sets = new Map<string, Kept>()
  /** One write after the other. */
  #writing: Promise<unknown> = Promise.resolve()

  /** Reads what is there; the folder is made if absent. Throws PlexusError where that fails. */
  constructor(options: KeptSetsOptions) {
    this.#options = options
    this.#dir = join(options.dir, 'sets')
    try {
      mkdirSync(this.#dir, { recursive: true, mode: 0o750 })
      for (const name of readdirSync(this.#dir).sort()) this.#load(name)
    } catch (error) {
      throw toPlexusError(error, 'read', this.#dir)
    }
  }

  #load(name: string): void {
    const [, number, uuid] = FOLDER.exec(name) ?? []
    if (number === undefined || uuid === undefined) return
    const folder = join(this.#dir, name)
    const files = readdirSync(folder)
      .filter((one) => one.endsWith('.json'))
      .sort()
    const newest = this.#readAll(folder, files)[Symbol.iterator]().next().value
    this.#sets.set(uuid, { number: Number(number), folder, files, newest })
  }

  /** What can be read, the newest first. A damaged file is passed over: the disks have the truth. */
  *#readAll(folder: string, files: readonly string[]): Generator<KeptConfiguration, undefined> {
    for (const name of files.toReversed()) {
      const path = join(folder, name)
      try {
        const { time, drives, model } = fileSchema.parse(JSON.parse(readFileSync(path, 'utf8')))
        yield { time, drives, model: decodeModel(Buffer.from(JSON.stringify(model))) }
      } catch (error) {
        const { message } = toPlexusError(error, 'read', path)
        this.#options.log.warn(
          { event: 'kept-set-damaged', path },
          `${path} is passed over: ${message}`,
        )
      }
    }
    return undefined
  }

  get known(): readonly KeptConfiguration[] {
    return [...this.#sets.values()]
      .sort((a, b) => a.number - b.number)
      .flatMap(({ newest }) => (newest && newest.model.drives.length > 0 ? newest : []))
  }

  async history(setUuid: string): Promise<readonly KeptConfiguration[]> {
    await this.#writing
    const kept = this.#sets.get(setUuid)
    return kept ? [...this.#readAll(kept.folder, kept.files)] : []
  }

  keep(model: VinumModel, drives: KeptConfiguration['drives']): Promise<void> {
    return this.#inTurn(() => this.#keep(model, drives))
  }

  /** The set will not come back, or what LUNs of this name have led to. Their names are free then. */
  forget(what: { readonly setUuid: string } | { readonly name: string }): Promise<void> {
    return this.#inTurn(async () => {
      if ('name' in what) await this.#options.lunNames.release([what.name])
      else await this.#drop(what.setUuid)
    })
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#writing.then(work)
    this.#writing = done.catch(() => {})
    return done.catch((error: unknown) => {
      throw toPlexusError(error, 'write', this.#dir)
    })
  }

  async #keep(model: VinumModel, drives: KeptConfiguration['drives']): Promise<void> {
    const { setUuid, generation } = model
    const before = this.#sets.get(setUuid)
    const last = before?.newest
    if (last?.model.generation === generation) return
    const kept = before ?? (await this.#begin(setUuid))
    const newest = {
      time: this.#options.now().toISOString(),
      drives: { ...last?.drives, ...drives },
      model,
    }
    const name = `${String(generation).padStart(10, '0')}.json`
    await writeWhole(join(kept.folder, name), {
      format: FORMAT,
      version: VERSION,
      ...newest,
      model: JSON.parse(encodeModel(model).toString()),
    })
    // A set of which an older configuration was assembled goes on from there.
    const older = kept.files.filter((one) => one < name)
    const isSame = last !== undefined && shapeOf(last.model) === shapeOf(model)
    const files = [...(isSame ? older.slice(0, -1) : older), name].slice(-SET_CONFIGURATIONS_KEPT)
    for (const one of kept.files) if (!files.includes(one)) await rm(join(kept.folder, one))
    this.#sets.set(setUuid, { ...kept, files, newest })
    const { lunNames } = this.#options
    const gone = last?.model.volumes.filter(({ uuid, name: old }) => {
      const now = model.volumes.find((one) => one.uuid === uuid)
      return now?.name !== old && lunNames.ledTo(old) === uuid
    })
    await lunNames.release(gone?.map((one) => one.name) ?? [])
  }

  /** The folder of a set that is new here. Sets that have ended make room: the oldest first. */
  async #begin(setUuid: string): Promise<Kept> {
    const all = [...this.#sets].sort(([, a], [, b]) => a.number - b.number)
    const ended = all.find(([, { newest }]) => !newest || newest.model.drives.length === 0)
    if (all.length >= SETS_KEPT && ended) await this.#drop(ended[0])
    const number = (all.at(-1)?.[1].number ?? 0) + 1
    const folder = join(this.#dir, `${String(number).padStart(4, '0')}-${setUuid}`)
    await mkdir(folder, { recursive: true, mode: 0o750 })
    return { number, folder, files: [], newest: undefined }
  }

  async #drop(setUuid: string): Promise<void> {
    const kept = this.#sets.get(setUuid)
    if (!kept) return
    const volumes = kept.newest?.model.volumes ?? []
    await rm(kept.folder, { recursive: true })
    this.#sets.delete(setUuid)
    const { lunNames } = this.#options
    await lunNames.release(
      volumes.flatMap(({ uuid, name }) => (lunNames.ledTo(name) === uuid ? name : [])),
    )
  }
}

/** Names and places, without states and the progress of jobs. A place that is moved to counts: it is written to. */
function shapeOf({ drives, subdisks, plexes, volumes }: VinumModel): string {
  return JSON.stringify([
    drives.map(({ uuid, name }) => [uuid, name]),
    subdisks.map(({ state: _, ...place }) => place),
    plexes.map(({ state: _, parityValidBytes: __, growth: ___, ...plex }) => plex),
    volumes.map(({ state: _, ...volume }) => volume),
  ])
}

/** On disk under its name whole, or not at all. */
async function writeWhole(path: string, content: object): Promise<void> {
  const temporary = `${path}.new`
  const file = await open(temporary, 'w', 0o640)
  try {
    await file.writeFile(`${JSON.stringify(content)}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, path)
  const folder = await open(join(path, '..'), 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

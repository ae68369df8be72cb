/**
 * Engines of virstor that are broken on purpose, for the test of the test: each does one thing sooner than it may. The
 * simulator must find each of them. Used by thin.test.ts.
 */
import { AnchoredDevice } from '../../../src/engine/anchor/anchored-device.ts'
import { GroupCommitter } from '../../../src/engine/virstor/io/committer.ts'
import { VirstorIo } from '../../../src/engine/virstor/io/device-io.ts'
import { ChunkEntries } from '../../../src/engine/virstor/map/chunk-entries.ts'
import { MapTable } from '../../../src/engine/virstor/map/chunk-map.ts'
import type { Place } from '../../../src/engine/virstor/runtime.ts'
import type { ThinFeature } from '../mixture.ts'

interface Breakage {
  /** Breaks the engine; what it returns mends it. */
  readonly breaks: () => () => void
  /** What must happen for it to be found, beside power cuts and devices that are full. */
  readonly more?: readonly ThinFeature[]
}

/** Replaces methods until it is undone. */
function replace<T extends object>(target: T, methods: Partial<T> & ThisType<T>): () => void {
  const names = Object.keys(methods) as (keyof T)[]
  const before = names.map((name) => [name, target[name]] as const)
  Object.assign(target, methods)
  return () => {
    for (const [name, method] of before) target[name] = method
  }
}

export const BROKEN: Readonly<Record<string, Breakage>> = {
  'an entry of the map is durable before its data': {
    breaks: () => replace(GroupCommitter.prototype, { touched: () => {} }),
  },

  'the journal is written without a flush': {
    breaks() {
      const { writeJournal } = AnchoredDevice.prototype
      return replace(AnchoredDevice.prototype, {
        writeJournal(offset, data) {
          return writeJournal.call(this, offset, data, { fua: false })
        },
      })
    },
  },

  'granules are valid before their data is written': {
    breaks() {
      const { assign } = MapTable.prototype
      return replace(MapTable.prototype, {
        assign(chunk, place) {
          assign.call(this, chunk, place)
          this.markValid(chunk, 0, this.granules - 1)
        },
      })
    },
  },

  'a place is given to another chunk before its release is durable': { breaks: reuseAtOnce },

  'what was given up reads as zeroes': {
    breaks: () => replace(ChunkEntries.prototype, { isLost: () => false }),
    more: ['verbs', 'faults'],
  },
}

/** The place is free for the table and for the space as soon as its chunk has none. */
function reuseAtOnce(): () => void {
  const free = new WeakMap<object, Map<string, Place>>()
  const freeIn = (table: object): Map<string, Place> => {
    const places = free.get(table) ?? new Map<string, Place>()
    free.set(table, places)
    return places
  }
  const keyOf = ({ component, number }: Place): string => `${component} ${number}`
  const { release, ownerOf, assign, takeChanges } = MapTable.prototype
  const { commitWhenShort } = VirstorIo.prototype
  const undo = replace(MapTable.prototype, {
    release(chunk) {
      const place = { component: this.componentOf(chunk), number: this.numberOf(chunk) }
      release.call(this, chunk)
      freeIn(this).set(keyOf(place), place)
    },
    ownerOf(place) {
      return freeIn(this).has(keyOf(place)) ? -1 : ownerOf.call(this, place)
    },
    assign(chunk, place) {
      assign.call(this, chunk, place)
      freeIn(this).delete(keyOf(place))
    },
    takeChanges() {
      const set = takeChanges.call(this)
      return Object.assign(set, { released: [] })
    },
  })
  const undoIo = replace(VirstorIo.prototype, {
    commitWhenShort() {
      for (const place of freeIn(this.map).values()) {
        if (!this.space.isFree(place)) this.space.give(place)
      }
      commitWhenShort.call(this)
    },
  })
  return () => {
    undo()
    undoIo()
  }
}

/**
 * What the configuration of a set of drives says, whatever its class: which drives are in it, and what the vote asks of a
 * commit. A class adds its own objects, and says how the whole is written ({@link Codec}). An immutable snapshot;
 * docs/on-disk-format.md.
 */
import { isAligned } from '../../base/bytes.ts'
import { isUuid } from '../../base/random.ts'
import {
  checksOf,
  list,
  maybe,
  oneOf,
  type RecordOf,
  record,
  shown,
  text,
  whole,
} from './fields.ts'

export const DRIVE_STATES = ['down', 'up'] as const
export type DriveState = (typeof DRIVE_STATES)[number]

const DRIVE = {
  uuid: text,
  name: text,
  /** up: a member whose configuration is current; it votes. down: missing, failed, or taken out. */
  state: oneOf(DRIVE_STATES),
  /** Name of the configured device that carried it last: a hint for messages, never an identity. */
  device: text,
  mediaBytes: whole,
  blockBytes: whole,
  /** Where data may lie, absolute on the device. */
  dataStartBytes: whole,
  dataEndBytes: whole,
  /** Of a drive that is down: the last commit that it carried and that counts. What it missed since is known. */
  last: maybe(record({ line: text, generation: whole, payloadCrc: whole })),
}
export type DriveRecord = RecordOf<typeof DRIVE>

/** The fields that every configuration begins with, in the order in which they are written. */
export const SET = {
  setUuid: text,
  /** Of the last commit; 0 before the first one. */
  generation: whole,
  /** What the vote asks of a commit beside its drives (anchor/anchor-quorum.ts, `Commit`). */
  line: text,
  ancestors: list(
    record({
      line: text,
      generation: whole,
      tip: maybe(record({ generation: whole, payloadCrc: whole })),
    }),
  ),
  votersBefore: list(list(text)),
  /** The witness of the machine, while it votes. */
  witness: maybe(text),
  drives: list(record(DRIVE)),
}
export interface SetModel extends RecordOf<typeof SET> {}

/** A configuration as bytes: the payload of an anchor's slot (anchor/anchored-device.ts protects it with its CRC32C). */
export interface Codec<M extends SetModel> {
  /** Equal models give equal bytes. */
  encode(model: M): Buffer
  /** Throws `corrupt`, or `unsupported` for what a newer Plexus has written. */
  decode(bytes: Buffer): M
  /** Bytes that changes of state may add to a configuration at most: verbs leave them free. */
  stateRoomOf(model: M): number
}

/** Throws `corrupt` that names object and field where what a set says of itself and its drives is not sound. */
export function checkSet({ setUuid, line, ancestors, votersBefore, drives }: SetModel): void {
  const check = checksOf('the set')
  const mustBeUuids = (field: string, texts: readonly string[]): void => {
    for (const one of texts) check(field, isUuid(one), `${shown(one)} is not a UUID`)
  }
  const uuids = drives.map(({ uuid }) => uuid)
  mustBeUuids('setUuid', [setUuid])
  mustBeUuids('line', [line, ...ancestors.map((one) => one.line)])
  mustBeUuids('votersBefore', votersBefore.flat())
  check('drives', new Set(uuids).size === uuids.length, 'two have one UUID')
  for (const drive of drives) checkDrive(drive)
}

function checkDrive(drive: DriveRecord): void {
  const { uuid, name, device, blockBytes, mediaBytes, dataStartBytes, dataEndBytes } = drive
  const check = checksOf(`drive ${shown(name)}`)
  check('uuid', isUuid(uuid), `${shown(uuid)} is not a UUID`)
  const isBlock = blockBytes >= 512 && Number.isInteger(Math.log2(blockBytes))
  check('blockBytes', isBlock, `${blockBytes} is not a power of two of at least 512`)
  for (const field of ['mediaBytes', 'dataStartBytes', 'dataEndBytes'] as const) {
    const problem = `${drive[field]} is not a multiple of the block, ${blockBytes}`
    check(field, isAligned(drive[field], blockBytes), problem)
  }
  const isInside = dataStartBytes <= dataEndBytes && dataEndBytes <= mediaBytes
  const area = `${dataStartBytes} to ${dataEndBytes}`
  check('dataEndBytes', isInside, `the data area, ${area}, is not inside ${mediaBytes} bytes`)
  const isShown = !/[\p{C}"]/u.test(`${name}${device}`)
  check('device', isShown, 'it has a control character or a quote')
}

/** Who votes: the drives that the model calls up, and the witness. */
export function votersOf({ drives, witness }: SetModel): readonly string[] {
  const up = drives.filter(({ state }) => state === 'up').map(({ uuid }) => uuid)
  return witness === undefined ? up : [...up, witness]
}

/** The configuration of a set that has no drives yet. */
export function emptySet(setUuid: string): SetModel {
  return {
    setUuid,
    generation: 0,
    line: setUuid,
    ancestors: [],
    votersBefore: [],
    witness: undefined,
    drives: [],
  }
}

/** The name of a set, as people see it. */
export function setName(className: string, uuid: string): string {
  return `${className}-${uuid.slice(0, 8)}`
}

/**
 * What the configuration of a set of drives says, whatever its class: which drives are in it, and what the vote asks of a
 * commit. A class adds its own objects, and says how the whole is written ({@link Codec}). An immutable snapshot;
 * docs/on-disk-format.md.
 */
import { isUuid } from '../../base/random.ts'
import { corrupt, list, maybe, oneOf, type RecordOf, record, shown, text, whole } from './fields.ts'

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

/** Throws `corrupt` that names the field where what a set says of itself and its drives is not sound. */
export function checkSet({ setUuid, line, ancestors, votersBefore, drives }: SetModel): void {
  const lines = [line, ...ancestors.map((one) => one.line)]
  mustBeUuids('setUuid', [setUuid])
  mustBeUuids('line', lines)
  mustBeUuids('votersBefore', votersBefore.flat())
  const uuids = drives.map(({ uuid }) => uuid)
  mustBeUuids('drives', uuids)
  if (new Set(uuids).size !== uuids.length) throw corrupt('model.drives', 'two have one UUID')
  for (const { name, device, mediaBytes, blockBytes, dataStartBytes, dataEndBytes } of drives) {
    const isBlock = blockBytes >= 512 && Number.isInteger(Math.log2(blockBytes))
    const isInside = dataStartBytes <= dataEndBytes && dataEndBytes <= mediaBytes
    const isShown = !/\p{C}/u.test(`${name}${device}`)
    if (isBlock && isInside && isShown) continue
    const what = isShown ? 'its blocks or its data cannot be' : 'it has a control character'
    throw corrupt(`model.drives (${shown(name)})`, what)
  }
}

function mustBeUuids(field: string, texts: readonly string[]): void {
  const odd = texts.find((one) => !isUuid(one))
  if (odd !== undefined) throw corrupt(`model.${field}`, `${shown(odd)} is not a UUID`)
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

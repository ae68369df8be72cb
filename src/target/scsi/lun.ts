/**
 * The 8-byte LUN field (SAM-5, 4.7): decoding of what initiators send, encoding for REPORT LUNS. Plexus has
 * single-level numbers only. Three formats say the same number and all are accepted, since initiators
 * mix them: peripheral device (00b, bus 0, 0 to 255), flat space (01b, 0 to 16383) and extended flat space
 * (11b, length 1, method 2: 24 bits). Well-known logical units are absent. Used by the device server and REPORT LUNS.
 */
import { assert } from '../../base/assert.ts'

export const LUN_FIELD_BYTES = 8
/** Peripheral device addressing reaches this far; REPORT LUNS uses flat space above. */
const PERIPHERAL_MAX = 255
const FLAT_MAX = 0x3fff
const EXTENDED_FLAT = 0xd2

/** The number in a LUN field, or undefined for one that no unit of ours can have. */
export function decodeLun(field: Buffer): number | undefined {
  assert(field.length === LUN_FIELD_BYTES, `a LUN field has 8 bytes, not ${field.length}`)
  const first = field.readUInt32BE(0)
  if (field.readUInt32BE(4) !== 0) return undefined
  const method = first >>> 30
  if (method === 0 || method === 1) {
    if ((first & 0xffff) !== 0) return undefined
    const number = (first >>> 16) & FLAT_MAX
    return method === 0 && number > PERIPHERAL_MAX ? undefined : number
  }
  return first >>> 24 === EXTENDED_FLAT ? first & 0xffffff : undefined
}

/** The field as REPORT LUNS lists it: peripheral device up to 255, flat space up to 16383. */
export function encodeLun(lun: number): Buffer {
  assert(Number.isInteger(lun) && lun >= 0 && lun <= FLAT_MAX, `LUN ${lun} is in 0 to ${FLAT_MAX}`)
  const field = Buffer.alloc(LUN_FIELD_BYTES)
  field.writeUInt16BE(lun <= PERIPHERAL_MAX ? lun : 0x4000 | lun, 0)
  return field
}

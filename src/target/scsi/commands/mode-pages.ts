/**
 * Mode pages (SPC-5, 7.5 and SBC-4, 6.5) as a table: how the state of the unit is written into a page, which
 * bits an initiator may change, and how a page is read back. For MODE SENSE and MODE SELECT (mode.ts).
 * Nothing is saved: PS is 0 everywhere, and the values of a fresh unit are the defaults.
 */
import { THRESHOLD_DESCRIPTOR_AT, thresholdsOf } from '../thresholds.ts'
import type { LogicalUnit, ModeState } from '../types.ts'

export interface ModePage {
  readonly code: number
  /** Page in the subpage format; default: page_0 format. */
  readonly subpage?: number
  readonly name: string
  /** False: this unit has no such page. */
  available?(lu: LogicalUnit): boolean
  /** The whole page, its header included, for that state. */
  values(state: ModeState, lu: LogicalUnit): Buffer
  /** The bits that MODE SELECT may change, in the same layout, with the header as it is. */
  changeable(lu: LogicalUnit): Buffer
  /** Takes the changeable fields of a page into `state`. Absent where nothing can be changed. */
  read?(page: Buffer, state: ModeState, lu: LogicalUnit): void
}

const HEADER_BYTES = 2
/** PAGE CODE with SPF, SUBPAGE CODE, PAGE LENGTH (2). */
const SUBPAGE_HEADER_BYTES = 4
const SUBPAGE_FORMAT = 0x40

/** A page of `length` bytes after its header, with `fields` set by their offset in the page. */
function page(code: number, length: number, fields: Readonly<Record<number, number>>): Buffer {
  const data = Buffer.alloc(HEADER_BYTES + length)
  data[0] = code
  data[1] = length
  for (const [offset, value] of Object.entries(fields)) data[Number(offset)] = value
  return data
}

function flag(on: boolean, mask: number): number {
  return on ? mask : 0
}

/**
 * The write cache that the page speaks of is the device's own, volatile one. A device without one has
 * nothing to turn on or off. While the medium is missing nobody knows, and nothing can be changed.
 */
function hasWriteCache(lu: LogicalUnit): boolean | undefined {
  return lu.device?.features.volatileWriteCache
}

function hasThresholds(lu: LogicalUnit): boolean {
  return thresholdsOf(lu) !== undefined
}

/** The state of a unit that no initiator has changed: after power on and after a reset. */
export function defaultModeState(lu: LogicalUnit): ModeState {
  return {
    writeCacheEnabled: hasWriteCache(lu) ?? true,
    descriptorSense: false,
    softwareWriteProtect: false,
    thresholdNotification: true,
  }
}

/**
 * 01h read-write error recovery: byte 2 AWRE, ARRE: the device reassigns bad blocks by itself; byte 7 LBPERE: it tells of
 * thresholds.
 */
const READ_WRITE_ERROR_RECOVERY = { code: 0x01, length: 0x0a }
const AWRE_ARRE = 0xc0
const LBPERE = 0x80

/** 08h caching: byte 2 IC, ABPF, CAP, DISC, SIZE, WCE, MF, RCD. */
const CACHING = { code: 0x08, length: 0x12 }
const WCE = 0x04

/**
 * 0Ah control: byte 2 TST, TMF_ONLY, DPICZ, D_SENSE, GLTSD, RLEC; byte 3 QUEUE ALGORITHM MODIFIER, NUAR, QERR;
 * byte 4 RAC, UA_INTLCK_CTRL, SWP; byte 5 ATO, TAS, ATMPE, RWWP, AUTOLOAD; byte 8 BUSY TIMEOUT PERIOD (2);
 * byte 10 extended self-test completion time (2).
 * One task set for all nexuses (TST 0), unrestricted reordering (QAM 1), no log parameters to save (GLTSD),
 * a check condition aborts no other task (QERR 0), tasks that another nexus aborts end with TASK ABORTED
 * (TAS 1), unit attentions are reported once (UA_INTLCK_CTRL 0), BUSY may last.
 */
const CONTROL = { code: 0x0a, length: 0x0a }
const D_SENSE = 0x04
const GLTSD = 0x02
const UNRESTRICTED_REORDERING = 0x10
const SWP = 0x08
const TAS = 0x40
const BUSY_UNLIMITED = 0xff

/** 1Ch informational exceptions control: byte 2 PERF, EBF, EWASC, DEXCPT, TEST, EBACKERR, LOGERR; byte 3 MRIE. */
const INFORMATIONAL_EXCEPTIONS = { code: 0x1c, length: 0x0a }
const DEXCPT = 0x08

/**
 * 1Ch/02h logical block provisioning (SBC-4, 6.5.9): byte 4 SITUA; byte 16 threshold descriptors of 8 bytes: byte 0 ENABLED,
 * THRESHOLD TYPE (0: a count), THRESHOLD ARMING (0: decreasing), byte 1 THRESHOLD RESOURCE, byte 4 THRESHOLD COUNT (4). The
 * count is the watermark of the device, which its administrator sets; initiators turn the whole off with LBPERE.
 */
const PROVISIONING = { code: 0x1c, subpage: 0x02, length: 0x14 }
const ENABLED = 0x80
const AVAILABLE_RESOURCES = 0x01

function provisioningPage(): Buffer {
  const data = Buffer.alloc(SUBPAGE_HEADER_BYTES + PROVISIONING.length)
  data[0] = SUBPAGE_FORMAT | PROVISIONING.code
  data[1] = PROVISIONING.subpage
  data.writeUInt16BE(PROVISIONING.length, 2)
  return data
}

/** In ascending order, as MODE SENSE returns all pages. */
const MODE_PAGES: readonly ModePage[] = [
  {
    code: READ_WRITE_ERROR_RECOVERY.code,
    name: 'read-write error recovery',
    values: (state, lu) =>
      page(READ_WRITE_ERROR_RECOVERY.code, READ_WRITE_ERROR_RECOVERY.length, {
        2: AWRE_ARRE,
        7: flag(hasThresholds(lu) && state.thresholdNotification, LBPERE),
      }),
    changeable: (lu) =>
      page(READ_WRITE_ERROR_RECOVERY.code, READ_WRITE_ERROR_RECOVERY.length, {
        7: flag(hasThresholds(lu), LBPERE),
      }),
    read(data, state, lu) {
      if (hasThresholds(lu)) state.thresholdNotification = (data.readUInt8(7) & LBPERE) !== 0
    },
  },
  {
    code: CACHING.code,
    name: 'caching',
    values: (state, lu) =>
      page(CACHING.code, CACHING.length, {
        2: flag(state.writeCacheEnabled && hasWriteCache(lu) !== false, WCE),
      }),
    changeable: (lu) =>
      page(CACHING.code, CACHING.length, { 2: flag(hasWriteCache(lu) === true, WCE) }),
    read(data, state, lu) {
      if (hasWriteCache(lu)) state.writeCacheEnabled = (data.readUInt8(2) & WCE) !== 0
    },
  },
  {
    code: CONTROL.code,
    name: 'control',
    values: (state) =>
      page(CONTROL.code, CONTROL.length, {
        2: GLTSD | flag(state.descriptorSense, D_SENSE),
        3: UNRESTRICTED_REORDERING,
        4: flag(state.softwareWriteProtect, SWP),
        5: TAS,
        8: BUSY_UNLIMITED,
        9: BUSY_UNLIMITED,
      }),
    changeable: () => page(CONTROL.code, CONTROL.length, { 2: D_SENSE, 4: SWP }),
    read(data, state) {
      state.descriptorSense = (data.readUInt8(2) & D_SENSE) !== 0
      state.softwareWriteProtect = (data.readUInt8(4) & SWP) !== 0
    },
  },
  {
    code: INFORMATIONAL_EXCEPTIONS.code,
    name: 'informational exceptions control',
    values: () =>
      page(INFORMATIONAL_EXCEPTIONS.code, INFORMATIONAL_EXCEPTIONS.length, { 2: DEXCPT }),
    changeable: () => page(INFORMATIONAL_EXCEPTIONS.code, INFORMATIONAL_EXCEPTIONS.length, {}),
  },
  {
    ...PROVISIONING,
    name: 'logical block provisioning',
    available: hasThresholds,
    values(_state, lu) {
      const data = provisioningPage()
      data[THRESHOLD_DESCRIPTOR_AT] = ENABLED
      data[THRESHOLD_DESCRIPTOR_AT + 1] = AVAILABLE_RESOURCES
      data.writeUInt32BE(thresholdsOf(lu)?.low ?? 0, THRESHOLD_DESCRIPTOR_AT + 4)
      return data
    },
    changeable: provisioningPage,
  },
]

/** The pages that a unit has. */
export function modePagesOf(lu: LogicalUnit): readonly ModePage[] {
  return MODE_PAGES.filter(({ available }) => available?.(lu) ?? true)
}

export function headerBytesOf({ subpage }: ModePage): number {
  return subpage === undefined ? HEADER_BYTES : SUBPAGE_HEADER_BYTES
}

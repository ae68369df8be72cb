/** Command descriptor blocks for tests (SPC-4, SBC-3), 16 bytes each as the iSCSI command PDU has them. */

function cdb(opcode: number, fill: (bytes: Buffer) => void = () => {}): Buffer {
  const bytes = Buffer.alloc(16)
  bytes[0] = opcode
  fill(bytes)
  return bytes
}

export const testUnitReady = () => cdb(0x00)

/** INQUIRY; `page` asks for vital product data. */
export const inquiry = (allocationBytes = 255, page?: number) =>
  cdb(0x12, (b) => {
    if (page !== undefined) {
      b[1] = 1
      b[2] = page
    }
    b.writeUInt16BE(allocationBytes, 3)
  })

export const requestSense = (allocationBytes = 252) =>
  cdb(0x03, (b) => {
    b[4] = allocationBytes
  })

export const reportLuns = (allocationBytes = 4096) =>
  cdb(0xa0, (b) => {
    b.writeUInt32BE(allocationBytes, 6)
  })

export const readCapacity10 = () => cdb(0x25)

export const readCapacity16 = (allocationBytes = 32) =>
  cdb(0x9e, (b) => {
    b[1] = 0x10
    b.writeUInt32BE(allocationBytes, 10)
  })

const transfer10 = (opcode: number) => (lba: number, blocks: number, flags: number) =>
  cdb(opcode, (b) => {
    b[1] = flags
    b.writeUInt32BE(lba, 2)
    b.writeUInt16BE(blocks, 7)
  })

const transfer16 = (opcode: number) => (lba: number | bigint, blocks: number, flags: number) =>
  cdb(opcode, (b) => {
    b[1] = flags
    b.writeBigUInt64BE(BigInt(lba), 2)
    b.writeUInt32BE(blocks, 10)
  })

export const FUA = 0x08

export const read10 = (lba: number, blocks: number, flags = 0) =>
  transfer10(0x28)(lba, blocks, flags)
export const write10 = (lba: number, blocks: number, flags = 0) =>
  transfer10(0x2a)(lba, blocks, flags)
export const synchronizeCache10 = (lba = 0, blocks = 0) => transfer10(0x35)(lba, blocks, 0)
export const read16 = (lba: number | bigint, blocks: number, flags = 0) =>
  transfer16(0x88)(lba, blocks, flags)
export const write16 = (lba: number | bigint, blocks: number, flags = 0) =>
  transfer16(0x8a)(lba, blocks, flags)

/*
 * The session of load-raw.c and what its two halves share: load-raw.c moves commands and data,
 * load-raw-login.c connects and negotiates and has the digest.
 *
 *   BHS bytes used here (RFC 7143, 11.2.1):  0 opcode and I bit | 1 flags | 4 AHS length
 *   5..7 data length | 8 LUN | 16 ITT | 20 TTT or EDTL | 24 CmdSN or StatSN
 *   28 ExpCmdSN or ExpStatSN | 32 MaxCmdSN | 36 DataSN or R2TSN | 40 buffer offset
 *   44 desired or residual length
 */
#ifndef PLEXUS_BENCH_LOAD_RAW_H
#define PLEXUS_BENCH_LOAD_RAW_H

#include "load.h"

#include <stddef.h>

#define BHS 48u
#define TAGS 2048u
#define RESERVED_TAG 0xffffffffu
#define RECEIVE_SEGMENT 262144u /* the MaxRecvDataSegmentLength that we declare */
#define RECEIVE_BUFFER (4u * RECEIVE_SEGMENT)
#define OUT_ENTRIES 8192u /* a ring: PDUs waiting for the socket */
#define SEND_ENTRIES 64u  /* PDUs in one sendmsg */

struct out_pdu {
  uint8_t head[BHS + 4];
  uint32_t head_bytes;
  const uint8_t *data;
  uint32_t data_bytes;
  uint8_t data_digest[4];
};

struct raw_session {
  struct session base;
  int fd;
  uint8_t lun;
  bool header_digest, data_digest, immediate_data;
  uint32_t segment, first_burst; /* the target's limits */
  uint32_t cmd_sn, exp_stat_sn, max_cmd_sn;
  struct request *tasks[TAGS]; /* by initiator task tag */
  uint32_t next_tag;
  struct request *waiting[TAGS]; /* beyond the CmdSN window, in order */
  uint32_t waiting_head, waiting_tail;
  struct out_pdu *out;
  uint32_t out_head, out_tail;
  uint32_t out_sent; /* bytes of the first entry that are gone */
  uint8_t *in;
  uint32_t in_bytes;
};

static inline void put32(uint8_t *at, uint32_t v) {
  at[0] = (uint8_t)(v >> 24), at[1] = (uint8_t)(v >> 16), at[2] = (uint8_t)(v >> 8), at[3] = (uint8_t)v;
}
static inline uint32_t get32(const uint8_t *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}
static inline uint32_t get24(const uint8_t *at) { return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2]; }
/* Serial number arithmetic (4.2.2.1): a is not after b. */
static inline bool sn_not_after(uint32_t a, uint32_t b) { return (int32_t)(b - a) >= 0; }

/* Prints the reason; false, for the caller to return. */
bool raw_fail(const char *what, uint32_t detail);
/* CRC32C as it goes on the wire: least significant byte first. */
void raw_digest(const uint8_t *at, size_t bytes, uint8_t into[4]);
/* A connected blocking socket to HOST:PORT, -1 when there is none. */
int raw_connect(const char *portal);
/* From the first login request to full feature phase. */
bool raw_login(struct raw_session *session, const struct options *options, int index);
/* Sends or receives all of the bytes on the blocking socket. */
bool raw_exactly(int fd, uint8_t *at, size_t bytes, bool sending);

#endif

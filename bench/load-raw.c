/*
 * Transport of our own: one TCP connection, just enough of an initiator (RFC 7143) to move data with
 * header and data digests, which the libiscsi of today's distributions cannot. ErrorRecoveryLevel is
 * 0: whatever is unexpected ends the run.
 */
#define _GNU_SOURCE
#include "load-raw.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- sending ---- */

/* A fresh entry of the out ring with a zeroed header. */
static struct out_pdu *enqueue(struct raw_session *s) {
  if (s->out_tail - s->out_head == OUT_ENTRIES) {
    raw_fail("send queue is full", OUT_ENTRIES);
    exit(1);
  }
  struct out_pdu *p = &s->out[s->out_tail++ % OUT_ENTRIES];
  memset(p->head, 0, BHS);
  p->data = NULL;
  p->data_bytes = 0;
  return p;
}

static void seal(struct raw_session *s, struct out_pdu *p) {
  p->head[5] = (uint8_t)(p->data_bytes >> 16);
  p->head[6] = (uint8_t)(p->data_bytes >> 8);
  p->head[7] = (uint8_t)p->data_bytes;
  p->head_bytes = BHS;
  if (s->header_digest) {
    raw_digest(p->head, BHS, p->head + BHS);
    p->head_bytes += 4;
  }
  if (s->data_digest && p->data_bytes) raw_digest(p->data, p->data_bytes, p->data_digest);
}

static uint32_t whole_bytes(const struct raw_session *s, const struct out_pdu *p) {
  return p->head_bytes + p->data_bytes + (s->data_digest && p->data_bytes ? 4u : 0u);
}

static bool flush(struct raw_session *s) {
  while (s->out_head != s->out_tail) {
    struct iovec iov[SEND_ENTRIES * 3];
    size_t n = 0;
    uint32_t skip = s->out_sent;
    for (uint32_t i = s->out_head; i != s->out_tail && i - s->out_head < SEND_ENTRIES; i++) {
      struct out_pdu *p = &s->out[i % OUT_ENTRIES];
      const struct iovec parts[3] = {{p->head, p->head_bytes},
                                     {(void *)p->data, p->data_bytes},
                                     {p->data_digest, s->data_digest && p->data_bytes ? 4u : 0u}};
      for (int k = 0; k < 3; k++) {
        uint32_t bytes = (uint32_t)parts[k].iov_len, gone = skip < bytes ? skip : bytes;
        skip -= gone;
        if (bytes == gone) continue;
        iov[n].iov_base = (uint8_t *)parts[k].iov_base + gone;
        iov[n++].iov_len = bytes - gone;
      }
    }
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t sent = sendmsg(s->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return errno == EAGAIN || errno == EINTR ? true : raw_fail("send", (uint32_t)errno);
    uint32_t left = s->out_sent + (uint32_t)sent;
    while (s->out_head != s->out_tail && left >= whole_bytes(s, &s->out[s->out_head % OUT_ENTRIES])) {
      left -= whole_bytes(s, &s->out[s->out_head++ % OUT_ENTRIES]);
    }
    s->out_sent = left;
  }
  return true;
}

static void send_command(struct raw_session *s, struct request *r) {
  uint32_t tag = s->next_tag;
  while (s->tasks[tag % TAGS]) tag++; /* there are more tags than requests */
  s->next_tag = (tag + 1) % TAGS;
  tag %= TAGS;
  s->tasks[tag] = r;
  struct out_pdu *p = enqueue(s);
  uint8_t *h = p->head;
  h[0] = 0x01;                                        /* SCSI Command */
  h[1] = (uint8_t)(0x80 | (r->write ? 0x20 : 0x40) | 1); /* final, direction, simple */
  h[9] = s->lun;
  put32(h + 16, tag);
  put32(h + 20, r->bytes);
  put32(h + 24, s->cmd_sn++);
  put32(h + 28, s->exp_stat_sn);
  h[32] = r->write ? 0x8a : 0x88; /* WRITE(16), READ(16) */
  put32(h + 34, (uint32_t)(r->lba >> 32));
  put32(h + 38, (uint32_t)r->lba);
  put32(h + 42, r->blocks);
  if (r->write && s->immediate_data) {
    uint32_t bytes = r->bytes < s->first_burst ? r->bytes : s->first_burst;
    p->data = r->data;
    p->data_bytes = bytes < s->segment ? bytes : s->segment;
  }
  seal(s, p);
}

static void send_data_out(struct raw_session *s, const uint8_t *r2t) {
  uint32_t tag = get32(r2t + 16), offset = get32(r2t + 40), left = get32(r2t + 44), data_sn = 0;
  struct request *r = tag < TAGS ? s->tasks[tag] : NULL;
  if (!r || !r->write || offset > r->bytes || left > r->bytes - offset || left == 0) {
    raw_fail("R2T does not match its command", tag);
    exit(1);
  }
  while (left > 0) {
    uint32_t bytes = left < s->segment ? left : s->segment;
    struct out_pdu *p = enqueue(s);
    p->head[0] = 0x05; /* Data-Out */
    p->head[1] = bytes == left ? 0x80 : 0;
    p->head[9] = s->lun;
    put32(p->head + 16, tag);
    memcpy(p->head + 20, r2t + 20, 4);
    put32(p->head + 28, s->exp_stat_sn);
    put32(p->head + 36, data_sn++);
    put32(p->head + 40, offset);
    p->data = r->data + offset;
    p->data_bytes = bytes;
    seal(s, p);
    offset += bytes;
    left -= bytes;
  }
}

static void open_window(struct raw_session *s) {
  while (s->waiting_head != s->waiting_tail && sn_not_after(s->cmd_sn, s->max_cmd_sn)) {
    send_command(s, s->waiting[s->waiting_head++ % TAGS]);
  }
}

/* ---- receiving ---- */

static void finish(struct raw_session *s, uint32_t tag, uint8_t status) {
  struct request *r = s->tasks[tag];
  s->tasks[tag] = NULL;
  if (status) {
    fprintf(stderr, "load: %s of %u blocks at %llu: status %u\n", r->write ? "write" : "read",
            r->blocks, (unsigned long long)r->lba, status);
  }
  r->done(r, status);
}

static bool handle(struct raw_session *s, const uint8_t *h, const uint8_t *data, uint32_t bytes) {
  uint8_t opcode = h[0] & 0x3f;
  uint32_t tag = get32(h + 16);
  if (sn_not_after(s->max_cmd_sn, get32(h + 32))) s->max_cmd_sn = get32(h + 32);
  bool status = opcode == 0x21 || (opcode == 0x25 && h[1] & 0x01);
  if (status) s->exp_stat_sn = get32(h + 24) + 1;
  if (opcode == 0x21 || opcode == 0x25) {
    struct request *r = tag < TAGS ? s->tasks[tag] : NULL;
    if (!r) return raw_fail("answer to an unknown task tag", tag);
    if (opcode == 0x25) {
      uint32_t offset = get32(h + 40);
      if (r->write || offset > r->bytes || bytes > r->bytes - offset) {
        return raw_fail("Data-In beyond its buffer", offset);
      }
      memcpy(r->data + offset, data, bytes);
    } else if (h[2] != 0) {
      return raw_fail("iSCSI response code", h[2]);
    } else if (h[3] == 0 && h[1] & 0x06) {
      return raw_fail("good status with a residual count", get32(h + 44));
    }
    if (status) finish(s, tag, h[3]);
  } else if (opcode == 0x31) {
    send_data_out(s, h);
  } else if (opcode == 0x20) { /* NOP-In: answer a ping; ours to them do not exist */
    if (get32(h + 20) != RESERVED_TAG) {
      struct out_pdu *p = enqueue(s);
      p->head[0] = 0x40;
      p->head[1] = 0x80;
      memcpy(p->head + 8, h + 8, 8);
      put32(p->head + 16, RESERVED_TAG);
      memcpy(p->head + 20, h + 20, 4);
      put32(p->head + 24, s->cmd_sn);
      put32(p->head + 28, s->exp_stat_sn);
      seal(s, p);
    }
  } else {
    return raw_fail("unexpected opcode", opcode);
  }
  open_window(s);
  return true;
}

static bool receive(struct raw_session *s) {
  ssize_t got = recv(s->fd, s->in + s->in_bytes, RECEIVE_BUFFER - s->in_bytes, MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR ? true : raw_fail("receive", (uint32_t)errno);
  if (got == 0) return raw_fail("the target closed the connection", 0);
  s->in_bytes += (uint32_t)got;
  uint32_t at = 0;
  uint8_t crc[4];
  for (;;) {
    const uint8_t *h = s->in + at;
    uint32_t have = s->in_bytes - at;
    if (have < BHS) break;
    uint32_t bytes = get24(h + 5), padded = (bytes + 3) & ~3u;
    if (h[4] != 0 || bytes > RECEIVE_SEGMENT) return raw_fail("header with a length we did not declare", bytes);
    uint32_t head = BHS + (s->header_digest ? 4 : 0), tail = s->data_digest && bytes ? 4 : 0;
    if (have < head + padded + tail) break;
    if (s->header_digest && (raw_digest(h, BHS, crc), memcmp(crc, h + BHS, 4))) return raw_fail("header digest is wrong", h[0]);
    if (tail && (raw_digest(h + head, padded, crc), memcmp(crc, h + head + padded, 4))) return raw_fail("data digest is wrong", h[0]);
    at += head + padded + tail;
    if (!handle(s, h, h + head, bytes)) return false;
  }
  memmove(s->in, s->in + at, s->in_bytes - at);
  s->in_bytes -= at;
  return true;
}

/*
 * A command without a request, before the load begins: TEST UNIT READY (which also fetches unit
 * attentions) and READ CAPACITY(16). Returns the SCSI status, -1 when the connection failed.
 */
static int simple(struct raw_session *s, const uint8_t cdb[16], uint8_t *into, uint32_t expected) {
  struct out_pdu *p = enqueue(s);
  p->head[0] = 0x01;
  p->head[1] = (uint8_t)(0x81 | (expected ? 0x40 : 0));
  p->head[9] = s->lun;
  put32(p->head + 16, TAGS);
  put32(p->head + 20, expected);
  put32(p->head + 24, s->cmd_sn++);
  put32(p->head + 28, s->exp_stat_sn);
  memcpy(p->head + 32, cdb, 16);
  seal(s, p);
  if (!flush(s)) return -1;
  for (;;) {
    uint8_t h[BHS + 4], data[65536 + 8];
    if (!raw_exactly(s->fd, h, BHS + (s->header_digest ? 4 : 0), false)) return -1;
    uint32_t bytes = get24(h + 5);
    if (bytes > 65536) return raw_fail("too long an answer", bytes), -1;
    if (!raw_exactly(s->fd, data, ((bytes + 3) & ~3u) + (s->data_digest && bytes ? 4 : 0), false)) return -1;
    uint8_t opcode = h[0] & 0x3f;
    if (opcode != 0x21 && opcode != 0x25) return raw_fail("unexpected opcode", opcode), -1;
    s->max_cmd_sn = get32(h + 32);
    if (opcode == 0x25) memcpy(into, data, bytes < expected ? bytes : expected);
    if (opcode == 0x21 || h[1] & 0x01) {
      s->exp_stat_sn = get32(h + 24) + 1;
      return h[3];
    }
  }
}

static struct session *open_session(const struct options *o, int index) {
  struct raw_session *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->out = calloc(OUT_ENTRIES, sizeof *s->out);
  s->in = malloc(RECEIVE_BUFFER);
  s->lun = (uint8_t)o->lun;
  s->fd = raw_connect(o->portal);
  if (!s->out || !s->in || s->fd < 0) {
    raw_fail("cannot connect", (uint32_t)errno);
    return NULL;
  }
  if (!raw_login(s, o, index)) return NULL;
  static const uint8_t ready[16] = {0};
  static const uint8_t capacity[16] = {0x9e, 0x10, [13] = 32};
  uint8_t answer[32] = {0};
  int status = 2;
  for (int i = 0; i < 8 && status == 2; i++) status = simple(s, ready, answer, 0);
  if (status == 0) status = simple(s, capacity, answer, sizeof answer);
  if (status != 0) {
    raw_fail("the unit is not ready, status", (uint32_t)status);
    return NULL;
  }
  s->base.blocks = ((uint64_t)get32(answer) << 32 | get32(answer + 4)) + 1;
  s->base.block_bytes = get32(answer + 8);
  return &s->base;
}

static bool submit(struct session *base, struct request *r) {
  struct raw_session *s = (struct raw_session *)base;
  s->waiting[s->waiting_tail++ % TAGS] = r;
  open_window(s);
  return true; /* service() or the next turn() sends it, together with others */
}

static int fd_of(struct session *base) { return ((struct raw_session *)base)->fd; }

static short events_of(struct session *base) {
  struct raw_session *s = (struct raw_session *)base;
  return (short)(POLLIN | (s->out_head != s->out_tail ? POLLOUT : 0));
}

static bool service(struct session *base, short revents) {
  struct raw_session *s = (struct raw_session *)base;
  if (revents & (POLLIN | POLLERR | POLLHUP) && !receive(s)) return false;
  return flush(s);
}

/* No logout: the target sees the connection close, which ends a session at ErrorRecoveryLevel 0. */
static void close_session(struct session *base) { close(((struct raw_session *)base)->fd); }

const struct transport raw_transport = {open_session, submit, fd_of, events_of, service, close_session};

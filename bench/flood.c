/*
 * flood: sessions that ask for one cheap thing as fast as they are answered, with a bounded number of requests
 * outstanding, for the fairness benchmark (fairness.ts). One thread; the login is that of load-raw-login.c.
 *
 *   nop          NOP-Out with 1 KiB of data          inquiry      INQUIRY
 *   text         a Text request with a key that      sendtargets  SendTargets=All in discovery sessions
 *                nobody knows
 *
 * RFC 7143 allows one Text request at a time for each connection: --depth counts for the other two.
 */
#define _GNU_SOURCE
#include "load-raw.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define SESSIONS_MAX 64
#define NOP_BYTES 1024u
#define ANSWER_BYTES 255u

static const char UNKNOWN_KEY[] = "X-com.example.flood=1"; /* its null ends it on the wire, too */
static const char ALL_TARGETS[] = "SendTargets=All";

enum kind { NOP, INQUIRY, TEXT, SENDTARGETS, KINDS };
static const char *const NAMES[KINDS] = {"nop", "inquiry", "text", "sendtargets"};

struct flooder {
  struct raw_session s;
  uint32_t outstanding;
};

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* A PDU without digests; `data_bytes` stand behind the header already. */
static bool send_pdu(struct flooder *f, uint8_t *pdu, uint32_t data_bytes) {
  pdu[6] = (uint8_t)(data_bytes >> 8);
  pdu[7] = (uint8_t)data_bytes;
  put32(pdu + 24, f->s.cmd_sn);
  put32(pdu + 28, f->s.exp_stat_sn);
  return raw_exactly(f->s.fd, pdu, BHS + ((data_bytes + 3) & ~3u), true);
}

static bool request(struct flooder *f, enum kind kind) {
  uint8_t pdu[BHS + NOP_BYTES] = {0};
  uint32_t bytes = 0;
  pdu[9] = f->s.lun;
  put32(pdu + 16, f->s.next_tag++ & 0xffff);
  if (kind == NOP) {
    pdu[0] = 0x40;
    pdu[1] = 0x80;
    put32(pdu + 20, RESERVED_TAG);
    bytes = NOP_BYTES;
  } else if (kind == INQUIRY) {
    pdu[0] = 0x01;
    pdu[1] = 0x80 | 0x40 | 1;
    put32(pdu + 20, ANSWER_BYTES);
    pdu[32] = 0x12;
    pdu[36] = ANSWER_BYTES;
  } else {
    pdu[0] = 0x04;
    pdu[1] = 0x80;
    memset(pdu + 8, 0, 8);
    put32(pdu + 20, RESERVED_TAG);
    bytes = kind == TEXT ? sizeof UNKNOWN_KEY : sizeof ALL_TARGETS;
    memcpy(pdu + BHS, kind == TEXT ? UNKNOWN_KEY : ALL_TARGETS, bytes);
  }
  f->outstanding++;
  if (!send_pdu(f, pdu, bytes)) return false;
  if (kind != NOP) f->s.cmd_sn++;
  return true;
}

/* A PDU that has come: true, and *ended where it is the end of an answer. */
static bool take(struct flooder *f, const uint8_t *h, bool *ended) {
  uint8_t opcode = h[0] & 0x3f, more[BHS] = {0};
  *ended = false;
  if (opcode == 0x25 && !(h[1] & 0x01)) return true;
  if (opcode == 0x3f) return raw_fail("a request was rejected, reason", h[2]);
  if (opcode == 0x20 && get32(h + 16) == RESERVED_TAG) { /* a ping */
    if (get32(h + 20) == RESERVED_TAG) return true;
    more[0] = 0x40;
    more[1] = 0x80;
    put32(more + 16, RESERVED_TAG);
    memcpy(more + 20, h + 20, 4);
    return send_pdu(f, more, 0);
  }
  f->s.exp_stat_sn = get32(h + 24) + 1;
  if (sn_not_after(f->s.max_cmd_sn, get32(h + 32))) f->s.max_cmd_sn = get32(h + 32);
  if (opcode == 0x24 && !(h[1] & 0x80)) { /* the text goes on */
    more[0] = 0x04;
    more[1] = 0x80;
    memcpy(more + 16, h + 16, 8);
    if (!send_pdu(f, more, 0)) return false;
    f->s.cmd_sn++;
    return true;
  }
  *ended = true;
  return true;
}

static bool receive(struct flooder *f, uint64_t *answers) {
  struct raw_session *s = &f->s;
  ssize_t got = recv(s->fd, s->in + s->in_bytes, RECEIVE_BUFFER - s->in_bytes, MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR ? true : raw_fail("receive", (uint32_t)errno);
  if (got == 0) return raw_fail("the target closed the connection", 0);
  s->in_bytes += (uint32_t)got;
  uint32_t at = 0;
  while (s->in_bytes - at >= BHS) {
    const uint8_t *h = s->in + at;
    uint32_t whole = BHS + ((get24(h + 5) + 3) & ~3u);
    if (s->in_bytes - at < whole) break;
    bool ended;
    if (!take(f, h, &ended)) return false;
    if (ended) f->outstanding--, ++*answers;
    at += whole;
  }
  memmove(s->in, s->in + at, s->in_bytes - at);
  s->in_bytes -= at;
  return true;
}

static bool may_ask(const struct flooder *f, enum kind kind, uint32_t depth) {
  if (kind == NOP) return f->outstanding < depth;
  if (!sn_not_after(f->s.cmd_sn, f->s.max_cmd_sn)) return false;
  return f->outstanding < (kind == INQUIRY ? depth : 1);
}

static int usage(void) {
  fprintf(stderr, "usage: flood --url iscsi://HOST:PORT/TARGET/LUN --kind nop|inquiry|text|sendtargets\n"
                  "             [--sessions 8] [--depth 32] [--seconds 3]\n");
  return 2;
}

int main(int argc, char **argv) {
  struct options o = {.sessions = 8, .depth = 32, .seconds = 3};
  int kind = KINDS, c;
  static const struct option known[] = {{"url", 1, 0, 'u'},   {"kind", 1, 0, 'k'},    {"sessions", 1, 0, 'c'},
                                        {"depth", 1, 0, 'd'}, {"seconds", 1, 0, 's'}, {0, 0, 0, 0}};
  while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
    switch (c) {
      case 'u': o.url = optarg; break;
      case 'k':
        for (kind = 0; kind < KINDS && strcmp(NAMES[kind], optarg); kind++) continue;
        break;
      case 'c': o.sessions = atoi(optarg); break;
      case 'd': o.depth = atoi(optarg); break;
      case 's': o.seconds = atof(optarg); break;
      default: return usage();
    }
  }
  int used = 0;
  if (!o.url || kind == KINDS || o.sessions < 1 || o.sessions > SESSIONS_MAX || o.depth < 1 || o.depth > 1024 ||
      sscanf(o.url, "iscsi://%255[^/]/%255[^/]/%d%n", o.portal, o.target, &o.lun, &used) != 3 || o.url[used]) {
    return usage();
  }
  o.discovery = kind == SENDTARGETS;
  static struct flooder flooders[SESSIONS_MAX];
  struct pollfd fds[SESSIONS_MAX];
  for (int i = 0; i < o.sessions; i++) {
    struct raw_session *s = &flooders[i].s;
    s->lun = (uint8_t)o.lun;
    s->in = malloc(RECEIVE_BUFFER);
    s->fd = raw_connect(o.portal);
    if (!s->in || s->fd < 0) return raw_fail("cannot connect", (uint32_t)errno), 1;
    if (!raw_login(s, &o, 100 + i)) return 1;
    fds[i] = (struct pollfd){.fd = s->fd, .events = POLLIN};
  }
  uint64_t answers = 0, begin = now(), end = begin + (uint64_t)(o.seconds * 1e9);
  while (now() < end) {
    for (int i = 0; i < o.sessions; i++) {
      while (may_ask(&flooders[i], kind, (uint32_t)o.depth)) {
        if (!request(&flooders[i], kind)) return 1;
      }
    }
    if (poll(fds, (nfds_t)o.sessions, 10) < 0 && errno != EINTR) return perror("flood: poll"), 1;
    for (int i = 0; i < o.sessions; i++) {
      if (fds[i].revents && !receive(&flooders[i], &answers)) return 1;
    }
  }
  double seconds = (double)(now() - begin) / 1e9;
  printf("{\"seconds\":%.3f,\"answers\":%llu,\"answersPerSecond\":%.1f}\n", seconds, (unsigned long long)answers,
         (double)answers / seconds);
  return 0;
}

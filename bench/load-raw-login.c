/*
 * The connection, the login and the digest of our own initiator. Login goes straight to operational
 * negotiation (RFC 7143, 6.3.1: no authentication). Called by load-raw.c and
 * flood.c.
 */
#define _GNU_SOURCE
#include "load-raw.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- CRC32C (13.1): reflected 1EDC6F41h; by the CPU's instruction where there is one ---- */

static uint32_t crc_portable(uint32_t crc, const uint8_t *at, size_t bytes) {
  while (bytes--) {
    crc ^= *at++;
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
  }
  return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc_sse(uint32_t crc, const uint8_t *at, size_t bytes) {
  uint64_t c = crc, w;
  for (; bytes >= 8; bytes -= 8, at += 8) {
    memcpy(&w, at, 8);
    c = __builtin_ia32_crc32di(c, w);
  }
  while (bytes--) c = __builtin_ia32_crc32qi((uint32_t)c, *at++);
  return (uint32_t)c;
}
#endif

/* The digest as it goes on the wire: least significant byte first. */
void raw_digest(const uint8_t *at, size_t bytes, uint8_t into[4]) {
#ifdef __x86_64__
  uint32_t crc = ~(__builtin_cpu_supports("sse4.2") ? crc_sse(~0u, at, bytes) : crc_portable(~0u, at, bytes));
#else
  uint32_t crc = ~crc_portable(~0u, at, bytes);
#endif
  for (int i = 0; i < 4; i++) into[i] = (uint8_t)(crc >> (8 * i));
}

bool raw_fail(const char *what, uint32_t detail) {
  fprintf(stderr, "load: raw initiator: %s (%u)\n", what, detail);
  return false;
}

/* ---- connection and login ---- */

int raw_connect(const char *portal) {
  char host[256];
  snprintf(host, sizeof host, "%s", portal);
  char *port = strrchr(host, ':'), *name = host;
  if (!port || strchr(port, ']')) return -1;
  *port++ = 0;
  if (*name == '[') {
    name++;
    name[strcspn(name, "]")] = 0;
  }
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  if (getaddrinfo(name, port, &hints, &found) != 0) return -1;
  int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
    close(fd);
    fd = -1;
  }
  freeaddrinfo(found);
  if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

bool raw_exactly(int fd, uint8_t *at, size_t bytes, bool sending) {
  while (bytes > 0) {
    ssize_t n = sending ? send(fd, at, bytes, MSG_NOSIGNAL) : recv(fd, at, bytes, 0);
    if (n <= 0) return raw_fail(sending ? "login: send" : "login: the target closed", (uint32_t)errno);
    at += n;
    bytes -= (size_t)n;
  }
  return true;
}

static void take_key(struct raw_session *s, const char *key, const char *value) {
  if (!strcmp(key, "HeaderDigest")) s->header_digest = !strcmp(value, "CRC32C");
  else if (!strcmp(key, "DataDigest")) s->data_digest = !strcmp(value, "CRC32C");
  else if (!strcmp(key, "ImmediateData")) s->immediate_data = !strcmp(value, "Yes");
  else if (!strcmp(key, "MaxRecvDataSegmentLength")) s->segment = (uint32_t)strtoul(value, NULL, 0);
  else if (!strcmp(key, "FirstBurstLength")) s->first_burst = (uint32_t)strtoul(value, NULL, 0);
}

bool raw_login(struct raw_session *s, const struct options *o, int index) {
  char text[2048];
  const char *digest_of_header = o->digests ? "CRC32C" : "None";
  const char *digest_of_data = o->digests == DIGESTS_BOTH ? "CRC32C" : "None";
  /* A key per line; InitialR2T=Yes wins over whatever the target says (13.10). */
  int text_bytes = snprintf(text, sizeof text,
                            "InitiatorName=iqn.2026-01.io.plexus.bench:raw%d\n"
                            "%s%s\n"
                            "HeaderDigest=%s\n"
                            "DataDigest=%s\n"
                            "MaxRecvDataSegmentLength=%u\n"
                            "InitialR2T=Yes\n"
                            "ImmediateData=Yes\n"
                            "FirstBurstLength=262144\n"
                            "MaxBurstLength=1048576\n"
                            "MaxOutstandingR2T=1\n"
                            "MaxConnections=1\n"
                            "ErrorRecoveryLevel=0\n"
                            "DataPDUInOrder=Yes\n"
                            "DataSequenceInOrder=Yes\n"
                            "DefaultTime2Wait=2\n"
                            "DefaultTime2Retain=0\n",
                            index, o->discovery ? "SessionType=Discovery" : "SessionType=Normal\nTargetName=",
                            o->discovery ? "" : o->target, digest_of_header, digest_of_data, RECEIVE_SEGMENT);
  for (int i = 0; i < text_bytes; i++) {
    if (text[i] == '\n') text[i] = 0; /* on the wire each key ends with a null */
  }
  s->segment = 8192; /* the defaults of clause 13 */
  s->first_burst = 65536;
  s->immediate_data = true;
  uint32_t stat_sn = 0;
  for (int round = 0; round < 8; round++) {
    uint8_t pdu[BHS + sizeof text + 4] = {0x43, 0x87}; /* immediate Login; transit from 1 to 3 */
    pdu[6] = (uint8_t)(text_bytes >> 8);
    pdu[7] = (uint8_t)text_bytes;
    pdu[8] = 0x80; /* random ISID */
    pdu[11] = (uint8_t)getpid();
    pdu[13] = (uint8_t)index;
    put32(pdu + 16, 1);
    put32(pdu + 24, 1); /* CmdSN */
    put32(pdu + 28, stat_sn);
    memcpy(pdu + BHS, text, (size_t)text_bytes);
    if (!raw_exactly(s->fd, pdu, BHS + (((size_t)text_bytes + 3) & ~3ul), true)) return false;
    uint8_t answer[BHS + 16384];
    if (!raw_exactly(s->fd, answer, BHS, false)) return false;
    uint32_t bytes = get24(answer + 5);
    if ((answer[0] & 0x3f) != 0x23 || bytes > 16380) return raw_fail("login: not a login response", answer[0]);
    if (!raw_exactly(s->fd, answer + BHS, (bytes + 3) & ~3u, false)) return false;
    if (answer[36]) return raw_fail("login refused, class * 256 + detail", answer[36] * 256u + answer[37]);
    answer[BHS + bytes] = 0;
    for (char *key = (char *)answer + BHS, *end = key + bytes, *next; key < end; key = next) {
      next = key + strlen(key) + 1;
      char *value = strchr(key, '=');
      if (!value) continue;
      *value++ = 0;
      take_key(s, key, value);
    }
    stat_sn = get32(answer + 24) + 1;
    text_bytes = 0;
    if ((answer[1] & 0x83) != 0x83) continue; /* not in full feature phase yet: ask again */
    s->cmd_sn = 1; /* login requests are immediate: they leave CmdSN as it is */
    s->max_cmd_sn = get32(answer + 32);
    s->exp_stat_sn = stat_sn;
    if (s->header_digest != (o->digests != DIGESTS_NONE) ||
        s->data_digest != (o->digests == DIGESTS_BOTH)) {
      return raw_fail("the target declined the digests asked for", 0);
    }
    return true;
  }
  return raw_fail("login does not end", 8);
}

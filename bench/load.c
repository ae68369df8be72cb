/* load: options, sessions and the event loop. Called by bench/client.ts; see load.h and README.md. */
#include "load.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* splitmix64: any seed is good, 0 as well. */
uint64_t random_u64(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

bool turn(struct session **sessions, int count, int timeout_ms) {
  struct pollfd fds[count];
  for (int i = 0; i < count; i++) {
    fds[i].fd = sessions[i]->transport->fd(sessions[i]);
    fds[i].events = sessions[i]->transport->events(sessions[i]);
    fds[i].revents = 0;
  }
  if (poll(fds, (nfds_t)count, timeout_ms) < 0) {
    if (errno == EINTR) return true;
    perror("load: poll");
    return false;
  }
  for (int i = 0; i < count; i++) {
    if (!sessions[i]->transport->service(sessions[i], fds[i].revents)) return false;
  }
  return true;
}

static const char USAGE[] =
    "usage: load --url iscsi://HOST:PORT/TARGET/LUN --mode MODE [options]\n"
    "  MODE   rr rw sr sw  random or sequential read or write; mix: 70 % random reads\n"
    "         fill         write the pattern over the span\n"
    "         check        read the span and compare it with the pattern\n"
    "         verify       write and read back in random sizes and order, then check all\n"
    "  --bytes N      of a request (the largest one in verify modes), 4096\n"
    "  --depth N      requests in flight per session, 1\n"
    "  --sessions N   1\n"
    "  --seconds S    measured time, 3 (verify: the least time it writes and reads)\n"
    "  --warmup S     time before it, 0.5\n"
    "  --span N       bytes from the start of the unit that are used; default: all of it\n"
    "  --seed N       of the places and of the pattern, 1\n"
    "  --server-pid P measure the CPU time of this process\n"
    "  --digests none|header|both   CRC32C; `both` needs --raw\n"
    "  --raw          our own initiator instead of libiscsi (no CHAP)\n"
    "CHAP: LIBISCSI_CHAP_USERNAME, LIBISCSI_CHAP_PASSWORD, LIBISCSI_CHAP_TARGET_USERNAME and\n"
    "LIBISCSI_CHAP_TARGET_PASSWORD in the environment, as with the tools of libiscsi.\n"
    "Modes that write destroy the content of the unit.\n";

static void refuse(const char *why) {
  fprintf(stderr, "load: %s\n%s", why, USAGE);
  exit(2);
}

static uint64_t number(const char *text, uint64_t min, uint64_t max) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 0);
  if (errno || end == text || *end || *text == '-' || value < min || value > max) {
    fprintf(stderr, "load: \"%s\" is not a number from %llu to %llu\n", text,
            (unsigned long long)min, (unsigned long long)max);
    exit(2);
  }
  return value;
}

static double duration(const char *text) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end || !(value >= 0 && value <= 1e6)) refuse("not a time in seconds");
  return value;
}

static struct options parse(int argc, char **argv) {
  struct options o = {.bytes = 4096, .depth = 1, .sessions = 1, .seconds = 3, .warmup = 0.5, .seed = 1};
  static const struct option known[] = {
      {"url", 1, 0, 'u'},     {"mode", 1, 0, 'm'},       {"bytes", 1, 0, 'b'}, {"depth", 1, 0, 'd'},
      {"sessions", 1, 0, 'c'}, {"seconds", 1, 0, 's'},   {"warmup", 1, 0, 'w'}, {"span", 1, 0, 'n'},
      {"seed", 1, 0, 'e'},    {"server-pid", 1, 0, 'p'}, {"digests", 1, 0, 'g'}, {"raw", 0, 0, 'r'},
      {0, 0, 0, 0}};
  int c;
  while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
    switch (c) {
      case 'u': o.url = optarg; break;
      case 'm': o.mode = optarg; break;
      case 'b': o.bytes = (uint32_t)number(optarg, 512, 64 << 20); break;
      case 'd': o.depth = (int)number(optarg, 1, 1024); break;
      case 'c': o.sessions = (int)number(optarg, 1, 256); break;
      case 's': o.seconds = duration(optarg); break;
      case 'w': o.warmup = duration(optarg); break;
      case 'n': o.span = number(optarg, 512, 1ull << 60); break;
      case 'e': o.seed = number(optarg, 0, UINT64_MAX); break;
      case 'p': o.server_pid = (int)number(optarg, 1, 1 << 30); break;
      case 'g':
        if (!strcmp(optarg, "none")) o.digests = DIGESTS_NONE;
        else if (!strcmp(optarg, "header")) o.digests = DIGESTS_HEADER;
        else if (!strcmp(optarg, "both")) o.digests = DIGESTS_BOTH;
        else refuse("--digests is none, header or both");
        break;
      case 'r': o.raw = true; break;
      default: refuse("unknown option");
    }
  }
  if (optind != argc || !o.url || !o.mode) refuse("--url and --mode are needed");
  int used = 0;
  if (sscanf(o.url, "iscsi://%255[^/]/%255[^/]/%d%n", o.portal, o.target, &o.lun, &used) != 3 ||
      o.url[used] || o.lun < 0 || o.lun > 255) {
    refuse("the URL is iscsi://HOST:PORT/TARGET/LUN");
  }
  o.user = getenv("LIBISCSI_CHAP_USERNAME");
  o.secret = getenv("LIBISCSI_CHAP_PASSWORD");
  o.target_user = getenv("LIBISCSI_CHAP_TARGET_USERNAME");
  o.target_secret = getenv("LIBISCSI_CHAP_TARGET_PASSWORD");
  if (o.digests == DIGESTS_BOTH && !o.raw) refuse("libiscsi has no data digest: add --raw");
  if (o.raw && o.user) refuse("--raw cannot authenticate: unset LIBISCSI_CHAP_USERNAME");
  return o;
}

int main(int argc, char **argv) {
  struct options options = parse(argc, argv);
  const struct transport *transport = options.raw ? &raw_transport : &libiscsi_transport;
  struct session *sessions[options.sessions];
  for (int i = 0; i < options.sessions; i++) {
    sessions[i] = transport->open(&options, i);
    if (!sessions[i]) return 1;
    sessions[i]->transport = transport;
  }
  uint64_t media = sessions[0]->blocks * sessions[0]->block_bytes;
  if (!options.span || options.span > media) options.span = media;
  if (options.bytes % sessions[0]->block_bytes || options.span < options.bytes) {
    fprintf(stderr, "load: %u bytes per request do not suit blocks of %u bytes and a span of %llu\n",
            options.bytes, sessions[0]->block_bytes, (unsigned long long)options.span);
    return 2;
  }
  bool verify = !strcmp(options.mode, "fill") || !strcmp(options.mode, "check") ||
                !strcmp(options.mode, "verify");
  int status = verify ? run_verify(&options, sessions) : run_workload(&options, sessions);
  if (status == 0) {
    for (int i = 0; i < options.sessions; i++) transport->close(sessions[i]);
  }
  return status;
}

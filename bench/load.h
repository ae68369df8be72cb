/*
 * load: the load generator and data checker of the benchmark. This header is the seam between
 *
 *   load.c            options, the event loop, the report as one line of JSON
 *   load-workload.c   timed random, sequential and mixed I/O with latencies and CPU times
 *   load-verify.c     a pattern that knows its place: fill, check, verify
 *   load-libiscsi.c   transport over libiscsi, the one all targets are compared with
 *   load-raw.c        transport of our own over a TCP socket, because the libiscsi of today's
 *                     distributions (1.19) has no data digest; its login is in load-raw-login.c, which
 *                     flood.c, a program of its own, uses, too
 *
 * One thread, any number of sessions. A request belongs to the workload; the transport borrows it
 * from submit() until it calls done().
 */
#ifndef PLEXUS_BENCH_LOAD_H
#define PLEXUS_BENCH_LOAD_H

#include <stdbool.h>
#include <stdint.h>

enum digests { DIGESTS_NONE, DIGESTS_HEADER, DIGESTS_BOTH };

struct options {
  const char *url;
  char portal[256];
  char target[256];
  int lun;
  const char *mode;
  uint32_t bytes;     /* of one request; the largest one in verify modes */
  int depth;          /* requests in flight per session */
  int sessions;
  double seconds;     /* measured window */
  double warmup;      /* seconds before it */
  uint64_t span;      /* bytes of the device that are used, 0: all */
  uint64_t seed;
  int server_pid;     /* whose CPU time is measured, 0: nobody's */
  enum digests digests;
  bool raw;           /* load-raw.c instead of load-libiscsi.c */
  bool discovery;     /* raw_login: a discovery session, without a target */
  const char *user, *secret;               /* CHAP of the initiator, from the environment */
  const char *target_user, *target_secret; /* CHAP of the target */
};

struct session;

struct request {
  struct session *session;
  uint64_t lba;
  uint32_t blocks;
  uint32_t bytes;
  uint8_t *data;
  bool write;
  uint64_t started_ns;
  /* status: 0 good, above 0 the SCSI status, below 0 the transport failed */
  void (*done)(struct request *request, int status);
  void *owner;
};

/* What a transport offers. Functions that return bool print the reason before they return false. */
struct transport {
  struct session *(*open)(const struct options *options, int index);
  bool (*submit)(struct session *session, struct request *request);
  int (*fd)(struct session *session);
  short (*events)(struct session *session);
  bool (*service)(struct session *session, short revents);
  void (*close)(struct session *session);
};

/* Every transport's session begins with this. */
struct session {
  const struct transport *transport;
  uint64_t blocks;      /* of the logical unit */
  uint32_t block_bytes;
};

extern const struct transport libiscsi_transport;
extern const struct transport raw_transport;

uint64_t now_ns(void);
uint64_t random_u64(uint64_t *state);

/*
 * One turn of the event loop: waits up to timeout_ms, then lets the sessions read and write. False
 * when a session failed.
 */
bool turn(struct session **sessions, int count, int timeout_ms);

/* Both print their report; the exit status of the process is returned. */
int run_workload(const struct options *options, struct session **sessions);
int run_verify(const struct options *options, struct session **sessions);

/* No completion for so long means that the target hangs. */
#define STUCK_NS 15000000000ull

#endif

/*
 * Timed load: keeps `depth` requests per session in flight, counts those that end inside the measured
 * window, and takes the CPU times of this process and of the server at its two edges.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* Latencies in nanoseconds: 128 linear steps per power of two, so an error below 0.8 %. */
#define STEP_BITS 7
#define STEPS (1u << STEP_BITS)
#define BUCKETS ((64 - STEP_BITS + 1) * STEPS)

enum phase { WARMUP, MEASURE, DRAIN };

struct workload {
  const struct options *options;
  uint64_t places; /* request sized places in the span */
  uint64_t next;   /* of a sequential load */
  uint64_t random;
  bool sequential;
  int write_percent;
  enum phase phase;
  uint32_t block_bytes;
  int in_flight;
  uint64_t ops, sum_ns, max_ns, errors, last_ns;
  uint64_t gap_ns; /* the longest time without any completion */
  uint64_t buckets[BUCKETS];
};

static uint32_t bucket_of(uint64_t ns) {
  if (ns < STEPS) return (uint32_t)ns;
  uint32_t top = 63u - (uint32_t)__builtin_clzll(ns);
  return (top - STEP_BITS + 1) * STEPS + (uint32_t)((ns >> (top - STEP_BITS)) & (STEPS - 1));
}

/* The middle of a bucket. */
static double bucket_ns(uint32_t bucket) {
  if (bucket < STEPS) return bucket;
  uint32_t top = bucket / STEPS + STEP_BITS - 1;
  uint64_t width = 1ull << (top - STEP_BITS);
  return (double)((1ull << top) + (bucket % STEPS) * width) + (double)width / 2;
}

static double percentile_us(const struct workload *w, double fraction) {
  uint64_t wanted = (uint64_t)((double)w->ops * fraction), seen = 0;
  for (uint32_t i = 0; i < BUCKETS; i++) {
    seen += w->buckets[i];
    if (seen > wanted || (seen == w->ops && seen > 0)) return bucket_ns(i) / 1e3;
  }
  return 0;
}

static bool issue(struct workload *w, struct request *r) {
  uint64_t place = (w->sequential ? w->next++ : random_u64(&w->random)) % w->places;
  r->lba = place * r->blocks;
  r->write = w->write_percent == 100 ||
             (w->write_percent > 0 && random_u64(&w->random) % 100 < (uint64_t)w->write_percent);
  r->started_ns = now_ns();
  w->in_flight++;
  return r->session->transport->submit(r->session, r);
}

static void done(struct request *r, int status) {
  struct workload *w = r->owner;
  uint64_t now = now_ns(), ns = now - r->started_ns;
  w->in_flight--;
  if (w->phase == MEASURE && now - w->last_ns > w->gap_ns) w->gap_ns = now - w->last_ns;
  w->last_ns = now;
  if (status != 0) w->errors++;
  else if (w->phase == MEASURE) {
    w->ops++;
    w->sum_ns += ns;
    if (ns > w->max_ns) w->max_ns = ns;
    w->buckets[bucket_of(ns)]++;
  }
  if (w->phase != DRAIN && w->errors < 10 && !issue(w, r)) w->errors++;
}

struct cpu_times {
  uint64_t at_ns;
  double client, server; /* seconds */
};

static struct cpu_times cpu_now(const struct options *o) {
  struct cpu_times t = {.at_ns = now_ns()};
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  t.client = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
             (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
  clockid_t clock;
  struct timespec s;
  /* The CPU clock of another process: all its threads, to the nanosecond (stat has 10 ms ticks). */
  if (o->server_pid && clock_getcpuclockid(o->server_pid, &clock) == 0 &&
      clock_gettime(clock, &s) == 0) {
    t.server = (double)s.tv_sec + (double)s.tv_nsec / 1e9;
  }
  return t;
}

static bool choose(struct workload *w, const char *mode) {
  static const struct {
    const char *name;
    bool sequential;
    int write_percent;
  } MODES[] = {{"rr", false, 0}, {"rw", false, 100}, {"sr", true, 0}, {"sw", true, 100}, {"mix", false, 30}};
  for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++) {
    if (strcmp(mode, MODES[i].name)) continue;
    w->sequential = MODES[i].sequential;
    w->write_percent = MODES[i].write_percent;
    return true;
  }
  fprintf(stderr, "load: unknown mode \"%s\"\n", mode);
  return false;
}

int run_workload(const struct options *o, struct session **sessions) {
  struct workload *w = calloc(1, sizeof *w);
  int count = o->depth * o->sessions;
  struct request *requests = calloc((size_t)count, sizeof *requests);
  if (!w || !requests || !choose(w, o->mode)) return 2;
  w->options = o;
  w->block_bytes = sessions[0]->block_bytes;
  w->places = o->span / o->bytes;
  w->random = o->seed;

  uint64_t begin_ns = now_ns(), warm_ns = begin_ns + (uint64_t)(o->warmup * 1e9);
  w->last_ns = begin_ns;
  for (int i = 0; i < count; i++) {
    struct request *r = &requests[i];
    r->session = sessions[i % o->sessions];
    r->bytes = o->bytes;
    r->blocks = o->bytes / w->block_bytes;
    r->data = aligned_alloc(4096, (o->bytes + 4095u) & ~4095u);
    r->done = done;
    r->owner = w;
    if (!r->data) return 2;
    for (uint32_t at = 0; at < o->bytes; at++) r->data[at] = (uint8_t)(at * 7 + (uint32_t)i * 37 + 1);
    if (!issue(w, r)) return 1;
  }

  struct cpu_times start = {0}, end = {0};
  uint64_t end_ns = UINT64_MAX;
  while (w->in_flight > 0) {
    if (!turn(sessions, o->sessions, 100)) return 1;
    uint64_t now = now_ns();
    if (w->phase == WARMUP && now >= warm_ns) {
      start = cpu_now(o);
      end_ns = start.at_ns + (uint64_t)(o->seconds * 1e9);
      w->phase = MEASURE;
    } else if (w->phase == MEASURE && now >= end_ns) {
      end = cpu_now(o);
      w->phase = DRAIN;
    }
    if (now - w->last_ns > STUCK_NS && now > w->last_ns) {
      fprintf(stderr, "load: %d requests in flight and no answer for 15 s\n", w->in_flight);
      return 1;
    }
  }
  if (w->phase != DRAIN) {
    fprintf(stderr, "load: gave up after %llu errors\n", (unsigned long long)w->errors);
    return 1;
  }
  double seconds = (double)(end.at_ns - start.at_ns) / 1e9;
  printf("{\"seconds\":%.6f,\"ops\":%llu,\"iops\":%.1f,\"bytesPerSecond\":%.0f,\"meanUs\":%.2f,"
         "\"p50Us\":%.2f,\"p99Us\":%.2f,\"p999Us\":%.2f,\"maxUs\":%.2f,\"gapUs\":%.2f,\"clientCpuS\":%.6f,"
         "\"serverCpuS\":%.6f,\"errors\":%llu}\n",
         seconds, (unsigned long long)w->ops, (double)w->ops / seconds,
         (double)w->ops * o->bytes / seconds, w->ops ? (double)w->sum_ns / 1e3 / (double)w->ops : 0,
         percentile_us(w, 0.5), percentile_us(w, 0.99), percentile_us(w, 0.999),
         (double)w->max_ns / 1e3, (double)w->gap_ns / 1e3, end.client - start.client, end.server - start.server,
         (unsigned long long)w->errors);
  return w->errors ? 1 : 0;
}

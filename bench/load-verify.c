/*
 * Data check. The pattern is a function of the seed and of the place on the unit alone, so that a
 * block that lands in the wrong place, an old block or half a block is found, and so that `check` can
 * follow a `fill` of an earlier process (a restart of the target between them, say).
 *
 * `verify` adds what real use adds: it writes the span in random sizes and random order with many
 * requests in flight, each version of a block from another generation, reads pieces back while others
 * are written, and checks every block at the end. Requests in flight never overlap, since the order
 * of overlapping commands is not defined (SAM-5, simple task attribute).
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct verify {
  const struct options *options;
  uint32_t block_bytes;
  uint64_t blocks;       /* of the span */
  uint8_t *generations;  /* of each block; 255: never written, not checked */
  uint8_t *busy;         /* bit per block: in flight */
  uint64_t random;
  uint64_t next;         /* of a sweep */
  bool sweep, stop;
  int write_percent;
  uint64_t in_flight, written, checked, errors, mismatches, last_ns;
};

#define NEVER_WRITTEN 255u
#define GENERATIONS 255u

static uint64_t word(uint64_t seed, uint32_t generation, uint64_t byte_offset) {
  uint64_t state = (seed * GENERATIONS + generation) * 0x2545f4914f6cdd1dull ^ byte_offset;
  return random_u64(&state);
}

static void make(const struct verify *v, uint64_t block, uint8_t *into) {
  uint64_t start = block * v->block_bytes;
  for (uint32_t at = 0; at < v->block_bytes; at += 8) {
    uint64_t w = word(v->options->seed, v->generations[block], start + at);
    memcpy(into + at, &w, 8);
  }
}

static void compare(struct verify *v, uint64_t block, const uint8_t *got) {
  uint64_t start = block * v->block_bytes;
  if (v->generations[block] == NEVER_WRITTEN) return;
  v->checked += v->block_bytes;
  for (uint32_t at = 0; at < v->block_bytes; at += 8) {
    uint64_t want = word(v->options->seed, v->generations[block], start + at), is;
    memcpy(&is, got + at, 8);
    if (want == is) continue;
    if (v->mismatches++ < 10) {
      fprintf(stderr, "load: MISMATCH at LBA %llu + %u: want %016llx (generation %u), got %016llx\n",
              (unsigned long long)block, at, (unsigned long long)want, v->generations[block],
              (unsigned long long)is);
    }
    return; /* one report per block */
  }
}

static bool is_busy(const struct verify *v, uint64_t block) {
  return v->busy[block / 8] >> (block % 8) & 1;
}

static void set_busy(struct verify *v, const struct request *r, bool busy) {
  for (uint64_t b = r->lba; b < r->lba + r->blocks; b++) {
    if (busy) v->busy[b / 8] |= (uint8_t)(1u << (b % 8));
    else v->busy[b / 8] &= (uint8_t)~(1u << (b % 8));
  }
}

/* Picks a free place and a size; false when there is nothing to do now. */
static bool place(struct verify *v, struct request *r) {
  uint64_t most = v->options->bytes / v->block_bytes;
  /* Half of the requests are small, as in real use; the others spread over all sizes. */
  uint64_t limit = random_u64(&v->random) % 2 ? most : (most < 16 ? most : 16);
  uint64_t want = 1 + random_u64(&v->random) % limit;
  uint64_t at;
  if (v->sweep) {
    if (v->next >= v->blocks) return false;
    at = v->next;
  } else {
    at = random_u64(&v->random) % v->blocks;
    for (int tries = 0; is_busy(v, at); tries++) {
      if (tries == 16) return false;
      at = random_u64(&v->random) % v->blocks;
    }
  }
  uint64_t length = 0;
  while (length < want && at + length < v->blocks && !is_busy(v, at + length)) length++;
  if (length == 0) return false;
  r->lba = at;
  r->blocks = (uint32_t)length;
  r->bytes = (uint32_t)(length * v->block_bytes);
  if (v->sweep) v->next = at + length;
  return true;
}

/* Sends the next request of a phase; one that finds no place has 0 bytes and is idle. */
static void issue(struct verify *v, struct request *r) {
  r->bytes = 0;
  if (v->stop || !place(v, r)) return;
  r->write = random_u64(&v->random) % 100 < (uint64_t)v->write_percent;
  if (r->write) {
    for (uint32_t i = 0; i < r->blocks; i++) {
      uint64_t block = r->lba + i;
      /* A fill leaves generation 0, which a later `check` expects. */
      if (v->sweep || v->generations[block] == NEVER_WRITTEN) v->generations[block] = 0;
      else v->generations[block] = (uint8_t)((v->generations[block] + 1) % GENERATIONS);
      make(v, block, r->data + (size_t)i * v->block_bytes);
    }
  } else {
    /* Stale bytes of an earlier read must not look like the answer. */
    memset(r->data, 0xa5, r->bytes);
  }
  set_busy(v, r, true);
  v->in_flight++;
  if (r->session->transport->submit(r->session, r)) return;
  v->errors++;
  v->in_flight--;
  v->stop = true;
}

static void done(struct request *r, int status) {
  struct verify *v = r->owner;
  set_busy(v, r, false);
  v->in_flight--;
  v->last_ns = now_ns();
  if (status != 0) {
    v->errors++;
    v->stop = true;
    return;
  }
  if (r->write) v->written += r->bytes;
  else {
    for (uint32_t i = 0; i < r->blocks; i++) {
      compare(v, r->lba + i, r->data + (size_t)i * v->block_bytes);
    }
    if (v->mismatches) v->stop = true;
  }
  issue(v, r);
}

/* Runs one phase until its sweep is over, or until `seconds` have passed. */
static bool phase(struct verify *v, struct session **sessions, struct request *requests,
                  bool sweep, int write_percent, double seconds) {
  const struct options *o = v->options;
  uint64_t end_ns = now_ns() + (uint64_t)(seconds * 1e9);
  v->sweep = sweep;
  v->write_percent = write_percent;
  v->next = 0;
  v->stop = false;
  v->last_ns = now_ns();
  for (int i = 0; i < o->depth * o->sessions; i++) requests[i].bytes = 0;
  do {
    for (int i = 0; i < o->depth * o->sessions; i++) {
      if (!requests[i].bytes) issue(v, &requests[i]);
    }
    if (v->in_flight == 0) break;
    if (!turn(sessions, o->sessions, 100)) return false;
    uint64_t now = now_ns();
    if (!sweep && now >= end_ns) v->stop = true;
    if (now > v->last_ns && now - v->last_ns > STUCK_NS) {
      fprintf(stderr, "load: %llu requests in flight and no answer for 15 s\n",
              (unsigned long long)v->in_flight);
      return false;
    }
  } while (v->in_flight > 0 || !v->stop);
  return v->errors == 0 && v->mismatches == 0;
}

int run_verify(const struct options *o, struct session **sessions) {
  struct verify v = {.options = o, .block_bytes = sessions[0]->block_bytes, .random = o->seed + 1};
  v.blocks = o->span / v.block_bytes;
  v.generations = malloc(v.blocks);
  v.busy = calloc(v.blocks / 8 + 1, 1);
  int count = o->depth * o->sessions;
  struct request *requests = calloc((size_t)count, sizeof *requests);
  if (!v.generations || !v.busy || !requests) return 2;
  bool check_only = !strcmp(o->mode, "check");
  memset(v.generations, check_only ? 0 : (int)NEVER_WRITTEN, v.blocks);
  for (int i = 0; i < count; i++) {
    requests[i].session = sessions[i % o->sessions];
    requests[i].data = aligned_alloc(4096, (o->bytes + 4095u) & ~4095u);
    requests[i].done = done;
    requests[i].owner = &v;
    if (!requests[i].data) return 2;
  }
  bool good;
  if (check_only) good = phase(&v, sessions, requests, true, 0, 0);
  else {
    good = phase(&v, sessions, requests, true, 100, 0);
    if (good && !strcmp(o->mode, "verify")) {
      good = phase(&v, sessions, requests, false, 50, o->seconds) &&
             phase(&v, sessions, requests, true, 0, 0);
    }
  }
  printf("{\"mode\":\"%s\",\"ok\":%s,\"writtenBytes\":%llu,\"checkedBytes\":%llu,\"errors\":%llu,"
         "\"mismatches\":%llu}\n",
         o->mode, good ? "true" : "false", (unsigned long long)v.written,
         (unsigned long long)v.checked, (unsigned long long)v.errors,
         (unsigned long long)v.mismatches);
  return good ? 0 : 1;
}

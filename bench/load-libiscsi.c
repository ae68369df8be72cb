/*
 * Transport over libiscsi, the library that qemu and many others use as their initiator. The
 * prototypes stand here so that the run time package is enough (no -dev package): they are those of
 * the stable interface of libiscsi 1.12 and later (libiscsi.so.7 and up).
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct iscsi_context;
struct scsi_task;
struct scsi_readcapacity16 { /* the head of the library's structure */
  uint64_t returned_lba;
  uint32_t block_length;
};
typedef void (*iscsi_command_cb)(struct iscsi_context *, int, void *, void *);

struct iscsi_context *iscsi_create_context(const char *);
int iscsi_destroy_context(struct iscsi_context *);
int iscsi_set_targetname(struct iscsi_context *, const char *);
int iscsi_set_session_type(struct iscsi_context *, int);
int iscsi_set_header_digest(struct iscsi_context *, int);
int iscsi_set_initiator_username_pwd(struct iscsi_context *, const char *, const char *);
int iscsi_set_target_username_pwd(struct iscsi_context *, const char *, const char *);
void iscsi_set_noautoreconnect(struct iscsi_context *, int);
int iscsi_full_connect_sync(struct iscsi_context *, const char *, int);
int iscsi_logout_sync(struct iscsi_context *);
const char *iscsi_get_error(struct iscsi_context *);
int iscsi_get_fd(struct iscsi_context *);
int iscsi_which_events(struct iscsi_context *);
int iscsi_service(struct iscsi_context *, int);
struct scsi_task *iscsi_readcapacity16_sync(struct iscsi_context *, int);
void *scsi_datain_unmarshall(struct scsi_task *);
void scsi_free_scsi_task(struct scsi_task *);
int scsi_task_add_data_in_buffer(struct scsi_task *, int, unsigned char *);
struct scsi_task *iscsi_read16_task(struct iscsi_context *, int, uint64_t, uint32_t, int, int, int,
                                    int, int, int, iscsi_command_cb, void *);
struct scsi_task *iscsi_write16_task(struct iscsi_context *, int, uint64_t, unsigned char *, uint32_t,
                                     int, int, int, int, int, int, iscsi_command_cb, void *);

#define SESSION_NORMAL 2
#define HEADER_DIGEST_NONE 0
#define HEADER_DIGEST_CRC32C 3

struct libiscsi_session {
  struct session base;
  struct iscsi_context *iscsi;
  int lun;
};

static struct iscsi_context *context_of(struct session *s) {
  return ((struct libiscsi_session *)s)->iscsi;
}

static struct session *open_session(const struct options *o, int index) {
  struct libiscsi_session *s = calloc(1, sizeof *s);
  char name[96];
  snprintf(name, sizeof name, "iqn.2026-01.io.plexus.bench:load%d", index);
  struct iscsi_context *iscsi = s ? iscsi_create_context(name) : NULL;
  if (!iscsi) {
    fprintf(stderr, "load: no memory for a session\n");
    return NULL;
  }
  s->iscsi = iscsi;
  s->lun = o->lun;
  iscsi_set_targetname(iscsi, o->target);
  iscsi_set_session_type(iscsi, SESSION_NORMAL);
  iscsi_set_header_digest(iscsi, o->digests ? HEADER_DIGEST_CRC32C : HEADER_DIGEST_NONE);
  if (o->user) iscsi_set_initiator_username_pwd(iscsi, o->user, o->secret ? o->secret : "");
  if (o->target_user) {
    iscsi_set_target_username_pwd(iscsi, o->target_user, o->target_secret ? o->target_secret : "");
  }
  if (iscsi_full_connect_sync(iscsi, o->portal, o->lun) != 0) {
    fprintf(stderr, "load: login to %s: %s\n", o->url, iscsi_get_error(iscsi));
    return NULL;
  }
  /* A lost connection must end the run, not hide in a reconnect. */
  iscsi_set_noautoreconnect(iscsi, 1);
  struct scsi_task *task = iscsi_readcapacity16_sync(iscsi, o->lun);
  struct scsi_readcapacity16 *capacity = task ? scsi_datain_unmarshall(task) : NULL;
  if (!capacity) {
    fprintf(stderr, "load: READ CAPACITY(16) of %s: %s\n", o->url, iscsi_get_error(iscsi));
    return NULL;
  }
  s->base.blocks = capacity->returned_lba + 1;
  s->base.block_bytes = capacity->block_length;
  scsi_free_scsi_task(task);
  return &s->base;
}

static void completed(struct iscsi_context *iscsi, int status, void *task, void *private_data) {
  struct request *r = private_data;
  if (status != 0) {
    fprintf(stderr, "load: %s of %u blocks at %llu: status %d: %s\n", r->write ? "write" : "read",
            r->blocks, (unsigned long long)r->lba, status, iscsi_get_error(iscsi));
  }
  if (task) scsi_free_scsi_task(task);
  r->done(r, status);
}

static bool submit(struct session *base, struct request *r) {
  struct libiscsi_session *s = (struct libiscsi_session *)base;
  int block_bytes = (int)base->block_bytes;
  struct scsi_task *task =
      r->write ? iscsi_write16_task(s->iscsi, s->lun, r->lba, r->data, r->bytes, block_bytes, 0, 0, 0,
                                    0, 0, completed, r)
               : iscsi_read16_task(s->iscsi, s->lun, r->lba, r->bytes, block_bytes, 0, 0, 0, 0, 0,
                                   completed, r);
  if (!task || (!r->write && scsi_task_add_data_in_buffer(task, (int)r->bytes, r->data) != 0)) {
    fprintf(stderr, "load: submit: %s\n", iscsi_get_error(s->iscsi));
    return false;
  }
  return true;
}

static int fd_of(struct session *s) { return iscsi_get_fd(context_of(s)); }

static short events_of(struct session *s) { return (short)iscsi_which_events(context_of(s)); }

static bool service(struct session *s, short revents) {
  if (iscsi_service(context_of(s), revents) == 0) return true;
  fprintf(stderr, "load: connection: %s\n", iscsi_get_error(context_of(s)));
  return false;
}

static void close_session(struct session *s) {
  iscsi_logout_sync(context_of(s));
  iscsi_destroy_context(context_of(s));
}

const struct transport libiscsi_transport = {open_session, submit, fd_of, events_of, service, close_session};

/**
 * Every limit of Plexus has its name here; `assertLimits` checks how they relate. Reaching one never
 * grows memory: it closes the CmdSN window, queues in bounded order, or answers TASK SET FULL.
 * Lengths are bytes unless the name says otherwise.
 */
import { assert } from './assert.ts'

export const KIB = 1024
export const MIB = 1024 * KIB
export const GIB = 1024 * MIB

/** Alignment of every I/O buffer address: a page, which satisfies O_DIRECT on any device. */
export const PAGE_BYTES = 4096

/** Largest data transfer of one SCSI command; VPD B0 MAXIMUM TRANSFER LENGTH announces it. */
export const MAX_TRANSFER_BYTES = 4 * MIB
/**
 * READ and WRITE take more than they announce, in pieces: firmware and some drivers never look at VPD B0 and ask for
 * 65,535 blocks at once. Enough for that many of 4 KiB.
 */
export const LARGE_TRANSFER_BYTES = 256 * MIB
/** The slab grows and shrinks its size classes by chunks of this size; no lease is larger. */
export const POOL_CHUNK_BYTES = MAX_TRANSFER_BYTES
/** Size classes of leases, smallest first. */
export const POOL_CLASS_BYTES = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1 * MIB, 4 * MIB] as const
export const POOL_BYTES_DEFAULT = 256 * MIB
export const POOL_BYTES_MIN = 32 * MIB
export const POOL_BYTES_MAX = 2 * GIB

/** The least that one READ or WRITE of a session may hold of the pool, however little is free; a longer one goes in pieces. */
export const PIECE_BYTES_MIN = 256 * KIB
/** A task whose handler finds the pool empty waits so long, and is then TASK SET FULL. */
export const POOL_WAIT_MS = 10_000

/** Operations of one device that are with the kernel at once, fewer where many share the ring; the rest waits in order. */
export const DEVICE_QUEUE_DEPTH = 256
/** Discards and write-zeroes of one device that are with the kernel at once: each may hold a thread for long. */
export const DEVICE_RANGE_DEPTH = 2
/** Submission entries of the io_uring of one process: seven devices have their whole depth within half of it. */
export const RING_ENTRIES = 4096
/** Submission entries handed over in one io_uring_enter, so that the event loop stays fair. */
export const RING_BATCH = 64
/** Wait after the kernel took no submission for lack of memory. */
export const RING_RETRY_MS = 1
/** Worker threads of the `threads` I/O engine. */
export const IO_THREADS = 8
/** Starts of one transfer again after EINTR or EAGAIN, before it fails. */
export const IO_RETRIES = 16
/** How often an open device is looked at for a change of size or for its loss. */
export const DEVICE_POLL_MS = 3_000
/** A disk that does not answer a request within this time is called down, unless its configuration says otherwise. */
export const DEVICE_TIMEOUT_MS = 30_000
export const DEVICE_TIMEOUT_MS_MIN = 1_000
export const DEVICE_TIMEOUT_MS_MAX = 3_600_000
/** How often the requests under way to a disk are looked at: a request is overdue up to so much later. */
export const ANSWER_LOOK_MS = 1_000
/** Zeroes written at once where a device cannot zero a range by itself. */
export const ZERO_WRITE_BYTES = 1 * MIB
/** Bytes of one discard or write-zeroes call to the kernel, so that none lasts too long. */
export const RANGE_STEP_BYTES = 1 * GIB

// RFC 7143 operational values that Plexus offers (clause 13).
export const MAX_RECV_DATA_SEGMENT_BYTES = 256 * KIB
export const FIRST_BURST_BYTES = 256 * KIB
export const MAX_BURST_BYTES = 1 * MIB
export const MAX_OUTSTANDING_R2T = 8
/** Commands in the CmdSN window of one session. */
export const COMMAND_WINDOW = 128
/** The window never closes further than this while a session lives. */
export const COMMAND_WINDOW_MIN = 4
/** Immediate commands and task management requests pending in one session beside the window. */
export const IMMEDIATE_COMMANDS = 16
export const TIME2WAIT_S = 2
export const TIME2RETAIN_S = 0
/** Negotiation text of one login or text exchange over all its PDUs (RFC 7143, 6.1 demands 8192). */
export const TEXT_BYTES = 16 * KIB
/** PDUs over which one text may be spread by the C bit; 16 KiB in the smallest segments (512 bytes) need 32. */
export const TEXT_PARTS = 64
/** Text of one Text response, also where the initiator would take more at once. */
export const TEXT_ANSWER_BYTES = 64 * KIB
/** Answers to SendTargets that are kept until the configuration changes. */
export const SEND_TARGETS_KEPT_BYTES = 4 * MIB
/** Keys in one text exchange. */
export const TEXT_KEYS = 128
/** Name of a key in negotiation text (RFC 7143, 6.1). */
export const TEXT_KEY_BYTES = 63
/** Value of a key where its definition does not say otherwise (RFC 7143, 6.1). */
export const TEXT_VALUE_BYTES = 255
/** An iSCSI name in UTF-8 (RFC 7143, 4.2.7.1). */
export const ISCSI_NAME_BYTES = 223
/** A CHAP challenge or response, decoded (RFC 7143, 12.1.3). */
export const CHAP_BINARY_BYTES = 1024
/** CHAP secrets: 96 bits at least without IPsec (RFC 7143, 9.2.1); Windows takes 12 to 16 bytes. */
export const CHAP_SECRET_MIN_BYTES = 12
export const CHAP_SECRET_MAX_BYTES = 255
/** Data segment of a PDU before the login has ended. */
export const LOGIN_SEGMENT_BYTES = 8 * KIB
/** Requests of one login before it is given up. */
export const LOGIN_REQUESTS = 32

/** Lines in the log that one peer can cause in a period: refused logins, dropped connections, rejected PDUs. */
export const STRANGER_LOG_LINES = 10
/** Peers that have an allowance of their own; those beyond share one. */
export const STRANGER_LOG_PEERS = 32
export const STRANGER_LOG_PERIOD_MS = 10_000
/** Events of logins and ends of sessions that one initiator can cause at one target in a period. */
export const SESSION_EVENTS = 6
export const SESSION_EVENT_PERIOD_MS = 600_000
/** The same refused login is one event in this time, however often it is tried. */
export const REFUSED_EVENT_PERIOD_MS = 3_600_000
/** From accept to full feature phase. */
export const LOGIN_TIMEOUT_MS = 15_000
export const NOP_INTERVAL_MS = 15_000
export const NOP_TIMEOUT_MS = 15_000
/** After this time without a byte a connection ends: of Data-Out that was asked for; of answers that the initiator takes. */
export const DATA_OUT_TIMEOUT_MS = 30_000
export const SEND_TIMEOUT_MS = 30_000
/** The same for sessions that hold buffers while less than an eighth of the pool is free: the others wait for them. */
export const PRESSED_TIMEOUT_MS = 2000
/** Connections that have not logged in yet. Each holds 8 KiB, and 40 KiB at most while its text comes and goes. */
export const LOGINS_PENDING_DEFAULT = 1024
export const LOGINS_PENDING_MIN = 16
export const LOGINS_PENDING_MAX = 4096
/** Connections that the kernel keeps while the event loop is busy; it takes net.core.somaxconn at most. */
export const LISTEN_BACKLOG = 1024
/** Sessions of all initiators, and of one address unless the configuration says otherwise. */
export const SESSIONS_DEFAULT = 256
export const SESSIONS_MAX = 1024
/** Discovery sessions have places of their own, and end this long after their login. */
export const DISCOVERY_SESSIONS_DEFAULT = 32
export const DISCOVERY_SESSIONS_MAX = 256
export const DISCOVERY_LIFETIME_MS = 60_000
/**
 * When the places for sessions are taken, those that have been silent for SILENT_SESSION_MS are pinged, and one that has not
 * answered within DEAD_SESSION_MS gives its place to the login, which is looked at again every PLACE_RETRY_MS.
 */
export const SILENT_SESSION_MS = 1_000
export const DEAD_SESSION_MS = 3_000
export const PLACE_RETRY_MS = 250
/**
 * Two hosts with one initiator name and ISID reinstate each other's session. The log says so after this many times in a row,
 * each within TAKEOVER_MS of the one before.
 */
export const TAKEOVERS_TOLD = 3
export const TAKEOVER_MS = 60_000
/** File descriptors that connections leave to disks, the log and the control sockets. */
export const DESCRIPTORS_RESERVED = 64
/** Bytes waiting in one connection's send queue before nothing more is read from it: after a login, and otherwise. */
export const SEND_QUEUE_BYTES = 8 * MIB
export const SEND_QUEUE_BYTES_MIN = 64 * KIB
/** Heap memory in all send queues: the fuller it is the less one connection may have, down to the minimum above. */
export const SEND_QUEUES_BYTES = 64 * MIB

/** Time in each turn of the event loop for connections that have sent more than they could get processed at once. */
export const TURN_MS = 0.09375
/** Time of one of them before the next one is served; at least one PDU is processed. */
export const SLICE_MS = 0.09375
/** Work of one connection without a pause after which nothing more is read from it before its next turn. */
export const SPENT_MS = 0.25
/** Time for requests that are answered without a device is owed so many times, and so much of it at most. */
export const OWED_TIMES = 4
export const OWED_MS_MAX = 5
/** A connection counts among those that share the event loop for about so long. */
export const ACTIVE_MS = 5

/** The event loop stays awake that long after a command of a session with at most so many commands under way. */
export const AWAKE_MS = 0.1
export const AWAKE_TURNS = 500
export const AWAKE_COMMANDS = 8

/** SIGTERM: time for initiators to log out after the asynchronous logout request. */
export const DRAIN_LOGOUT_MS = 3_000
/** SIGTERM: time for commands in flight and for the last flush. */
export const DRAIN_IO_MS = 20_000

/** Between two attempts to open a device that is busy or failing; arrivals are noticed sooner. */
export const DEVICE_RETRY_MS = 10_000
/** A device that a LUN exports as it is has this long to show what it carries; later it is looked at again. */
export const LABEL_READ_MS = 15_000
export const LABEL_RETRY_MS = 30_000
/** A reload waits this long for I/O in flight on a device that it takes away. */
export const DEVICE_CLOSE_MS = 5_000

export const LUNS_PER_TARGET = 256

/** LBAs of one UNMAP command and its block descriptors (VPD B0). */
export const UNMAP_DESCRIPTORS = 256
/** Logical blocks of all descriptors of one UNMAP together: VPD B0 MAXIMUM UNMAP LBA COUNT. */
export const UNMAP_BLOCKS = 1024 * 1024
/**
 * Logical blocks of one WRITE SAME: VPD B0 MAXIMUM WRITE SAME LENGTH, with WSNZ = 0. A longer NUMBER OF
 * LOGICAL BLOCKS, or 0 where the rest of the unit is longer, is refused with 05/24/00 (SBC-4, 5.49).
 */
export const MAX_WRITE_SAME_BLOCKS = 32 * 1024
/** Largest piece in which VERIFY, WRITE SAME and their kin read or write the medium. */
export const MEDIUM_CHUNK_BYTES = 1 * MIB
/** Bytes zeroed by one request, so that an aborted WRITE SAME or UNMAP stops soon. */
export const ZERO_CHUNK_BYTES = 64 * MIB
/** Reads, and the time for them, with which the first bad block of a range that cannot be read is looked for. */
export const BAD_BLOCK_READS = 64
export const BAD_BLOCK_MS = 10_000
/** Runs of blocks, at most, that one GET LBA STATUS looks at and reports. */
export const LBA_STATUS_RUNS = 64
/** Unit attentions that one logical unit keeps for one nexus. */
export const UNIT_ATTENTIONS = 8
/** Logical block of a unit that has never had a device. */
export const BLOCK_BYTES_DEFAULT = 512
/** Blocks of one COMPARE AND WRITE (VPD B0; the field has one byte). */
export const COMPARE_AND_WRITE_BLOCKS = 255

/** One stripe unit of a striped or raid5 plex; vinum's default. */
export const STRIPE_BYTES_DEFAULT = 256 * KIB
/** Subdisks lie at multiples of 4 KiB, so a unit is not smaller; a unit fits one lease of the pool. */
export const STRIPE_BYTES_MIN = 4 * KIB
export const STRIPE_BYTES_MAX = POOL_CHUNK_BYTES
/** Subdisks of one plex. */
export const SUBDISKS_PER_PLEX = 64
/** Plexes of one volume. */
export const PLEXES_PER_VOLUME = 8

/** One step of a job: what it holds locked, reads and writes at once. */
export const JOB_STEP_BYTES = 1 * MIB
/** The same, on each drive, where a step overlaps its reads with its writes and its drives serve nobody else. */
export const JOB_STEP_ALONE_BYTES = 4 * MIB
/** A step that overlaps is done in slices of this size on each drive, so many of them at once. */
export const JOB_SLICE_BYTES = 256 * KIB
export const JOB_SLICES = 4
/** Progress of a job becomes durable this often, and when it pauses or ends. */
export const JOB_CHECKPOINT_MS = 10_000
/** In this unit a check of mirrors compares and counts. */
export const CHECK_UNIT_BYTES = 4 * KIB
/** Data that a growth moves before it commits its cursor: each commit costs two flushes on every drive. */
export const GROW_WINDOW_BYTES = 4 * MIB
/** Between two attempts to write a window of a growth that is in its backup alone. */
export const GROW_RETRY_MS = 5_000
/** Drives on which the window of a growth is kept while its old place is overwritten. */
export const GROW_BACKUPS = 2
/** Jobs that work at the same time; the rest waits in line. */
export const JOBS_RUNNING = 4
/** Ended jobs that the list still shows. */
export const JOBS_ENDED_SHOWN = 16
/** A job with a rate limit does no more at once than this part of a second, down to the smallest step. */
export const JOB_BURST_MS = 100
export const JOB_STEP_MIN_BYTES = 64 * KIB
/** The shown rate of a job is the mean over this time. */
export const JOB_RATE_WINDOW_MS = 10_000
/** Between two steps a job rests as long as the last one took, within these bounds, while the drives serve others. */
export const JOB_REST_MIN_MS = 1
export const JOB_REST_MAX_MS = 100
/** A growth that waits for the turn of another one looks again after so long. */
export const GROWTH_TURN_MS = 20
/** A region of a mirror or raid5 volume without writes for so long may lose its mark in the intent map. */
export const INTENT_CLEAR_MS = 5_000
/**
 * Parts of regions whose copies may differ are remembered in so many pieces for each volume, beyond that whole regions;
 * and as many ranges of them that all copies have got because a reader has: beyond that they get them with each read.
 */
export const INTENT_PIECES = 4096
/** A volume has as many blocks of intent map as let a region be no larger, where its drives have room for them. */
export const INTENT_REGION_BYTES_WANTED = 64 * MIB
/** Blocks of one intent map that are written to a drive at once. */
export const INTENT_BLOCKS_AT_ONCE = 32
/** So many bits of the intent map are cleared at once: the others 5 s later. */
export const INTENT_CLEAR_REGIONS = 65_536
/** A set of drives that fails sooner than this after its assembly is assembled again only after this time. */
export const SET_RETRY_MS = 10_000

/** How often a set looks whether its witness can be written, so that a read-only folder is noticed before a disk fails. */
export const WITNESS_PROBE_MS = 5 * 60_000
/** A note of the witness that is not written or read by then counts as lost: its folder may hang, and no change may wait. */
export const WITNESS_WRITE_MS = 3000
/** Name of a vinum object or job. */
export const NAME_BYTES = 63
/** Units looked at to tell whether a piece of a volume has a valid copy; odd geometries beyond it count as without. */
export const COVERAGE_STEPS = 65_536
/** Between a failed write or resync of a volume with copies and the next attempt to make them equal. */
export const RESYNC_RETRY_MS = 30_000
/** A column is out of service for so long before a spare takes its place, unless its pool says otherwise; and the most. */
export const SPARE_DELAY_S = 30
export const SPARE_DELAY_S_MAX = 7 * 24 * 3600
/** After a spare could not be filled, or a column not be copied: until it is tried again by itself. */
export const SPARE_RETRY_MS = 10 * 60_000
/** How often the drives of volumes with spares are looked at, whatever else happens. */
export const SPARE_LOOK_MS = 60_000
/** An idle spare is tested so long after the start, and from then on so often. */
export const SPARE_FIRST_TEST_MS = 10 * 60_000
export const SPARE_TEST_MS = 24 * 3_600_000
/** A drive with so many failed reads since the start is weak: what it has is copied to a spare before it fails. */
export const SPARE_WEAK_READS = 64
/** Why a spare is broken, as it is kept. */
export const SPARE_REASON_CHARS = 120
/** Pools of a set. */
export const SPARE_POOLS = 64
/** Events that `plexus events` can look back at. */
export const EVENT_HISTORY = 1000
/** Events that wait for the program of `hooks.onEvent`; what does not fit is counted. */
export const HOOK_EVENTS = 256
/** One call of it may last so long; then SIGTERM, and SIGKILL so much later. */
export const HOOK_MS = 30_000
export const HOOK_KILL_MS = 2_000
/** Between two calls: to start a process stops the event loop for some milliseconds. */
export const HOOK_REST_MS = 50
/** SIGTERM of plexusd: time for the calls that wait, once everything else has ended. */
export const HOOK_END_MS = 2_000
/** Text of an event that the program gets, and output of one call that the log takes, in characters. */
export const HOOK_TEXT_CHARS = 4096

/** Long work of the daemon that is cut into turns of the event loop (base/turns.ts) uses so much of each. */
export const LONG_WORK_MS = 8
/** Devices that are opened, and labels that are read, at once: each takes a part of a turn. */
export const DEVICES_AT_ONCE = 8
/** Rows of a configuration in one message between threads. */
export const CONFIG_PIECE_ROWS = 250
/** Problems of a configuration that are described; the rest is counted. */
export const CONFIG_PROBLEMS = 100

/** One request to the daemon: a configuration file fits in it. */
export const CONTROL_LINE_BYTES = 1 * MIB
/** One answer of the daemon, as the client takes it. */
export const CONTROL_ANSWER_BYTES = 64 * MIB
/** Clients of one control socket, and requests of one client that are not answered yet. */
export const CONTROL_CLIENTS = 64
export const CONTROL_REQUESTS = 16
/** Part of the event loop's time that all clients of status.sock, which is open to everybody, get at most. */
export const STATUS_SHARE = 1 / 5
/** Bytes that wait for a client which does not read, before it is dropped; one answer is always allowed. */
export const CONTROL_QUEUE_BYTES = 4 * MIB
/** A client without a request under way leaves after this time. */
export const CONTROL_IDLE_MS = 60_000
/** The longest that `wait` holds a request open; the client asks again. */
export const CONTROL_WAIT_MS = 30_000
/** A command that only looks gives up after this time: the daemon hangs. */
export const CONTROL_LOOK_MS = 5_000
/** How often a command that follows something looks for a daemon that has ended. */
export const CONTROL_RECONNECT_MS = 1_000
/** A client gives the daemon this long for an answer; verbs that label many devices take a while. */
export const CONTROL_ANSWER_MS = 120_000
/** Configurations of a set of drives that are kept in the state folder, and sets of which some are. */
export const SET_CONFIGURATIONS_KEPT = 20
export const SETS_KEPT = 32
/** Backups of the configuration that are kept. */
export const CONFIG_BACKUPS = 20

/** Parts of a raid5 plex that are remembered as lost, each; beyond, neighbours count as one (raid5/lost.ts). */
export const LOST_RANGES = 128

/** Scratch of one row update or one degraded read of RAID5: what is larger is done in slices. */
export const RAID5_SCRATCH_BYTES = 1 * MIB
/** Rows of one request that are updated side by side. */
export const RAID5_ROWS_AT_ONCE = 16
/** Whole rows that one write of zeroes locks together. */
export const RAID5_ZERO_ROWS = 256
/** Columns of a plex: each has a page at least in the scratch of a row. */
export const RAID5_COLUMNS = 128
/** Scratch of one step of a RAID5 job, over all columns. */
export const RAID5_JOB_BYTES = 4 * MIB
/** Its slices are at least as large before there is more than one at once. */
export const RAID5_SLICE_MIN_BYTES = 64 * KIB
/** After a read error in a check, a unit is read in pieces of this size, and only bad ones are written again. */
export const RAID5_REPAIR_BYTES = 64 * KIB

/** Chunks of a virstor device, and physical chunks of one component: their map is 1 GiB of memory. */
export const VIRSTOR_CHUNKS = 2 ** 26
/** Blocks of the journal that one commit of a virstor device writes at once: a ring has room for more. */
export const VIRSTOR_COMMIT_BLOCKS = 16
/** Pages of a virstor map are read, and neighbours are written, in pieces of this size. */
export const VIRSTOR_MAP_IO_BYTES = 1 * MIB
/** The reverse map of a component of a virstor device is made in pieces of so many places. */
export const VIRSTOR_OWNER_PIECE = 2 ** 14
/** Entries of a virstor map that cannot be right and are described, each; all are out of service. */
export const VIRSTOR_MAP_FAULTS = 1000
/** Findings of one check of a virstor device that are described; all are counted. */
export const VIRSTOR_FSCK_FINDINGS = 1000
/** A change of a virstor map that nobody flushes becomes durable after so long, and at once with so many of them. */
export const VIRSTOR_COMMIT_MS = 5_000
export const VIRSTOR_COMMIT_ENTRIES = 4096
/** With so many, a discard waits for a commit before it changes more: each takes some hundred bytes. */
export const VIRSTOR_COMMIT_BACKLOG = 16 * VIRSTOR_COMMIT_ENTRIES
/**
 * Writes that wait for physical space of one virstor device, and their buffers together; more are TASK SET FULL. Few, as
 * they hold a part of their session's command window and of its share of the buffer pool.
 */
export const VIRSTOR_SPACE_WAITERS = 16
export const VIRSTOR_SPACE_WAIT_BYTES = 1 * MIB
/** How long a virstor device that is full lets writes wait, unless it is created with another time; and the most. */
export const VIRSTOR_FULL_WAIT_MS = 20_000
export const VIRSTOR_FULL_WAIT_MS_MAX = 600_000
/** Free space of a virstor device that is with one discard of a component at most: nobody gets it meanwhile. */
export const VIRSTOR_TRIM_BYTES = 256 * MIB
/** Chunks that one discard looks at in a turn of the event loop. */
export const VIRSTOR_DISCARD_CHUNKS = 8192
/** Zeroes up to the border of a granule are written from memory up to so many; more are left to the component. */
export const VIRSTOR_ZERO_BYTES = 256 * KIB
/** Space of a virstor device is low with so many free chunks, but a tenth of all at most, unless it is created with others. */
export const VIRSTOR_CHUNK_WATERMARK = 100
/** And with so many percent of all. */
export const VIRSTOR_PERCENT_WATERMARK = 10
/** And with so many components that are still empty. */
export const VIRSTOR_COMPONENT_WATERMARK = 1

/** A resize of a drive copies its map and journal in pieces of this size. */
export const RESIZE_COPY_BYTES = 1 * MIB

/** Checks the relations between limits; called at start and by a test. */
export function assertLimits(): void {
  assert(POOL_CLASS_BYTES.at(-1) === POOL_CHUNK_BYTES, 'the largest size class is the chunk')
  assert(MAX_TRANSFER_BYTES <= POOL_CHUNK_BYTES, 'one transfer fits one lease')
  assert(FIRST_BURST_BYTES <= MAX_BURST_BYTES, 'RFC 7143, 13.14: FirstBurst <= MaxBurst')
  assert(MAX_BURST_BYTES <= MAX_TRANSFER_BYTES, 'a burst fits a transfer')
  assert(FIRST_BURST_BYTES <= PIECE_BYTES_MIN, 'unsolicited data fits the first piece')
  assert(
    POOL_CLASS_BYTES.some((size) => size === PIECE_BYTES_MIN),
    'the least piece is a class',
  )
  assert(RING_BATCH <= RING_ENTRIES, 'a batch fits the ring')
  assert(COMMAND_WINDOW_MIN <= COMMAND_WINDOW, 'the window has room to close')
  assert(POOL_BYTES_MIN % POOL_CHUNK_BYTES === 0, 'the pool is whole chunks')
  assert(
    COMMAND_WINDOW_MIN * FIRST_BURST_BYTES * 4 <= POOL_BYTES_MIN,
    'the smallest pool holds the unsolicited data of a few narrow sessions',
  )
  assert(
    (RAID5_COLUMNS + 1) * PAGE_BYTES <= RAID5_SCRATCH_BYTES && RAID5_JOB_BYTES <= POOL_CHUNK_BYTES,
    'the scratch of RAID5 has a page for each column and is one lease',
  )
  assert(TEXT_BYTES >= 8192, 'RFC 7143, 6.1: at least 8192 bytes of negotiation text')
}

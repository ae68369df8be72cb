/** What the command line prints, word for word, from fixed reports. */
import t from 'tap'
import { EVENT_COLUMNS } from '../../src/cli/lists.ts'
import { renderObjects } from '../../src/cli/objects.ts'
import { renderPlan, renderWarnings } from '../../src/cli/plan.ts'
import { endText, progressBar, progressLine } from '../../src/cli/progress.ts'
import { type Column, printable, renderTable, type TableOptions } from '../../src/cli/render.ts'
import { quantileMs, renderLoad, statRows } from '../../src/cli/stat.ts'
import { checkExit, renderStatus } from '../../src/cli/status.ts'
import { renderTree } from '../../src/cli/tree.ts'
import type { OpCounters, StatReport, StatusReport } from '../../src/control/daemon-reports.ts'
import type { EventReport, ObjectReport } from '../../src/control/reports.ts'
import { VINUM_TYPES } from '../../src/engine/vinum/types.ts'
import { aJob, aVolume, NO_ERRORS } from '../support/control.ts'

const PLAIN: TableOptions = { headings: true, exact: false, verbose: false, colour: false }

function subdisk(index: number, over: Partial<ObjectReport> = {}): ObjectReport {
  return {
    type: 'subdisk',
    className: 'vinum',
    set: 'vinum-00000000',
    parent: 'db.p0',
    name: `db.p0.s${index}`,
    uuid: '',
    state: 'UP',
    sizeBytes: 2000398934016,
    errors: NO_ERRORS,
    note: '',
    drive: `d${index + 1}`,
    device: `d${index + 1}`,
    facts: {},
    ...over,
  }
}

const DEGRADED: readonly ObjectReport[] = [
  aVolume({
    state: 'DEGRADED',
    health: 'DEGRADED',
    note: 'raid5 over 4 drives of 1.82 TiB, 1 missing',
    status:
      'Drive d3 stopped answering at 14:02:11. Data is intact; one more failure would lose it.',
    action: 'plexus volume replace db d3 NEW-DEVICE',
    process: aJob(),
    exported: [{ target: 'iqn.2026-01.lab.plexus:db', lun: 0, sessions: ['esx1', 'esx2'] }],
  }),
  {
    type: 'plex',
    className: 'vinum',
    set: 'vinum-00000000',
    name: 'db.p0',
    parent: 'db',
    uuid: '',
    state: 'DEGRADED',
    sizeBytes: 6001196802048,
    errors: NO_ERRORS,
    note: 'raid5, 256 KiB stripe',
    facts: {},
  },
  subdisk(0),
  subdisk(1, { device: 'disk-b' }),
  subdisk(2, {
    state: 'DOWN',
    device: undefined,
    errors: { read: 7, write: 12, parity: 0 },
    note: 'gone since 14:02:11',
  }),
]

function report(over: Partial<StatusReport> = {}): StatusReport {
  return {
    time: '2026-11-21T12:00:00.000Z',
    version: '0.1.0',
    health: 'HEALTHY',
    objects: [],
    problems: [],
    jobs: [],
    sessions: 0,
    drift: [],
    ...over,
  }
}

const STATUS = { exact: false, colour: false, headings: true, badOnly: false }

t.test('status: health first, then what to do', async (t) => {
  t.equal(
    renderStatus(report({ objects: DEGRADED }), STATUS),
    `  volume: db        state: DEGRADED   5.46 TiB raid5 over 4 drives of 1.82 TiB, 1 missing
  status: Drive d3 stopped answering at 14:02:11. Data is intact; one more failure would lose it.
  action: plexus volume replace db d3 NEW-DEVICE
  rebuild: [########>-----------]  41.2%  768 GiB of 1.82 TiB   212 MiB/s   1h 28m to go
  NAME                       STATE     READ  WRITE  PARITY  PATHS  NOTE
  db                         DEGRADED     0      0       0
    db.p0                    DEGRADED     0      0       0         raid5, 256 KiB stripe
      db.p0.s0  d1           UP           0      0       0  1/1
      db.p0.s1  d2 (disk-b)  UP           0      0       0  1/1
      db.p0.s2  d3           DOWN         7     12       0  0/1    gone since 14:02:11
  exported: iqn.2026-01.lab.plexus:db lun 0, 2 sessions (esx1, esx2)
`,
  )
})

t.test('status: nothing to say, problems beside volumes, drift', async (t) => {
  t.match(renderStatus(report(), STATUS), /no volumes; plexus volume create/)
  const good = report({ objects: [aVolume()] })
  t.equal(renderStatus(good, { ...STATUS, badOnly: true }), '  all is healthy\n')
  t.match(renderStatus(good, { ...STATUS, exact: true }), /state: UP {3}6001196802048 raid5/)
  const bad = report({
    health: 'FAULTED',
    problems: [
      { object: 'd2', health: 'DEGRADED', message: 'Device d2 is gone', action: 'plug it' },
    ],
    drift: ['/etc/plexus/plexus.yaml has changed since it was applied'],
  })
  t.equal(
    renderStatus(bad, STATUS),
    `  object: d2   state: DEGRADED
  status: Device d2 is gone
  action: plug it

  config: /etc/plexus/plexus.yaml has changed since it was applied
  action: plexus config diff shows what differs; plexus config apply applies it
`,
  )
  t.match(renderStatus(bad, { ...STATUS, colour: true }), '\u001b[33mDEGRADED\u001b[39m')
  t.equal(checkExit(report()), 0)
  t.equal(checkExit(report({ health: 'DEGRADED', drift: ['x'] })), 10)
  t.equal(checkExit(bad), 11)
  t.equal(checkExit(report({ drift: ['x'] })), 12)
})

t.test('tree: devices to the left, hosts to the right', async (t) => {
  const provider = (name: string, className: string, state = 'up', standsOn?: string[]) => ({
    name,
    className,
    sizeBytes: 1,
    state,
    standsOn,
  })
  const geom = (className: string, name: string, consumers: string[], providers = [name]) => ({
    className,
    name,
    consumers,
    providers,
    state: 'up',
  })
  t.equal(
    renderTree({
      providers: [
        provider('d1', 'disk'),
        provider('disk2', 'disk'),
        provider('d4', 'disk'),
        provider('d9', 'disk'),
        provider('d5', 'disk'),
        provider('db', 'vinum', 'degraded', ['d1', 'disk2', 'd4']),
      ],
      geoms: [
        geom('disk', 'd1', []),
        geom('disk', 'disk2', []),
        geom('disk', 'd4', []),
        geom('disk', 'd9', []),
        geom('vinum', 'set', ['d1', 'disk2', 'd4', 'd5'], ['db']),
        geom('disk', 'd5', []),
      ],
      missing: [{ name: 'd3', reason: 'no such file' }],
      exports: [
        { target: 'iqn.x:db', lun: 0, provider: 'db', sessions: ['esx1', 'esx2'] },
        { target: 'iqn.x:d9', lun: 0, provider: 'd9', sessions: [] },
      ],
    }),
    `  d9 ── disk ── iqn.x:d9 lun 0
  d5 ── disk
  d1 ── disk ────┐
  disk2 ── disk ─┼─ vinum ── db [DEGRADED] ── iqn.x:db lun 0 ── esx1, esx2
  d4 ── disk ────┘
  d3 ── missing: no such file
`,
  )
  t.equal(
    renderTree({
      providers: ['d1', 'd2', 'd3', 'd4']
        .map((one) => provider(one, 'disk'))
        .concat([provider('a', 'multipath'), provider('b', 'multipath'), provider('v', 'vinum')]),
      geoms: [
        ...['d1', 'd2', 'd3', 'd4'].map((one) => geom('disk', one, [])),
        geom('multipath', 'a', ['d1', 'd2']),
        geom('multipath', 'b', ['d3', 'd4']),
        geom('vinum', 'set', ['a', 'b'], ['v']),
      ],
      missing: [],
      exports: [],
    }),
    `  d1 ── disk ─┬─ multipath ── a ─┬─ vinum set ── v
  d2 ── disk ─┘                  │
  d3 ── disk ─┬─ multipath ── b ─┘
  d4 ── disk ─┘
`,
  )
  t.match(renderTree({ providers: [], geoms: [], missing: [], exports: [] }), /no devices/)
})

t.test('progress of a job', async (t) => {
  t.equal(progressBar(0, 100), '[>-------------------]')
  t.equal(progressBar(100, 100), '[####################]')
  t.equal(progressBar(0, 0), '[####################]')
  t.equal(
    progressLine(aJob({ kind: 'check', state: 'paused', mismatches: 2 })),
    'check: [########>-----------]  41.2%  768 GiB of 1.82 TiB   paused   2 mismatches',
  )
  t.match(progressLine(aJob({ etaSeconds: undefined })), /time to go unknown$/)
  t.equal(endText(aJob({ state: 'failed', error: 'd1 died' })), 'rebuild of db.p0 failed: d1 died')
  t.equal(endText(aJob({ state: 'done', kind: 'check' })), 'check of db.p0 is done, 0 mismatches')
})

t.test('plans', async (t) => {
  const plan = {
    dryRun: true,
    steps: [{ text: 'write label on d6 (/dev/sdg, 1.82 TiB, blank)', object: 'd6' }],
    warnings: ['no redundancy'],
    jobs: [],
  }
  t.equal(renderPlan(plan), '  would write label on d6 (/dev/sdg, 1.82 TiB, blank)\n')
  t.equal(renderWarnings(plan), '  warning: no redundancy\n')
  t.equal(
    renderPlan({ ...plan, dryRun: false, jobs: [aJob({ kind: 'initialise' })] }),
    `  write label on d6 (/dev/sdg, 1.82 TiB, blank)
  job j1: initialise of db.p0 has started; plexus wait db follows it
`,
  )
  t.equal(renderPlan({ dryRun: false, steps: [], warnings: [], jobs: [] }), '  nothing to do\n')
})

interface Row {
  readonly name: string
  readonly bytes: number | undefined
  readonly state: string
}

const ROWS: readonly Row[] = [
  { name: 'd10', bytes: 1536, state: 'up' },
  { name: 'd9', bytes: 2 ** 40, state: 'down' },
  { name: 'evil\u001b[31m\nname', bytes: undefined, state: 'up' },
]
const COLUMNS: readonly Column<Row>[] = [
  { name: 'name', value: (row) => row.name },
  { name: 'size', value: (row) => row.bytes, kind: 'size' },
  { name: 'state', value: (row) => row.state, kind: 'state', extra: true },
]

t.test('tables: columns, order, numbers, scripts', async (t) => {
  t.equal(
    renderTable(COLUMNS, ROWS, PLAIN),
    `NAME                SIZE
d10             1.50 KiB
d9                 1 TiB
evil?[31m name         -
`,
  )
  t.equal(
    renderTable(COLUMNS, ROWS, { ...PLAIN, sort: 'name', output: 'state,name', headings: false }),
    'down\td9\nup\td10\nup\tevil?[31m name\n',
  )
  t.equal(
    renderTable(COLUMNS, ROWS.slice(0, 2), {
      ...PLAIN,
      sort: '-size',
      output: '+state',
      exact: true,
    }),
    `NAME           SIZE  STATE
d9    1099511627776  down
d10            1536  up
`,
  )
  t.throws(() => renderTable(COLUMNS, ROWS, { ...PLAIN, output: 'nam' }), {
    kind: 'invalid',
    message: /no column "nam"; did you mean "name"\?; there are: name, size, state/,
  })
  t.throws(() => renderTable(COLUMNS, ROWS, { ...PLAIN, sort: 'x' }), { message: /no column "x"/ })
  const coloured = renderTable(COLUMNS, ROWS, { ...PLAIN, verbose: true, colour: true })
  t.match(coloured, '\u001b[31mdown')
  t.match(coloured, '\u001b[32mup')
  t.equal(printable('a\u0007b\u009bc'), 'a?b?c')
})

t.test('events and the lists of vinum', async (t) => {
  const event: EventReport = {
    time: '2026-11-21T12:00:00.000Z',
    sequence: 1,
    event: 'drive-down',
    severity: 'critical',
    object: 'd3',
    message: 'Drive d3 stopped answering',
  }
  t.equal(
    renderTable(EVENT_COLUMNS, [event], PLAIN),
    `TIME                      SEVERITY  EVENT       OBJECT  MESSAGE
2026-11-21T12:00:00.000Z  critical  drive-down  d3      Drive d3 stopped answering
`,
  )
  const object = { className: 'vinum', uuid: '', set: 'vinum-00000000', note: '' }
  t.equal(
    renderObjects(
      {
        types: VINUM_TYPES.filter(({ name }) => ['drive', 'free', 'plex'].includes(name)),
        objects: [
          {
            ...object,
            type: 'drive',
            name: 'd1',
            state: 'UP',
            lastDevice: 'd1',
            sizeBytes: 2 ** 30,
            facts: { freeBytes: 2 ** 28, freePercent: 25, subdisks: 1, present: true },
          },
          {
            ...object,
            type: 'free',
            name: 'd1+4096',
            parent: 'd1',
            state: 'FREE',
            sizeBytes: 2 ** 28,
            facts: { offsetBytes: 4096 },
          },
          {
            ...object,
            type: 'plex',
            name: 'db.p0',
            state: 'DEGRADED',
            sizeBytes: 2 ** 31,
            process: aJob({ state: 'paused', doneBytes: 1, totalBytes: 3 }),
            facts: { organization: 'raid5', stripeBytes: 262144, subdisks: 3 },
          },
        ],
      },
      PLAIN,
    ),
    `DRIVE  STATE  DEVICE     FREE   SIZE  FREE%  SUBDISKS
d1     UP     d1      256 MiB  1 GiB     25         1

DRIVE  FREE-OFFSET  FREE-LENGTH
d1           4 KiB      256 MiB

PLEX   ORGANIZATION  STATE     SUBDISKS   SIZE  VOLUME  PROCESS
db.p0  raid5         DEGRADED         3  2 GiB  -       rebuild 33% paused
`,
  )
})

t.test('rates between two snapshots', async (t) => {
  const counters = (operations: number, bytes: number, buckets: number[]): OpCounters => ({
    operations,
    bytes,
    errors: 0,
    totalMs: operations * 2,
    buckets,
  })
  const snapshot = (atMs: number, read: OpCounters, name = 'd1'): StatReport => ({
    target: {
      pool: { totalBytes: 0, freeBytes: 0, keptBytes: 0, leased: 0 },
      connections: 0,
      sessions: 0,
      sendQueueBytes: 0,
    },
    atMs,
    bucketsUs: [16, 32, 64],
    providers: [
      { name, className: 'disk', rank: 0, inFlight: 3, consumers: [], operations: { read } },
    ],
  })
  const before = snapshot(1000, counters(100, 4096, [100, 0, 0, 0]))
  const after = snapshot(3000, counters(300, 8192, [100, 190, 10, 0]))
  t.equal(
    renderLoad({
      ...after,
      target: {
        pool: {
          totalBytes: 64 * 1024 * 1024,
          freeBytes: 60 * 1024 * 1024,
          keptBytes: 0,
          leased: 3,
        },
        connections: 2,
        sessions: 1,
        sendQueueBytes: 4096,
      },
    }),
    'sessions: 1 on 2 connections, buffers: 4 MiB of 64 MiB in 3 leases, answers waiting: 4 KiB\n',
  )
  t.match(statRows(before, after), [
    {
      name: 'd1',
      queue: 3,
      readOps: 100,
      readBytes: 2048,
      readMs: 2,
      readP99Ms: 0.064,
      writeOps: 0,
    },
  ])
  t.match(statRows(after, snapshot(4000, counters(10, 10, [10, 0, 0, 0]))), [{ readOps: 10 }])
  t.match(statRows(before, snapshot(2000, counters(5, 5, [5, 0, 0, 0]), 'new')), [{ readOps: 5 }])
  t.equal(quantileMs(counters(0, 0, [0, 0, 0, 0]), [16, 32, 64], 0.99), undefined)
  t.equal(
    quantileMs(counters(1, 0, [0, 0, 0, 1]), [16, 32, 64], 0.5),
    0.064,
    'beyond the last bound',
  )
})

/** The types of vinum's objects and the columns of their lists (docs/vinum.md, 6, "List columns"). */
import {
  type ObjectColumn,
  type ObjectType,
  SET_AND_UUID,
  SIZE,
  STATE,
} from '../../control/reports.ts'
import { SET_TYPE } from '../metadata/set-report.ts'

const PROCESS: ObjectColumn = { label: 'process', key: 'process' }
const SUBDISKS: ObjectColumn = { label: 'subdisks', key: 'subdisks', kind: 'number' }

export const VINUM_TYPES: readonly ObjectType[] = [
  {
    name: 'drive',
    plural: 'drives',
    columns: [
      { label: 'drive', key: 'name' },
      STATE,
      { label: 'device', key: 'lastDevice' },
      { label: 'free', key: 'freeBytes', kind: 'size' },
      SIZE,
      { label: 'free%', key: 'freePercent', kind: 'number' },
      SUBDISKS,
      { label: 'present', key: 'present', extra: true },
      { label: 'media', key: 'mediaBytes', kind: 'size', extra: true },
      { label: 'block', key: 'blockBytes', kind: 'number', extra: true },
      { label: 'format', key: 'format', extra: true },
      ...SET_AND_UUID,
    ],
  },
  {
    name: 'free',
    plural: 'free extents',
    columns: [
      { label: 'drive', key: 'parent' },
      { label: 'free-offset', key: 'offsetBytes', kind: 'size' },
      { label: 'free-length', key: 'sizeBytes', kind: 'size' },
    ],
  },
  {
    name: 'volume',
    plural: 'volumes',
    columns: [
      { label: 'volume', key: 'name' },
      STATE,
      { label: 'health', key: 'health', kind: 'state' },
      { label: 'plexes', key: 'plexes', kind: 'number' },
      SIZE,
      { label: 'open', key: 'open' },
      { label: 'read-policy', key: 'readPolicy', extra: true },
      { label: 'in-doubt', key: 'doubtBytes', kind: 'size', extra: true },
      ...SET_AND_UUID,
    ],
  },
  {
    name: 'plex',
    plural: 'plexes',
    columns: [
      { label: 'plex', key: 'name' },
      { label: 'organization', key: 'organization' },
      STATE,
      SUBDISKS,
      SIZE,
      { label: 'volume', key: 'parent' },
      PROCESS,
      { label: 'stripe', key: 'stripeBytes', kind: 'size', extra: true },
      { label: 'parity', key: 'parityLayout', extra: true },
      ...SET_AND_UUID,
    ],
  },
  {
    name: 'subdisk',
    plural: 'subdisks',
    columns: [
      { label: 'subdisk', key: 'name' },
      STATE,
      { label: 'drive', key: 'drive' },
      SIZE,
      { label: 'plex', key: 'parent' },
      PROCESS,
      { label: 'moving-to', key: 'movingTo', extra: true },
      { label: 'plex-offset', key: 'plexOffsetBytes', kind: 'size', extra: true },
      { label: 'drive-offset', key: 'driveOffsetBytes', kind: 'size', extra: true },
      ...SET_AND_UUID,
    ],
  },
  {
    name: 'pool',
    plural: 'pools',
    columns: [
      { label: 'pool', key: 'name' },
      STATE,
      { label: 'spares', key: 'spares', kind: 'number' },
      { label: 'available', key: 'available', kind: 'number' },
      { label: 'delay', key: 'delay' },
      { label: 'copy-back', key: 'copyBack' },
      { label: 'volumes', key: 'volumes' },
      ...SET_AND_UUID,
    ],
  },
  {
    name: 'spare',
    plural: 'spares',
    columns: [
      { label: 'spare', key: 'name' },
      { label: 'pool', key: 'parent' },
      STATE,
      { label: 'device', key: 'lastDevice' },
      SIZE,
      { label: 'holds', key: 'holds' },
      { label: 'from', key: 'from' },
      { label: 'note', key: 'note' },
      { label: 'rotational', key: 'rotational', extra: true },
      ...SET_AND_UUID,
    ],
  },
  SET_TYPE,
]

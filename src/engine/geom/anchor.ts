/**
 * The metadata of all native classes on a disk (docs/on-disk-format.md). topology.ts looks for a label on everything
 * that it tastes (anchor-find.ts); classes use {@link AnchoredDevice} to commit their configuration and
 * anchor-quorum.ts to choose among copies.
 */
export type { CommitId } from './anchor-codec.ts'
export type { AnchorTarget } from './anchor-ends.ts'
export { type FoundLabel, findLabel, type LabelProblem, readAnchor } from './anchor-find.ts'
export { type Anchor, type AnchorLayout, planAnchor } from './anchor-layout.ts'
export { type AnchorCopy, type Choice, chooseMajority, commitAllowed } from './anchor-quorum.ts'
export { AnchoredDevice, type CommittedSlot } from './anchored-device.ts'

/**
 * The answer to SendTargets (RFC 7143, appendix C): targets with the addresses under which an initiator reaches them.
 * Called by text-request.ts. Whole lists are kept until the configuration changes: with many targets one costs
 * milliseconds, and anybody may ask for it again and again.
 */
import { isIP } from 'node:net'
import { SEND_TARGETS_KEPT_BYTES } from '../../base/limits.ts'
import { formatAddress, plainAddress } from '../../base/network.ts'
import { encodeText, type TextPair } from '../../iscsi/text.ts'
import type { PortalAddress, PortalGroup, TargetNode, TargetRegistry } from './target-node.ts'

/** Who asks, and where the request arrived. */
export interface Asker {
  /** Normalized. */
  readonly initiatorName: string
  /** The group whose portal the connection came through. */
  readonly portalGroup: PortalGroup
  /** Where the connection arrived: stands in for addresses that mean every address. */
  readonly localAddress: string
  /** Stands in for port 0, which lets the system choose. */
  readonly localPort: number
}

/** Lists by who asked for them; the oldest go when they take more than {@link SEND_TARGETS_KEPT_BYTES}. */
export class KeptAnswers {
  readonly #kept = new Map<string, Buffer>()
  #bytes = 0

  /** The list of all targets that the asker may log in to. */
  allTargets(asker: Asker, registry: TargetRegistry): Buffer {
    const { initiatorName, portalGroup, localAddress, localPort } = asker
    const key = JSON.stringify([initiatorName, portalGroup.name, localAddress, localPort])
    const kept = this.#kept.get(key)
    if (kept) return kept
    const targets = registry.visibleTo(initiatorName, portalGroup)
    const made = encodeText(targets.flatMap((target) => targetRecord(target, asker)))
    this.#kept.set(key, made)
    this.#bytes += made.length
    for (const [oldest, answer] of this.#kept) {
      if (this.#bytes <= SEND_TARGETS_KEPT_BYTES) break
      this.#kept.delete(oldest)
      this.#bytes -= answer.length
    }
    return made
  }

  /** The configuration has changed. */
  drop(): void {
    this.#kept.clear()
    this.#bytes = 0
  }
}

/**
 * TargetName and an address for each portal of each of its groups. With no address that the initiator could use it tries
 * the one it asked, as appendix C says.
 */
export function targetRecord(target: TargetNode, asker: Asker): TextPair[] {
  const addresses = new Set(
    target.portalGroups.flatMap((group) =>
      addressesOf(group, asker).map((address) => `${address},${group.tag}`),
    ),
  )
  return [
    ['TargetName', target.name],
    ...[...addresses].map((address): TextPair => ['TargetAddress', address]),
  ]
}

/** What the group advertises where the configuration says so, else where it listens. */
function addressesOf(group: PortalGroup, asker: Asker): string[] {
  if (group.advertise) return group.advertise.map(({ host, port }) => formatAddress(host, port))
  return group.listen.flatMap((portal: PortalAddress) => {
    const host = reachableHost(portal, asker.localAddress)
    const port = portal.port === 0 ? asker.localPort : portal.port
    return host === undefined ? [] : [formatAddress(host, port)]
  })
}

/**
 * The host that an initiator is told for a portal, or undefined for none: a wildcard becomes the address on which the
 * request came if it can have come through it. Link-local IPv6 needs a zone that only the initiator knows, and
 * loopback means the initiator itself, unless the request came that way.
 */
function reachableHost(
  { host, dualStack }: PortalAddress,
  localAddress: string,
): string | undefined {
  const local = plainAddress(localAddress)
  let told = host
  if (host === '0.0.0.0' || host === '::') {
    const family = isIP(local)
    if (host === '0.0.0.0' ? family !== 4 : family === 4 && !dualStack) return undefined
    told = local
  }
  if (isLinkLocal(told)) return undefined
  if (isLoopback(told) && !isLoopback(local)) return undefined
  return told
}

function isLinkLocal(address: string): boolean {
  return /^fe[89ab][0-9a-f]:/i.test(address)
}

function isLoopback(address: string): boolean {
  return address === '::1' || address === 'localhost' || /^127\./.test(address)
}

/** Opens the sockets of portals, and says what to do where that fails. Called by portal.ts and by the daemon's reload. */
import net from 'node:net'
import { PlexusError } from '../../base/errors.ts'
import { LISTEN_BACKLOG } from '../../base/limits.ts'
import { formatAddress } from '../../base/network.ts'
import type { PortalAddress } from './target-node.ts'

/**
 * Listens on one address. Accepted sockets are not read from until somebody takes them. Rejects with PlexusError `in-use`,
 * `permission` or `invalid`.
 */
export function openListener(
  portal: string,
  address: PortalAddress,
  onSocket: (socket: net.Socket) => void,
): Promise<net.Server> {
  const { host, port, dualStack } = address
  return new Promise((resolve, reject) => {
    const server = net.createServer({ pauseOnConnect: true }, onSocket)
    server.once('error', (error) => reject(listenError(portal, address, error)))
    const ipv6Only = net.isIPv6(host) && !dualStack
    server.listen({ host, port, ipv6Only, backlog: LISTEN_BACKLOG }, () => {
      server.removeAllListeners('error')
      resolve(server)
    })
  })
}

/** Opens and closes an address, so that a change that cannot have it fails before it touched anything. */
export async function tryListener(portal: string, address: PortalAddress): Promise<void> {
  const server = await openListener(portal, address, (socket) => socket.destroy())
  await new Promise<void>((resolve) => server.close(() => resolve()))
}

const LISTEN_ERRORS: ReadonlyMap<string, readonly ['in-use' | 'permission' | 'invalid', string]> =
  new Map([
    ['EADDRINUSE', ['in-use', 'another program listens there; end it or choose another port']],
    ['EACCES', ['permission', 'ports below 1024 need the right to bind them']],
    ['EADDRNOTAVAIL', ['invalid', 'no interface of this machine has that address']],
    ['EINVAL', ['invalid', 'this machine has no interface of the name after %']],
  ])

function listenError(
  portal: string,
  { host, port }: PortalAddress,
  cause: NodeJS.ErrnoException,
): PlexusError {
  const [kind, hint] = LISTEN_ERRORS.get(cause.code ?? '') ?? ['invalid', cause.message]
  const subject = `portal "${portal}"`
  return new PlexusError(kind, {
    op: 'listen',
    subject,
    message: `${subject} cannot listen on ${formatAddress(host, port)}: ${hint}`,
    cause,
  })
}

/** Who is at the other end of a unix socket, for the log of verbs (SO_PEERCRED, unix(7)). Used by control-connection.ts. */
import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { peerUid } from '../hal/libc.ts'

/** What of node:net's internals names the descriptor of a socket. */
interface WithDescriptor {
  readonly _handle?: { readonly fd?: number } | null
}

/** The user's name, or his number where he has none here; undefined where the kernel does not say. */
export function peerUser(socket: Socket): string | undefined {
  // Not in the types, and the same in every version of Node so far; without it the log says less.
  const fd = (socket as unknown as WithDescriptor)._handle?.fd
  const uid = fd === undefined || fd < 0 ? undefined : peerUid(fd)
  return uid === undefined ? undefined : (nameOf(uid) ?? `uid ${uid}`)
}

function nameOf(uid: number): string | undefined {
  try {
    const users = readFileSync('/etc/passwd', 'utf8').split('\n')
    return users.map((line) => line.split(':')).find((fields) => fields[2] === String(uid))?.[0]
  } catch {
    return undefined
  }
}

/** Network addresses as limits and messages see them. */
import { isIPv6 } from 'node:net'

/** An IPv4 address that came through an IPv6 socket in its own form; others as they are. */
export function plainAddress(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)
  return mapped?.[1] ?? address
}

/**
 * The part of an address that one host controls: an IPv4 address, or the /64 of an IPv6 address, within which it can take
 * as many addresses as it likes. A link-local address stands for itself: the hosts of a link share its /64.
 */
export function networkOf(address: string): string {
  const plain = plainAddress(address)
  if (!isIPv6(plain) || /^fe[89ab]/i.test(plain)) return plain
  const [head = '', tail] = plain.split('::')
  const groups = (part: string): string[] => (part === '' ? [] : part.split(':'))
  const left = groups(head)
  const right = groups(tail ?? '')
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => '0')
  return `${[...left, ...zeros, ...right].slice(0, 4).join(':')}::/64`
}

/** Address and port as people write them: `10.0.0.1:3260`, `[fd00::5]:3260`. */
export function formatAddress(host: string, port: number): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`
}

/** Finds the daemon's sockets for a command: control.sock, or status.sock for who may only look. */
import { statSync } from 'node:fs'
import { PlexusError } from '../base/errors.ts'
import { CONTROL_DIR_DEFAULT, socketPaths } from '../control/protocol.ts'
import { RpcClient } from '../control/rpc-client.ts'

/**
 * Connects. `socket` is the directory of both sockets or one socket file; default: {@link CONTROL_DIR_DEFAULT}.
 * A command that changes nothing takes control.sock when it may: status.sock is open to everybody, and anybody can
 * keep it busy.
 */
export async function connect(socket: string | undefined, readOnly: boolean): Promise<RpcClient> {
  const where = socket ?? CONTROL_DIR_DEFAULT
  if (socket !== undefined && statSync(where, { throwIfNoEntry: false })?.isSocket()) {
    return RpcClient.connect(where)
  }
  const { control, status } = socketPaths(where)
  try {
    return await RpcClient.connect(control)
  } catch (error) {
    const mayLook = readOnly && error instanceof PlexusError && error.kind === 'permission'
    if (!mayLook) throw error
    return RpcClient.connect(status)
  }
}

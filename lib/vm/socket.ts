import { connect, type Socket } from 'node:net'
import { Failure } from '../failure.ts'

/** `sun_path` has 108 bytes on Linux and 104 elsewhere, with the NUL at its end. */
const longest = 103

/**
 * Connects to a Unix socket on which a program serves one client at a time.
 * @param what name of the socket in messages: "QMP monitor"
 * @throws Failure when the path is too long or nothing listens
 */
export async function openSocket(path: string, what: string): Promise<Socket> {
  const bytes = Buffer.byteLength(path)
  if (bytes > longest) {
    throw new Failure(
      `Cannot connect to the ${what} at \`${path}\`: the path has ${bytes} bytes, ` +
        `a Unix socket's at most ${longest}`,
      { hint: 'Set XDG_RUNTIME_DIR or TMPDIR to a shorter directory' },
    )
  }
  const socket = connect({ path })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', (error: NodeJS.ErrnoException) => {
      const why = reasons[error.code ?? ''] ?? error.message
      reject(new Failure(`Cannot connect to the ${what} at \`${path}\`: ${why}`))
    })
  })
  // when QEMU ends this gets an ECONNRESET; `close` always follows, and is what callers handle
  socket.on('error', () => {})
  return socket
}

const reasons: Record<string, string> = {
  ENOENT: 'there is no such socket, so its QEMU does not run',
  ECONNREFUSED: 'nothing listens there any more',
  EAGAIN: 'too many clients wait for it already',
}

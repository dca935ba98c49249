import { expect, test } from 'vitest'
import { startReboot } from '../../../lib/scenario/machine.ts'
import { connect } from '../../../lib/ssh/ssh.ts'
import { makeSshd, noSshd } from '../ssh/sshd.ts'

if (noSshd) console.warn(`SKIPPED: a reboot that takes sshd with it: ${noSshd}`)

test.skipIf(noSshd)('A reboot counts as started if sshd is gone before it answers', async () => {
  const server = await makeSshd([])
  await server.start()
  const ssh = await connect(server.target)
  try {
    const asked: string[] = []
    await startReboot(async (command, options) => {
      asked.push(command)
      server.signal('SIGKILL')
      return ssh.exec('sleep 60', options)
    })
    expect(asked).toEqual(['systemctl reboot --no-block'])
    await expect(ssh.exec('true')).rejects.toThrow('was cut off')
  } finally {
    await ssh.close()
    await server.stop()
  }
})

test('A bug before the reboot is thrown', async () => {
  const bug = new TypeError('a bug')
  await expect(startReboot(() => Promise.reject(bug))).rejects.toBe(bug)
})

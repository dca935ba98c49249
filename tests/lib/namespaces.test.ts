import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { requireNamespaces } from '../../lib/namespaces.ts'
import { project } from '../../lib/settings.ts'

test('user namespaces are available on this machine', async () => {
  await requireNamespaces()
})

test('if the machine allows no user namespaces, the failure names the command that allows them', () => {
  const asked = `require('./lib/namespaces.ts').requireNamespaces().then(() => console.log('had'), (e) => console.log(e.detail.hint))`
  const none = `echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" --import tsx --eval "$1"`
  const said = execFileSync(
    'unshare',
    ['--map-root-user', '--user', 'sh', '-c', none, process.execPath, asked],
    { cwd: project, encoding: 'utf8' },
  )
  expect(said.trim()).toBe('sudo sysctl -w user.max_user_namespaces=15000')
})

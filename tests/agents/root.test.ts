import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { makeRoot, type ScratchRoot, useRoot } from './root.ts'

let root: ScratchRoot
await useRoot((made) => (root = made))

test('A scratch root has the image’s programs, two users and a store', async () => {
  expect(await root.sh('jj --version; git --version; chezmoi --version')).toMatch(
    /jj [\s\S]*git version/,
  )
  expect(await root.sh('id -u; id -un; pwd')).toBe('0\nroot\n/root')
  expect(await root.sh('id -u; id -un; pwd; touch own', { user: 'rain' })).toBe(
    '1000\nrain\n/home/rain',
  )
  const expr =
    'derivation { name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo built > $out" ]; }'
  const build = `nix build --no-link --print-out-paths --impure --expr '${expr}'`
  const own = await root.sh(build)
  expect(readFileSync(join(root.dir, own), 'utf8')).toBe('built\n')
  expect(await root.sh(build, { user: 'rain', daemon: true })).toBe(own)
})

test('Processes that a command leaves running end with it, and its failure is reported', async () => {
  await root.sh('(sleep 0.5; touch /root/late) & true')
  await new Promise((resolve) => setTimeout(resolve, 800))
  expect(existsSync(join(root.dir, 'root/late'))).toBe(false)
  expect((await root.run(['sh', '-c', 'exit 3'], { allow: [3] })).code).toBe(3)
  await expect(root.sh('false')).rejects.toThrow('exited with 1')
})

test('Nothing in it can change the shared userland', async () => {
  await root.sh('echo changed >/etc/hostname; echo changed >/etc/passwd')
  const other = await makeRoot()
  expect(await other.sh('id -un rain')).toBe('rain')
  await other.remove()
  expect(existsSync(other.dir)).toBe(false)
})

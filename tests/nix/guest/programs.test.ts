import { mkdirSync, readdirSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { run } from '../../../lib/run.ts'
import { project } from '../../../lib/settings.ts'
import { scratch } from './generation.ts'

/** Makes a root with these Debian packages: source and files by package name. */
function root(packages: Record<string, { source?: string; files: string[] }>): string {
  const dir = scratch()
  const put = (path: string, text: string): void => {
    mkdirSync(dirname(join(dir, path)), { recursive: true })
    writeFileSync(join(dir, path), text)
  }
  let status = ''
  for (const [name, { source, files }] of Object.entries(packages)) {
    status += `Package: ${name}\nStatus: install ok installed\n${source ? `Source: ${source}\n` : ''}Version: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n\n`
    put(`var/lib/dpkg/info/${name}.list`, `${files.join('\n')}\n`)
    // with a merged /usr, as on any current Debian
    for (const file of files) put(file.replace(/^\/s?bin\//, '/usr$&'), '')
  }
  put('var/lib/dpkg/status', status)
  return dir
}

const program = join(project, 'nix/lab/image/programs.sh')

test('Each package has the programs of its source, and an alternative belongs to the chosen package', async () => {
  const dir = root({
    bash: { files: ['/bin/bash', '/etc/bash.bashrc'] },
    coreutils: { files: ['/bin/cat', '/usr/bin/sort'] },
    mount: { source: 'util-linux (2.4)', files: ['/bin/mount', '/usr/share/mount/x'] },
    'util-linux': { files: ['/usr/bin/flock', '/sbin/blkid', '/usr/lib/y/bin/inner'] },
    mawk: { files: ['/usr/bin/mawk'] },
    gawk: { files: ['/usr/bin/gawk'] },
  })
  mkdirSync(join(dir, 'etc/alternatives'))
  symlinkSync('/usr/bin/mawk', join(dir, 'etc/alternatives/awk'))
  symlinkSync('/etc/alternatives/awk', join(dir, 'usr/bin/awk'))
  // leftovers of a run that was killed
  mkdirSync(join(dir, 'lab/packages.new/old'), { recursive: true })

  await run('sh', [program, dir])

  const programs = (name: string): string[] =>
    readdirSync(join(dir, 'lab/packages', name, 'bin')).toSorted()
  expect(readdirSync(join(dir, 'lab/packages')).toSorted()).toEqual([
    'bash',
    'coreutils',
    'gawk',
    'mawk',
    'mount',
    'util-linux',
  ])
  expect(programs('mount')).toEqual(['blkid', 'flock', 'mount'])
  expect(programs('util-linux')).toEqual(programs('mount'))
  expect(programs('mawk')).toEqual(['awk', 'mawk'])
  expect(programs('gawk')).toEqual(['gawk'])
  // as in nixpkgs
  expect(programs('bash')).toEqual(['bash', 'sh'])
  expect(programs('coreutils')).toEqual(['cat', 'kill', 'sort'])
  expect(readlinkSync(join(dir, 'lab/packages/mount/bin/blkid'))).toBe('/usr/sbin/blkid')
  expect(readlinkSync(join(dir, 'lab/packages/mawk/share'))).toBe('/usr/share')
})

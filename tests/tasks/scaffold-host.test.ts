import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { writeHost } from '../../lib/scaffold/directory.ts'
import { usual } from '../../lib/scaffold/shape.ts'
import { hostFiles } from '../../lib/scaffold/template.ts'
import { project } from '../../lib/settings.ts'
import { ended, startTask, type Ended } from './started.ts'

let dir: string
let flake: string
beforeEach(() => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'scaffold-host-')))
  flake = join(dir, 'flake')
  mkdirSync(flake)
  writeFileSync(
    join(flake, 'flake.nix'),
    '{ outputs = { self }: { nixosConfigurations = { }; }; }\n',
  )
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const scaffold = (args: string[]): Promise<Ended> =>
  ended(startTask('scaffold-host', [...args, '--flake', flake]))
const written = (host: string): string[] => [
  readFileSync(join(flake, 'hosts', host, 'default.nix'), 'utf8'),
  readFileSync(join(flake, 'hosts', host, 'hardware-configuration.nix'), 'utf8'),
]
const ours = (host: string): string[] =>
  ['default.nix', 'hardware-configuration.nix'].map((file) =>
    readFileSync(join(project, 'hosts', host, file), 'utf8'),
  )
const everything = (): string[] => readdirSync(flake, { recursive: true }).map(String).toSorted()

describe('scaffold-host', () => {
  test.each(['sorrow', 'torment'])('writes %s exactly as in this project', async (host) => {
    // a flake declares the option that the host sets
    mkdirSync(join(flake, 'modules'))
    writeFileSync(join(flake, 'modules/spec.nix'), '{ options.hostSpec = { }; }\n')
    const { code, out, err } = await scaffold([host])
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(written(host)).toEqual(ours(host))
    expect(out.trimEnd().split('\n')).toEqual([
      `Wrote ${flake}/hosts/${host}/default.nix`,
      `Wrote ${flake}/hosts/${host}/hardware-configuration.nix`,
      `Next: just add-to-flake ${host} --flake ${flake}`,
    ])
    expect(everything()).toHaveLength(7)
  })

  test('notes what the host will lack in a flake without the plan’s options', async () => {
    const { code, out } = await scaffold(['web'])
    expect(code).toBe(0)
    expect(out).toMatch(/^Note: no file of this flake mentions `hostSpec`, .*nixosModules/m)
  })

  test('writes the choices given, prints JSON with --json, and marks the files for git', async () => {
    spawnSync('git', ['-C', flake, 'init', '--quiet'])
    const flags = [
      '--user',
      'ada',
      '--schedule',
      'Mon 03:00',
      '--disk-layout',
      'ext4',
      '--disk-device',
      '/dev/sda',
    ]
    const { code, out } = await scaffold([
      'web',
      ...flags,
      '--service',
      'openssh',
      '--service',
      'atuin',
      '--json',
    ])
    expect(code).toBe(0)
    expect(JSON.parse(out)).toMatchObject({
      host: 'web',
      written: true,
      choices: { user: 'ada', cli: ['atuin'], networking: ['openssh'] },
      marked: ['hosts/web/default.nix', 'hosts/web/hardware-configuration.nix'],
    })
    const [main, hardware] = written('web')
    for (const line of [
      '# Web - Minimal headless VM for GitOps testing',
      'layout = "ext4";',
      'device = "/dev/sda";',
      'modules.services.networking = [ "openssh" ];',
      'hostName = "web";',
      'primaryUsername = "ada";',
      'schedule = "Mon 03:00";\n',
      'validateServices = [ "sshd.service" ];',
    ]) {
      expect(main).toContain(line)
    }
    expect(hardware).toContain('fsType = "ext4";')
    expect(hardware).not.toContain('subvol=')
  })

  test('leaves each file either old or new if killed during --force', async () => {
    await scaffold(['web'])
    const main = join(flake, 'hosts/web/default.nix')
    const [, hardware] = written('web')
    writeFileSync(main, 'mine')
    // dies as if by kill -9 right after its nth rename
    const killer = (at: number): string => `
      import fs from 'node:fs'
      import { syncBuiltinESMExports } from 'node:module'
      const rename = fs.renameSync
      let count = 0
      fs.renameSync = (...paths) => {
        rename(...paths)
        if (paths.join().includes('.scaffold-host-') && ++count === ${at}) process.kill(process.pid, 'SIGKILL')
      }
      syncBuiltinESMExports()`
    for (const at of [1, 2]) {
      const url = `data:text/javascript,${encodeURIComponent(killer(at))}`
      const env = { NODE_OPTIONS: `--import=${url}` }
      const { code } = await ended(
        startTask('scaffold-host', ['web', '--force', '--flake', flake], env),
      )
      expect(code).toBe(null)
      expect(existsSync(main), `after rename ${at}`).toBe(true)
      expect(written('web')[1]).toBe(hardware)
    }
    expect((await scaffold(['web', '--force'])).code).toBe(0)
    expect(written('web')[0]).toContain('hostName = "web";')
    expect(readdirSync(flake).toSorted()).toEqual(['flake.nix', 'hosts'])
  })

  test('refuses an existing host, and with --force replaces only its two files', async () => {
    await scaffold(['web'])
    writeFileSync(join(flake, 'hosts/web/default.nix'), 'mine')
    writeFileSync(join(flake, 'hosts/web/secret.nix'), 'mine too')
    const refused = await scaffold(['web'])
    expect(refused).toMatchObject({ code: 2, out: '' })
    expect(refused.err).toMatch(
      /^scaffold-host: Cannot make host `web`: `.*hosts\/web` exists\n {2}hint: .*--force\n$/,
    )
    expect(written('web')[0]).toBe('mine')
    expect((await scaffold(['web', '--force'])).code).toBe(0)
    expect(written('web')[0]).toContain('hostName = "web";')
    expect(readFileSync(join(flake, 'hosts/web/secret.nix'), 'utf8')).toBe('mine too')
    expect(readdirSync(flake).toSorted()).toEqual(['flake.nix', 'hosts'])
  })

  test('shows the files and writes nothing with --dry-run', async () => {
    const { code, out } = await scaffold(['web', '--dry-run'])
    expect(code).toBe(0)
    expect(out).toContain(`Would write ${flake}/hosts/web/default.nix`)
    expect(everything()).toEqual(['flake.nix'])
  })

  test.each(['${x}', '../x', 'a\n"b', 'web --schedule sometimes', 'web --service gopher'])(
    'refuses %j on one line, and writes nothing',
    async (args) => {
      const { code, out, err } = await scaffold(args.split(' '))
      expect({ code, out }).toEqual({ code: 2, out: '' })
      expect(err).toMatch(/^scaffold-host: Cannot [^\n]+\n {2}hint: [^\n]+\n$/)
      expect(everything()).toEqual(['flake.nix'])
    },
  )

  test('refuses symlinks instead of its directories', async () => {
    mkdirSync(join(flake, 'hosts'))
    mkdirSync(join(dir, 'elsewhere'))
    symlinkSync(join(dir, 'elsewhere'), join(flake, 'hosts/web'))
    const { code, err } = await scaffold(['web', '--force'])
    expect(code).toBe(2)
    expect(err).toContain(`Cannot write in \`${flake}/hosts/web\`: it is a symlink`)
    expect(readdirSync(join(dir, 'elsewhere'))).toEqual([])
  })
})

describe('a new host', () => {
  const of = (name: string): void =>
    cpSync(join(project, 'tests/flakes', name), flake, { recursive: true })

  test('is a single file if the flake reads one file per host, and nix parses it', async () => {
    of('evaluated-module')
    const { code, out } = await scaffold(['web'])
    expect(code).toBe(0)
    const path = join(flake, 'hosts/web.nix')
    expect(out).toContain(`Wrote ${path}\n`)
    expect(existsSync(join(flake, 'hosts/web'))).toBe(false)
    const text = readFileSync(path, 'utf8')
    expect(text).toContain('hostName = "web";')
    expect(text).toContain('nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";')
    expect(text).not.toContain('./hardware-configuration.nix')
    // trailing blanks would fail the owner's checks, such as git's or nixfmt's
    expect(text).not.toMatch(/[ \t]$/m)
    expect(text).not.toContain('default.nix')
    const parsed = spawnSync('nix-instantiate', ['--store', 'dummy://', '--parse', path])
    if (!parsed.error) expect(parsed.status).toBe(0)
    // a second time is refused, as is the same host in the other form
    expect((await scaffold(['web'])).err).toContain(`Cannot make host \`web\`: \`${path}\` exists`)
    expect((await scaffold(['web', '--force'])).code).toBe(0)
    mkdirSync(join(flake, 'hosts/db'), { recursive: true })
    const other = await scaffold(['db'])
    expect(other).toMatchObject({ code: 2, out: '' })
    expect(other.err).toContain(`\`${flake}/hosts/db\` exists`)
    expect(existsSync(join(flake, 'hosts/db.nix'))).toBe(false)
  })

  test('has the file name that the flake reads in each directory', async () => {
    of('own-files')
    expect((await scaffold(['web'])).code).toBe(0)
    expect(readdirSync(join(flake, 'machines/web')).toSorted()).toEqual([
      'configuration.nix',
      'hardware-configuration.nix',
    ])
  })

  test('is refused if the flake’s host files make whole systems', async () => {
    cpSync(join(project, 'tests/flakes/whole-systems'), flake, { recursive: true })
    const { code, err } = await scaffold(['web'])
    expect(code).toBe(2)
    expect(err).toBe(
      `scaffold-host: Cannot make host \`web\`: the flake takes whole systems from files such as \`${flake}/hosts/ruff/default.nix\`, but this task writes a module\n  hint: Write \`${flake}/hosts/web/default.nix\` like that one\n`,
    )
    expect(existsSync(join(flake, 'hosts/web'))).toBe(false)
  })

  test.each([
    ['record-files', 'hosts/rook.nix', 'hosts/web.nix'],
    ['read-dir-records', 'hosts/curlew/default.nix', 'hosts/web/default.nix'],
  ])('is refused if the flake %s does not take %s as a module', async (form, like, own) => {
    cpSync(join(project, 'tests/flakes', form), flake, { recursive: true })
    const { code, err } = await scaffold(['web'])
    expect(code).toBe(2)
    expect(err).toBe(
      `scaffold-host: Cannot make host \`web\`: the flake imports files such as \`${flake}/${like}\`, and not as modules, but this task writes a module\n  hint: Write \`${flake}/${own}\` like that one\n`,
    )
    expect(existsSync(join(flake, own))).toBe(false)
  })

  test('needs no line in the flake if that lists the directory', async () => {
    of('read-dir-self')
    const { out } = await scaffold(['web'])
    expect(out).toContain(`Wrote ${flake}/systems/web/configuration.nix`)
    expect(out).toContain(`Next: nothing to add, the hosts are what is in ${flake}/systems;`)
  })

  test('is not written through a symlink', async () => {
    of('own-files')
    mkdirSync(join(dir, 'elsewhere'))
    symlinkSync(join(dir, 'elsewhere'), join(flake, 'machines'))
    const { code, err } = await scaffold(['web'])
    expect(code).toBe(2)
    expect(err).toContain(`Cannot write in \`${flake}/machines\`: it is a symlink`)
    expect(readdirSync(join(dir, 'elsewhere'))).toEqual([])
  })
})

describe('the files of a host', () => {
  const choices = { name: 'web', ...usual }

  test('are all replaced or none', () => {
    const directory = join(flake, 'hosts/web')
    mkdirSync(directory, { recursive: true })
    // the longest possible file name leaves no room for the suffix of its temporary name
    const names = ['a.nix', 'b.nix', 'c'.repeat(255)]
    for (const file of names.toSpliced(1, 1)) writeFileSync(join(directory, file), `old ${file[0]}`)
    const files = Object.fromEntries(names.map((file) => [file, 'new']))
    expect(() => writeHost(flake, directory, files)).toThrow('name too long')
    expect(readdirSync(directory).toSorted()).toEqual(names.toSpliced(1, 1))
    expect(readFileSync(join(directory, 'a.nix'), 'utf8')).toBe('old a')
    expect(readdirSync(flake).toSorted()).toEqual(['flake.nix', 'hosts'])
  })

  test('are written even if a killed run left drafts, which are removed', () => {
    mkdirSync(join(flake, '.scaffold-host-abc'))
    writeFileSync(join(flake, '.scaffold-host-abc/default.nix'), 'half')
    writeHost(flake, join(flake, 'hosts/web'), hostFiles(choices))
    expect(readdirSync(flake).toSorted()).toEqual(['flake.nix', 'hosts'])
    expect(statSync(join(flake, 'hosts/web')).mode & 0o777).toBe(0o777 & ~process.umask())
  })

  test('leave nothing behind if they cannot be written', () => {
    const directory = join(flake, 'hosts/web')
    const files = { 'a.nix': 'new', 'no/such/b.nix': '' }
    expect(() => writeHost(flake, directory, files)).toThrow(
      `Cannot write \`${directory}\`: no such file or directory`,
    )
    expect(everything()).toEqual(['flake.nix'])
  })

  test('can be parsed by nix, whatever the choices', ({ skip }) => {
    if (spawnSync('nix-instantiate', ['--version']).error) skip('nix-instantiate is not installed')
    const awkward = {
      ...choices,
      user: '${x}',
      schedule: '"; y = ${z',
      device: "''\\\n",
      cli: [],
      networking: [],
    }
    for (const given of [choices, awkward, { ...awkward, layout: 'ext4' }]) {
      for (const [file, input] of Object.entries(hostFiles(given))) {
        const args = ['--store', 'dummy://', '--parse', '-']
        const { status, stderr } = spawnSync('nix-instantiate', args, { input, encoding: 'utf8' })
        expect([file, status, stderr]).toEqual([file, 0, ''])
      }
    }
  })
})

test('a scaffolded host evaluates once added to the flake', async ({ skip }) => {
  if (spawnSync('nix', ['--version']).error) skip('nix is not installed')
  for (const part of ['flake.nix', 'flake.lock', 'nix', 'hosts']) {
    cpSync(join(project, part), join(flake, part), { recursive: true })
  }
  expect((await scaffold(['web', '--service', 'openssh', '--schedule', 'daily'])).code).toBe(0)
  const added = await ended(startTask('add-to-flake', ['web', '--flake', flake]))
  expect(added.code).toBe(0)
  const values = `host: with host.config; [ hostSpec.hostName modules.services.networking myModules.services.autoUpgrade.schedule ]`
  const features = ['--extra-experimental-features', 'nix-command flakes']
  const { stdout, stderr } = spawnSync(
    'nix',
    [...features, 'eval', '--json', `path:${flake}#labConfigurations.web`, '--apply', values],
    { encoding: 'utf8' },
  )
  expect(stderr).not.toContain('error')
  expect(JSON.parse(stdout)).toEqual(['web', ['openssh'], 'daily'])
  expect(existsSync(join(flake, 'hosts/web/default.nix'))).toBe(true)
})

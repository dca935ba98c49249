import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { ended, startTask, type Ended } from './started.ts'

let dir: string
let flake: string
beforeEach(() => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'add-to-flake-')))
  flake = join(dir, 'flake')
  mkdirSync(flake)
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const add = (args: string[], env?: Record<string, string>): Promise<Ended> =>
  ended(
    startTask('add-to-flake', args.includes('--flake') ? args : [...args, '--flake', flake], env),
  )

/** A flake without inputs, so that nix can evaluate it anywhere. */
const plain = `{
  outputs =
    { self }:
    let
      mkHost = name: { inherit name; };
    in
    {
      nixosConfigurations = {
        alpha = mkHost "alpha"; # first
        beta = mkHost "beta"; # second
      };
    };
}
`
const withSorrow = plain.replace('# second\n', '# second\n        sorrow = mkHost "sorrow";\n')

/** A flake whose host names only nix can tell, not its source. */
const opaque = `{
  outputs =
    { self }:
    {
      nixosConfigurations = builtins.listToAttrs (
        map (name: { inherit name; value = { }; }) (builtins.fromJSON (builtins.readFile ./hosts.json))
      );
    };
}
`

const write = (text: string): void => writeFileSync(join(flake, 'flake.nix'), text)
const read = (): string => readFileSync(join(flake, 'flake.nix'), 'utf8')
const git = (...args: string[]): string => {
  const { status, stdout, stderr } = spawnSync('git', ['-C', flake, ...args], { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  return stdout
}
const hasNix = spawnSync('nix-instantiate', ['--version']).error === undefined

/** A directory for PATH that holds only these commands of the machine. */
function only(...commands: string[]): string {
  const bin = join(dir, 'bin')
  mkdirSync(bin, { recursive: true })
  for (const command of commands) {
    const from = process.env['PATH']!.split(delimiter).find((at) => existsSync(join(at, command)))
    if (from) symlinkSync(join(from, command), join(bin, command))
  }
  return bin
}

/** A directory for PATH whose nix-instantiate runs `first` by sh, and then the real one. */
function nixAfter(first: string): string {
  const real = spawnSync('sh', ['-c', 'command -v nix-instantiate'], {
    encoding: 'utf8',
  }).stdout.trim()
  const bin = join(dir, 'slow')
  mkdirSync(bin)
  writeFileSync(join(bin, 'nix-instantiate'), `#!/bin/sh\n${first}\nexec ${real} "$@"\n`, {
    mode: 0o755,
  })
  return `${bin}${delimiter}${process.env['PATH']}`
}

describe('add-to-flake', () => {
  test('adds one line, verifies it with nix, and does nothing the second time', async () => {
    write(plain)
    chmodSync(join(flake, 'flake.nix'), 0o640)
    const first = await add(['sorrow'])
    expect(first).toMatchObject({ code: 0, err: '' })
    expect(read()).toBe(withSorrow)
    expect(statSync(join(flake, 'flake.nix')).mode & 0o777).toBe(0o640)
    expect(first.out).toContain(
      `Added \`sorrow\` at line 11 of ${flake}/flake.nix (like \`beta\`, `,
    )
    expect(first.out).toContain('+         sorrow = mkHost "sorrow";')
    if (hasNix) {
      expect(first.out).toContain('nix parses it: yes')
      expect(first.out).toContain('nix evaluates the host names: yes')
    }
    const { ino, mtimeMs } = statSync(join(flake, 'flake.nix'))
    const second = await add(['sorrow'])
    expect(second).toMatchObject({ code: 0, err: '' })
    expect(second.out).toBe(
      `Nothing to do: \`sorrow\` is at line 11 of ${flake}/flake.nix already\n`,
    )
    expect(statSync(join(flake, 'flake.nix'))).toMatchObject({ ino, mtimeMs })
    expect(readdirSync(flake).filter((entry) => entry !== 'flake.lock')).toEqual(['flake.nix'])
  })

  test('shows the edit and writes nothing with --dry-run', async () => {
    write(plain)
    git('init', '--quiet')
    git('add', '.')
    mkdirSync(join(flake, 'hosts/sorrow'), { recursive: true })
    writeFileSync(join(flake, 'hosts/sorrow/default.nix'), '{ }\n')
    const before = git('status', '--porcelain', '--untracked-files=all')
    const { code, out } = await add(['sorrow', '--dry-run'])
    expect(code).toBe(0)
    expect(out).toContain('Would add `sorrow` at line 11')
    expect(out).toContain('Would mark hosts/sorrow/default.nix for git')
    expect(out).toContain('+         sorrow = mkHost "sorrow";')
    expect(read()).toBe(plain)
    expect(git('status', '--porcelain', '--untracked-files=all')).toBe(before)
  })

  test('prints JSON with --json', async () => {
    write(plain)
    const { out } = await add(['sorrow', '--json'])
    expect(JSON.parse(out)).toEqual({
      host: 'sorrow',
      outcome: 'added',
      file: join(flake, 'flake.nix'),
      line: 11,
      inserted: '\n        sorrow = mkHost "sorrow";',
      like: 'beta',
      reason: 'the form of 2 of the 2 hosts there',
      parsed: hasNix ? { asked: true } : expect.anything(),
      evaluated: hasNix ? { asked: true } : expect.anything(),
      marked: [],
      notes: [],
    })
    expect(JSON.parse((await add(['sorrow', '--json'])).out)).toMatchObject({ outcome: 'present' })
  })

  test('edits the file that flake.nix imports', async () => {
    cpSync(join(project, 'tests/flakes/import-hosts'), flake, { recursive: true })
    const before = read()
    const { code, out } = await add(['sorrow'])
    expect(code).toBe(0)
    expect(out).toContain(`line 9 of ${flake}/hosts/default.nix`)
    expect(read()).toBe(before)
    expect(readFileSync(join(flake, 'hosts/default.nix'), 'utf8')).toContain(
      '  sorrow = host "sorrow";\n',
    )
  })

  test('adds nothing if the flake lists a directory', async () => {
    cpSync(join(project, 'tests/flakes/read-dir'), flake, { recursive: true })
    const { code, out } = await add(['sorrow'])
    expect(code).toBe(0)
    expect(out).toContain(
      `Nothing to do: line 7 of ${flake}/flake.nix finds the hosts by listing ${flake}/hosts`,
    )
    expect(out).toContain(`Note: \`${flake}/hosts/sorrow\` is not there yet`)
  })

  test('refuses a name that the listing filters out, whether or not it exists', async ({
    skip,
  }) => {
    if (!hasNix) skip('nix-instantiate is not installed')
    const listing = (filter: string): string => `{
  outputs = { self }: let
    all = builtins.attrNames (builtins.readDir ./hosts);
  in {
    nixosConfigurations = builtins.listToAttrs (
      map (name: { inherit name; value = import (./hosts + "/\${name}"); }) (builtins.filter (${filter}) all)
    );
  };
}
`
    mkdirSync(join(flake, 'hosts/web'), { recursive: true })
    writeFileSync(join(flake, 'hosts/web/default.nix'), '{ }\n')
    write(listing('name: name != "template"'))
    const left = 'add-to-flake: Cannot add `template`: the flake leaves `'
    await refused(['template'], left)
    expect(existsSync(join(flake, 'hosts/template'))).toBe(false)
    const { code, out } = await add(['sorrow'])
    expect(code).toBe(0)
    expect(out).toContain('nix evaluates the host names: yes')

    mkdirSync(join(flake, 'hosts/template'))
    writeFileSync(join(flake, 'hosts/template/default.nix'), '{ }\n')
    await refused(['template'], left)
    expect((await add(['web'])).out).toContain('Nothing to do')
  })

  test('does not write through a dangling symlink of the host', async ({ skip }) => {
    if (!hasNix) skip('nix-instantiate is not installed')
    cpSync(join(project, 'tests/flakes/read-dir'), flake, { recursive: true })
    mkdirSync(join(flake, 'hosts'), { recursive: true })
    symlinkSync(join(dir, 'elsewhere.nix'), join(flake, 'hosts/sorrow.nix'))
    await add(['sorrow'])
    expect(existsSync(join(dir, 'elsewhere.nix'))).toBe(false)
  })
})

const host = (): void => {
  mkdirSync(join(flake, 'hosts/sorrow'), { recursive: true })
  writeFileSync(join(flake, 'hosts/sorrow/default.nix'), '{ }\n')
  writeFileSync(join(flake, 'hosts/other.nix'), '{ }\n')
}

test.each([
  'a b',
  'qu"o\'te',
  '$HOME',
  '${x}',
  'ünï',
  'a#b?c%20',
  'two\nlines',
  'back\\slash',
  '-x',
])(
  'a flake in a directory named %j is edited, and checked with nix if that can handle the path',
  async (name) => {
    flake = join(dir, name)
    mkdirSync(flake)
    write(plain)
    git('init', '--quiet')
    git('add', '.')
    host()
    const { code, out, err } = await add(['sorrow'])
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(read()).toBe(withSorrow)
    expect(out).toContain('Marked hosts/sorrow/default.nix')
    expect(out).toMatch(
      hasNix
        ? /host names: (yes|not known \(nix cannot handle the path of the flake, because of the `)/
        : /Added/,
    )
    expect((await add(['sorrow'])).out).toContain('Nothing to do')
  },
)

describe('in a git repository', () => {
  test('only the files of the host are marked', async () => {
    write(plain)
    git('init', '--quiet')
    git('add', 'flake.nix')
    host()
    const { code, out } = await add(['sorrow'])
    expect(code).toBe(0)
    expect(out).toContain(
      'Marked hosts/sorrow/default.nix for git (--intent-to-add): a flake does not see untracked files',
    )
    expect(git('status', '--porcelain', '--untracked-files=all').split('\n')).toEqual([
      'AM flake.nix',
      ' A hosts/sorrow/default.nix',
      '?? hosts/other.nix',
      '',
    ])
    expect((await add(['sorrow'])).out).not.toContain('Marked')
  })

  test('whose index is locked, the line is added and a note says what is left to do', async () => {
    write(plain)
    git('init', '--quiet')
    git('add', 'flake.nix')
    host()
    writeFileSync(join(flake, '.git/index.lock'), '')
    const { code, out } = await add(['sorrow'])
    expect(code).toBe(0)
    expect(read()).toBe(withSorrow)
    expect(out).toMatch(
      /Note: git could not mark the files \(fatal: .*index\.lock.*\): git -C \S+ add --sparse --intent-to-add /,
    )
  })

  test('whose root is a parent directory, the files are marked as well', async () => {
    spawnSync('git', ['-C', dir, 'init', '--quiet'])
    write(plain)
    git('add', 'flake.nix')
    host()
    const { code, out } = await add(['sorrow'])
    expect(code).toBe(0)
    expect(out).toContain('Marked hosts/sorrow/default.nix')
    if (hasNix) expect(out).toContain('nix evaluates the host names: yes')
    expect(git('status', '--porcelain')).toContain(' A flake/hosts/sorrow/default.nix')
  })

  test('the line is also added without a repository, and without git and nix installed', async () => {
    write(plain)
    host()
    const { code, out, err } = await add(['sorrow'], {
      PATH: only('sh', 'bash', 'setpriv', 'flock', 'ps'),
    })
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(read()).toBe(withSorrow)
    expect(out).toContain('nix parses it: not known (nix is not installed)')
    expect(out).not.toContain('Marked')
  })
})

describe('nix', () => {
  // as for an ordinary user on Debian without a nix daemon
  test('whose store cannot be opened uses the lab’s store instead', async ({ skip }) => {
    if (!hasNix) skip('nix-instantiate is not installed')
    write(opaque)
    writeFileSync(join(flake, 'hosts.json'), '["beta"]')
    const env = { NIX_STATE_DIR: '/proc/nix', LAB_CACHE: join(dir, 'cache') }
    const { code, out } = await add(['beta'], env)
    expect({ code, out }).toEqual({ code: 0, out: expect.stringContaining('is a host of') })
    write(plain)
    expect((await add(['sorrow'], env)).out).toContain('nix evaluates the host names: yes')
    expect(read()).toBe(withSorrow)
  })

  test('that cannot fetch the inputs does not prevent the edit', async ({ skip }) => {
    if (!hasNix) skip('nix-instantiate is not installed')
    const text = plain
      .replace('{\n', '{\n  inputs.gone.url = "path:/nonexistent/gone";\n')
      .replace('{ self }', '{ self, gone }')
    write(text)
    const { code, out } = await add(['sorrow'])
    expect(code).toBe(0)
    expect(out).toContain('nix parses it: yes')
    expect(out).toMatch(/nix evaluates the host names: not known \(.*nonexistent/)
    expect(read()).toContain('sorrow = mkHost "sorrow";')
  })

  test('that rejects the edit prevents it from being written', async ({ skip }) => {
    if (!hasNix) skip('nix-instantiate is not installed')
    const text = plain
      .replace('nixosConfigurations = {', 'nixosConfigurations = self.lib.two {')
      .replace(
        '    {\n      nixos',
        '    {\n      lib.two = hosts: assert builtins.length (builtins.attrNames hosts) == 2; hosts;\n      nixos',
      )
    write(text)
    const { code, out, err } = await add(['sorrow'])
    expect({ code, out }).toEqual({ code: 3, out: '' })
    expect(err).toMatch(
      /^add-to-flake: Cannot add to `.*flake.nix` at line 12: assertion .* failed/,
    )
    expect(read()).toBe(text)
  })

  test('that already rejected the unedited file does not prevent the edit', async ({ skip }) => {
    if (!hasNix) skip('nix-instantiate is not installed')
    const wrong = (text: string): string =>
      text.replace('mkHost = name', 'gone = nobody; mkHost = name')
    write(wrong(plain))
    const { code, out } = await add(['sorrow'])
    expect(code).toBe(0)
    expect(out).toMatch(/nix parses it: not known \(undefined variable/)
    expect(read()).toBe(wrong(withSorrow))
  })
})

const refused = async (args: string[], message: string | RegExp, code = 2): Promise<void> => {
  const before = existsSync(join(flake, 'flake.nix')) ? read() : undefined
  const done = await add(args)
  expect(done).toMatchObject({ code, out: '' })
  expect(done.err.split('\n')[0]).toMatch(message)
  expect(done.err.trimEnd().split('\n').length).toBeLessThanOrEqual(2)
  expect(existsSync(join(flake, 'flake.nix')) ? read() : undefined).toBe(before)
}

describe('add-to-flake refuses', () => {
  test.each(['${x}', '../x', 'a\n"b', ''])('a host named %j', async (name) => {
    write(plain)
    await refused([name], /^add-to-flake: Cannot use `.*` as a host name$/)
  })

  test('a flake that is missing, broken, or a symlink', async () => {
    await refused(['sorrow'], `add-to-flake: Cannot find \`${flake}/flake.nix\``)
    write('{\n  outputs = { self }: {\n    nixosConfigurations = { a = ; };\n  };\n}\n')
    await refused(
      ['sorrow'],
      `add-to-flake: Cannot parse \`${flake}/flake.nix\`: syntax error at line 3`,
    )
    write(plain)
    renameSync(join(flake, 'flake.nix'), join(dir, 'real.nix'))
    symlinkSync('../real.nix', join(flake, 'flake.nix'))
    await refused(['sorrow'], `add-to-flake: Cannot edit \`${flake}/flake.nix\`: it is a symlink`)
    // scaffold-host reads it first, and reading a pipe would never end
    rmSync(join(flake, 'flake.nix'))
    spawnSync('mkfifo', [join(flake, 'flake.nix')])
    const { code, err } = await ended(startTask('scaffold-host', ['sorrow', '--flake', flake]))
    expect({ code, err: err.trimEnd() }).toEqual({
      code: 2,
      err: `scaffold-host: Cannot read \`${flake}/flake.nix\`: it is not a regular file`,
    })
    expect((await ended(startTask('add-to-flake', ['sorrow', '--flake', '']))).code).toBe(2)
  })

  test('a read-only file', async () => {
    write(plain)
    chmodSync(join(flake, 'flake.nix'), 0o444)
    const message = `add-to-flake: Cannot edit \`${flake}/flake.nix\`: it is read-only`
    await refused(['sorrow'], message)
    await refused(['sorrow', '--dry-run'], message)
    // there is nothing to write
    expect((await add(['beta'])).code).toBe(0)
  })

  test('a flake that begins with a byte order mark', async () => {
    write(`\uFEFF${plain}`)
    await refused(['sorrow'], `add-to-flake: Cannot parse \`${flake}/flake.nix\`: it begins with a`)
    const scaffolded = await ended(startTask('scaffold-host', ['sorrow', '--flake', flake]))
    expect(scaffolded).toMatchObject({ code: 2, out: '' })
    expect(scaffolded.err).toMatch(
      /^scaffold-host: Cannot parse .*: it begins with a byte order mark/,
    )
    expect(readdirSync(flake)).toEqual(['flake.nix'])
  })

  test('an unknown form of hosts', async () => {
    cpSync(join(project, 'tests/flakes/refused/json'), flake, { recursive: true })
    await refused(
      ['sorrow'],
      `add-to-flake: Cannot add \`sorrow\` to \`${flake}/flake.nix\` at line 6: `,
    )
  })

  test('an unknown flag or a second name', async () => {
    write(plain)
    await refused(['sorrow', '--no-such-flag'], /^add-to-flake: Unknown argument/)
    await refused(['sorrow', 'torment'], /^add-to-flake: Unknown argument: torment/)
  })
})

describe('while the task runs', () => {
  test('five simultaneous tasks keep all five hosts', async () => {
    write(plain)
    const names = ['one', 'two', 'three', 'four', 'five']
    const all = await Promise.all(names.map((name) => add([name])))
    expect(all.map(({ code }) => code)).toEqual([0, 0, 0, 0, 0])
    for (const name of names) expect(read()).toContain(`        ${name} = mkHost "${name}";\n`)
    expect(read().split('\n').length).toBe(plain.split('\n').length + 5)
  })

  test('an editor can save the file, which then stays as saved', async ({ skip }) => {
    if (!hasNix) skip('nix-instantiate is not installed')
    write(plain)
    const saved = `${plain}# saved by an editor\n`
    writeFileSync(join(dir, 'saved'), saved)
    const path = nixAfter(`cp ${join(dir, 'saved')} ${join(flake, 'flake.nix')}`)
    const { code, err } = await add(['sorrow'], { PATH: path })
    expect(code).toBe(3)
    expect(err).toContain(`Cannot write \`${flake}/flake.nix\`: it changed meanwhile`)
    expect(read()).toBe(saved)
    expect((await add(['sorrow'])).code).toBe(0)
    expect(read()).toBe(`${withSorrow}# saved by an editor\n`)
  })

  test('it can be killed, and nothing is changed or left behind', async ({ skip }) => {
    if (!hasNix) skip('nix-instantiate is not installed')
    write(plain)
    const mark = join(dir, 'asked')
    const TMPDIR = join(dir, 'tmp')
    mkdirSync(TMPDIR)
    const PATH = nixAfter(`touch ${mark}; exec sleep 30`)
    const child = startTask('add-to-flake', ['sorrow', '--flake', flake], { PATH, TMPDIR })
    const end = ended(child)
    for (let waited = 0; !existsSync(mark) && waited < 200; waited++) await sleep(50)
    expect(existsSync(mark)).toBe(true)
    child.kill('SIGKILL')
    await end
    expect(read()).toBe(plain)
    expect(readdirSync(flake)).toEqual(['flake.nix'])
    const copies = (): string[] =>
      readdirSync(TMPDIR).filter((entry) => entry.startsWith('vmlab-scratch-'))
    expect(copies()).toHaveLength(1)
    expect((await add(['sorrow'], { TMPDIR })).code).toBe(0)
    expect(read()).toBe(withSorrow)
    expect(copies()).toEqual([])
  })
})

test('a host that only nix can find is reported as present, and a new one is refused', async () => {
  write(opaque)
  writeFileSync(join(flake, 'hosts.json'), '[ "alpha", "beta" ]')
  const found = await add(['alpha', '--json'])
  expect(found).toMatchObject({ code: 0, err: '' })
  expect(JSON.parse(found.out)).toMatchObject({ host: 'alpha', outcome: 'present' })
  expect((await add(['alpha'])).out).toContain(
    `Nothing to do: \`alpha\` is a host of ${join(flake, 'flake.nix')} already`,
  )
  const missing = await add(['sorrow'])
  expect(missing).toMatchObject({ code: 2, out: '' })
  expect(missing.err).toContain('Cannot add `sorrow`')
  expect(read()).toBe(opaque)
})

describe('a framework that makes hosts from a directory', () => {
  /** A flake whose hosts are made by a library of another flake, from `configurations/nixos`. */
  function framework(library = 'outputs'): void {
    mkdirSync(join(dir, 'framework'))
    writeFileSync(
      join(dir, 'framework/flake.nix'),
      `{ outputs = { self }: { lib.outputs = { inputs }: {
        nixosConfigurations = builtins.mapAttrs (name: _: { }) (builtins.readDir (inputs.self + "/configurations/nixos"));
      }; }; }`,
    )
    write(
      `{\n  inputs.framework.url = "path:${join(dir, 'framework')}";\n  outputs =\n    inputs:\n    inputs.framework.lib.${library} { inherit inputs; };\n}\n`,
    )
    mkdirSync(join(flake, 'configurations/nixos/web'), { recursive: true })
    writeFileSync(join(flake, 'configurations/nixos/web/default.nix'), '{ }\n')
  }
  const files = (): string[] =>
    readdirSync(flake, { recursive: true })
      .map(String)
      .filter((path) => path.includes('sorrow'))
      .toSorted()

  test('needs no edit, as nix confirms, and scaffold-host writes where it reads', async ({
    skip,
  }) => {
    if (!hasNix) skip('nix-instantiate is not installed')
    framework()
    const features = ['--extra-experimental-features', 'nix-command flakes']
    const lock = spawnSync('nix', [...features, 'flake', 'lock', flake], { encoding: 'utf8' })
    expect([lock.status, lock.status === 0 || lock.stderr]).toEqual([0, true])
    const before = read()
    const first = await add(['sorrow'])
    expect(first).toMatchObject({ code: 0, err: '' })
    expect(first.out).toContain(
      `Nothing to do: line 5 of ${flake}/flake.nix finds the hosts by listing ${flake}/configurations/nixos\n  nix evaluates the host names: yes`,
    )
    const made = await ended(startTask('scaffold-host', ['sorrow', '--flake', flake]))
    expect(made.out).toContain(
      `Next: nothing to add, the hosts are most likely what is in ${flake}/configurations/nixos;`,
    )
    expect(files()).toEqual([
      'configurations/nixos/sorrow',
      'configurations/nixos/sorrow/default.nix',
      'configurations/nixos/sorrow/hardware-configuration.nix',
    ])
    const second = await add(['sorrow', '--json'])
    expect(JSON.parse(second.out)).toMatchObject({ outcome: 'present' })
    expect(read()).toBe(before)
  })

  test('that nix cannot evaluate gets a hint with the directory, with or without the host', async () => {
    framework('none')
    const hint = (err: string): string => err.split('\n')[1]!
    const first = await add(['sorrow'])
    expect(first).toMatchObject({ code: 2, out: '' })
    expect(hint(first.err)).toBe(
      `  hint: Its hosts are most likely what is in \`${flake}/configurations/nixos\`: write \`sorrow\` there, like \`web\``,
    )
    expect((await ended(startTask('scaffold-host', ['sorrow', '--flake', flake]))).code).toBe(0)
    const second = await add(['sorrow'])
    expect(hint(second.err)).toBe(hint(first.err))
    expect(second.err).toContain(
      `\n  evidence: \`${flake}/configurations/nixos/sorrow\` exists, but nix does not say whether it is a host: `,
    )
  })
})

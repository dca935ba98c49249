import { spawnSync } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import {
  addHost,
  handWritten,
  readingPlace,
  type Addition,
  type Edit,
} from '../../../lib/flake/edit.ts'
import { project } from '../../../lib/settings.ts'
import {
  discoveries,
  edits,
  hints,
  ownFiles,
  readByFrameworks,
  refusals,
  writtenByHand,
  type ExpectedEdit,
} from '../../flakes/expected.ts'

const corpus = join(project, 'tests/flakes')
const fileOf = ({ file }: ExpectedEdit): string => file ?? 'flake.nix'
const insertion = ({ inserted }: ExpectedEdit): string => [inserted].flat().join('\n')

let scratch: string
beforeAll(() => (scratch = mkdtempSync(join(tmpdir(), 'flake-edit-'))))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

let copies = 0
/** A copy of a flake of the corpus, with the edited file rewritten first. */
function copyOf(flake: string, file = 'flake.nix', rewrite = (text: string) => text): string {
  const copy = join(scratch, String(++copies), flake)
  cpSync(join(corpus, flake), copy, { recursive: true })
  writeFileSync(join(copy, file), rewrite(readFileSync(join(copy, file), 'utf8')))
  return copy
}

async function edit(flake: string, name: string, like?: string): Promise<Edit> {
  const addition = await addHost(flake, name, like)
  if (addition.outcome !== 'edit') throw new Error(`${flake}: ${addition.outcome}`)
  return addition
}

const refusedBy = async (promise: Promise<Addition>): Promise<Failure> => {
  const thrown = await promise.then(
    (value) =>
      value.outcome === 'likely' ? value.refused : new Error(`resolved with ${value.outcome}`),
    (reason: unknown) => reason,
  )
  if (!(thrown instanceof Failure)) throw thrown
  return thrown
}

const directories = (of: string): string[] =>
  readdirSync(of, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)

test('every flake of the corpus has an expected result', () => {
  const expected = [
    ...edits.map(({ flake }) => flake),
    ...discoveries.map(([flake]) => flake),
    'refused',
  ]
  expect(directories(corpus).toSorted()).toEqual(expected.toSorted())
  expect(directories(join(corpus, 'refused')).toSorted()).toEqual(Object.keys(refusals).toSorted())
  expect(edits.length).toBeGreaterThanOrEqual(25)
})

describe('an edit', () => {
  test.each(edits)('of $flake is the expected one, and nothing else changes', async (expected) => {
    const root = join(corpus, expected.flake)
    const { file, line, like, before, after, inserted, notes } = await edit(root, 'sorrow')
    if (expected.notes)
      expect(notes.map((note) => note.replaceAll(root, '@'))).toEqual(expected.notes)
    expect(relative(root, file)).toBe(fileOf(expected))
    expect({ line, like, inserted }).toEqual({
      line: expected.line,
      like: expected.like,
      inserted: insertion(expected),
    })
    // before and after the insertion, the text is the old one byte for byte
    const [old, edited] = [readFileSync(file), Buffer.from(after)]
    const start = edited.findIndex((byte, index) => byte !== old[index])
    const length = edited.length - old.length
    expect(length).toBe(Buffer.byteLength(inserted))
    expect(edited.subarray(start + length).equals(old.subarray(start))).toBe(true)
    expect(before).toBe(old.toString())
    expect(after.split('\n')[line - 1]).toContain(inserted.trim().split('\n')[0])
  })

  test.each(edits)('of $flake is made only once', async (expected) => {
    const copy = copyOf(expected.flake)
    const done = await edit(copy, 'sorrow')
    writeFileSync(done.file, done.after)
    expect(await addHost(copy, 'sorrow')).toMatchObject({
      outcome: 'present',
      file: done.file,
      line: expect.any(Number),
    })
    const next = await edit(copy, 'torment')
    writeFileSync(next.file, next.after)
    for (const name of ['sorrow', 'torment'])
      expect((await addHost(copy, name)).outcome).toBe('present')
  })

  const layouts: [string, (text: string) => string][] = [
    ['CRLF line ends', (text) => text.replaceAll('\n', '\r\n')],
    ['tabs', (text) => text.replace(/^(?: {2})+/gm, (spaces) => '\t'.repeat(spaces.length / 2))],
    ['no newline at the end', (text) => text.replace(/\n$/, '')],
    ['emoji before it', (text) => `# 👩‍💻 é ${'🖥️'.repeat(20)}\n${text}`],
  ]
  describe.each(layouts)('in a file with %s', (_, rewrite) => {
    test.each(edits)('of $flake is the same edit', async (expected) => {
      const plain = await edit(join(corpus, expected.flake), 'sorrow')
      const copy = copyOf(expected.flake, fileOf(expected), rewrite)
      const { after } = await edit(copy, 'sorrow')
      expect(after).toBe(rewrite(plain.after))
    })
  })

  test('works in a file with deeply nested lists', async () => {
    const deep = `pad = ${'['.repeat(3000)}${']'.repeat(3000)};`
    const copy = copyOf('plan', 'flake.nix', (text) =>
      text.replace('outputs =', `${deep} outputs =`),
    )
    expect((await edit(copy, 'sorrow')).inserted).toContain('sorrow = mkHost')
  })

  test('of this project’s flake adds one line in the form of its other hosts', async () => {
    const { inserted, file, line, before } = await edit(project, 'misery')
    expect(inserted).toBe('\n        misery = mkHost { hostname = "misery"; };')
    expect(file).toBe(join(project, 'flake.nix'))
    expect(before.split('\n')[line - 2]).toContain('torment = mkHost')
    expect(await addHost(project, 'sorrow')).toMatchObject({ outcome: 'present' })
  })
})

/** A flake whose hosts are written like this. */
function flakeOf(hosts: string): string {
  const directory = join(scratch, String(++copies))
  mkdirSync(directory)
  writeFileSync(
    join(directory, 'flake.nix'),
    `{ outputs = { nixpkgs, ... }: let make = name: nixpkgs.lib.nixosSystem { modules = [ ./hosts/${'${name}'} ]; }; in {
  nixosConfigurations = ${hosts};
}; }
`,
  )
  return directory
}

/** The same flake with these files in it. */
function flakeWith(hosts: string, ...files: string[]): string {
  const flake = flakeOf(hosts)
  for (const file of files) {
    mkdirSync(dirname(join(flake, file)), { recursive: true })
    writeFileSync(join(flake, file), '{ }\n')
  }
  return flake
}

test('a file that other hosts import too keeps its name, even if that is the name of the copied host', async () => {
  const flake = flakeWith(
    `{
    laptop = nixpkgs.lib.nixosSystem { modules = [ ./hosts/laptop.nix ./profiles/laptop.nix ]; };
    thinkpad = nixpkgs.lib.nixosSystem { modules = [ ./hosts/thinkpad.nix ./profiles/laptop.nix ]; };
  }`,
    'hosts/laptop.nix',
    'hosts/thinkpad.nix',
    'profiles/laptop.nix',
  )
  const { inserted } = await edit(flake, 'sorrow', 'laptop')
  expect(inserted.trim()).toBe(
    'sorrow = nixpkgs.lib.nixosSystem { modules = [ ./hosts/sorrow.nix ./profiles/laptop.nix ]; };',
  )
})

test.each([
  ['server', 'roles/server/default.nix', 'hosts/server/default.nix', 'hosts/sorrow/default.nix'],
  ['desktop', 'modules/desktop.nix', 'machines/desktop.nix', 'machines/sorrow.nix'],
])(
  'the files of a host named after its role, %s, are those among the hosts',
  async (host, role, of, own) => {
    const modules = `./${role} ./${of}`.replaceAll('/default.nix', '')
    const flake = flakeWith(
      `{ ${host} = nixpkgs.lib.nixosSystem { modules = [ ${modules} ]; }; }`,
      role,
      of,
    )
    expect(relative(flake, (await readingPlace(flake, 'sorrow')).own.main)).toBe(own)
  },
)

test.each([
  ['hosts/wren.host.nix', 'hosts/sorrow.host.nix', 'hosts/sorrow.host.nix'],
  ['hosts/wren/wren.host.nix', 'hosts/sorrow/sorrow.host.nix', 'hosts/sorrow'],
])('for a host whose file is %s the new host’s file is %s', async (of, main, path) => {
  const flake = flakeWith(`{ wren = nixpkgs.lib.nixosSystem { modules = [ ./${of} ]; }; }`, of)
  const own = { path: join(flake, path), main: join(flake, main) }
  expect((await readingPlace(flake, 'sorrow')).own).toEqual(own)
})

test.each([
  [['hosts/wren/hm.nix', 'hosts/wren/nixos.nix'], 'hosts/sorrow/nixos.nix'],
  [['homelab/wren/config.nix'], 'homelab/sorrow/config.nix'],
])('if a host imports %s, the new host’s main file is %s', async (files, main) => {
  const modules = files.map((file) => `./${file}`).join(' ')
  const flake = flakeWith(
    `{ wren = nixpkgs.lib.nixosSystem { modules = [ ${modules} ]; }; }`,
    ...files,
  )
  expect(relative(flake, (await readingPlace(flake, 'sorrow')).own.main)).toBe(main)
})

test.each([
  ['modules = [ (import ./hosts/wren.nix) ];', false],
  ['modules = [ { imports = [ (import ./hosts/wren.nix) ]; } ];', false],
  ['inherit (import ./hosts/wren.nix) modules;', true],
  ['modules = import ./hosts/wren.nix;', true],
  ['modules = [ (import ./hosts/wren.nix nixpkgs) ];', true],
  ['specialArgs.facts = import ./hosts/wren.nix; modules = [ ];', true],
])('where a host is made by %s, its file is no module: %s', async (made, isNone) => {
  const flake = flakeWith(`{ wren = nixpkgs.lib.nixosSystem { ${made} }; }`)
  const file = join(flake, 'hosts/wren.nix')
  mkdirSync(dirname(file))
  writeFileSync(file, made.startsWith('modules = import') ? '[ ]\n' : '{ modules = [ ]; }\n')
  const example = isNone ? { file, whole: false } : undefined
  for (const name of ['sorrow', 'wren'])
    expect((await readingPlace(flake, name)).own.example).toEqual(example)
})

test('of two sets that `mkMerge` merges, the hosts of both are present', async () => {
  const flake = join(corpus, 'refused/merged-modules')
  for (const name of ['siskin', 'twite'])
    expect((await addHost(flake, name)).outcome).toBe('present')
})

test('directories named after hosts elsewhere do not decide where hosts are if a file defines them', async () => {
  const copy = copyOf('told-its-name')
  const all = readFileSync(join(copy, 'flake.nix'), 'utf8')
  mkdirSync(join(copy, 'fleet'))
  writeFileSync(
    join(copy, 'flake.nix'),
    '{ outputs = inputs: import ./fleet/outputs.nix inputs; }\n',
  )
  writeFileSync(
    join(copy, 'fleet/outputs.nix'),
    all.slice(all.indexOf('{ nixpkgs'), all.lastIndexOf(';')),
  )
  renameSync(join(copy, 'machine'), join(copy, 'fleet/machine'))
  expect((await addHost(copy, 'auk')).outcome).toBe('present')
  expect(relative(copy, (await readingPlace(copy, 'sorrow')).own.path)).toBe('hosts/sorrow')
})

test('a host whose name is computed is reported as present, without a line', async () => {
  const hosts = '[ "ren" ]'
  const flake = flakeOf(
    `builtins.listToAttrs (map (end: { name = "w" + end; value = make end; }) ${hosts})`,
  )
  expect(await addHost(flake, 'wren')).toEqual({
    outcome: 'present',
    file: join(flake, 'flake.nix'),
    own: expect.anything(),
  })
})

test('a copy that would read the files of the copied host is noted', async () => {
  const flake = flakeWith(
    `let mkHost = { name ? "web" }: nixpkgs.lib.nixosSystem { modules = [ (./hosts + "/\${name}.nix") ]; };
    in { web = mkHost { }; db = mkHost { name = "db"; }; }`,
    'hosts/web.nix',
    'hosts/db.nix',
  )
  const twice = `The new entry leads to \`${flake}/hosts/web.nix\`, as that of \`web\` does: it would be the same host twice`
  expect((await edit(flake, 'sorrow', 'web')).notes).toEqual([twice])
  expect((await edit(flake, 'sorrow', 'db')).notes).not.toContain(twice)
})

test('a copy of the only host is noted if its files have other names than the host', async () => {
  const machine = (more: string): string =>
    `{ nixos = nixpkgs.lib.nixosSystem { modules = [ ./hosts/laptop ${more} ]; }; }`
  expect((await edit(flakeOf(machine('')), 'sorrow')).notes).toEqual([
    'The new entry has the files of `nixos`, and its own name nowhere: it would be the same host twice',
  ])
  const named = machine('{ networking.hostName = "nixos"; }')
  expect((await edit(flakeOf(named), 'sorrow')).notes).toEqual([])
})

test('values that no two machines may share are noted, common ones are not', async () => {
  const body = `networking.hostId = "8425e349"; hostPort = 8081; services.openssh.ports = [ 2201 22 ];
    networking.firewall.allowedTCPPorts = [ 8082 ]; cpus = 4096; `
  const modules = (more: string): string =>
    `wren = nixpkgs.lib.nixosSystem { modules = [ ${more} ./common.nix { ${body} } ]; };`
  const notes = ['8425e349', '8081', '2201'].map(
    (said) => `The new entry still says \`${said}\`, as that of \`wren\` does`,
  )
  expect((await edit(flakeOf(`{ ${modules('')} }`), 'sorrow')).notes).toEqual(notes)
  const own = './machine/hardware-configuration.nix'
  expect((await edit(flakeOf(`{ ${modules(own)} }`), 'sorrow')).notes).toEqual([
    ...notes,
    `The new entry still says \`${own}\`, as that of \`wren\` alone does`,
  ])
})

describe('a name', () => {
  test.each([
    ['rec { wren = make "wren"; ibis = make "ibis"; }', 'make'],
    ['rec { wren = nixpkgs.lib.nixosSystem { modules = [ ./wren.nix ]; }; }', 'nixpkgs'],
  ])('is refused if a `rec` set of the hosts uses it: %s', async (hosts, name) => {
    const failure = await refusedBy(addHost(flakeOf(hosts), name))
    expect(failure.exit).toBe(2)
    expect(failure.message).toMatch(/: the `rec` set of the hosts uses that name at line 2 of /)
    expect((await addHost(flakeOf(hosts.replace('rec ', '')), name)).outcome).toBe('edit')
  })

  test.each([
    ['nixos', '"${nixpkgs}/nixos/modules/profiles/minimal.nix"'],
    ['nixos', '{ system.autoUpgrade.flake = "/etc/nixos"; }'],
    ['nixos', '{ nix.registry.n.to = "github:nixos/nixpkgs"; }'],
    ['nixos', './nixos/hosts/common.nix'],
    ['mia', '{ my.home = "/home/mia/dots"; }'],
  ])('`%s` is not replaced in %s', async (name, module) => {
    const entry = (of: string): string =>
      `${of} = nixpkgs.lib.nixosSystem { modules = [ ./hosts/${of}.nix ${module} ]; };`
    const { inserted } = await edit(flakeOf(`{ ${entry(name)} }`), 'sorrow')
    expect(inserted.trim()).toBe(entry('sorrow'))
  })

  test('is replaced in the path of the host’s own file, but not in the directories above it', async () => {
    const entry = (of: string): string =>
      `${of} = nixpkgs.lib.nixosSystem { modules = [ ./nixos/hosts/${of}.nix ]; };`
    const flake = flakeOf(`{ ${entry('nixos')} }`)
    mkdirSync(join(flake, 'nixos/hosts'), { recursive: true })
    writeFileSync(join(flake, 'nixos/hosts/nixos.nix'), '{ }\n')
    const path = join(flake, 'nixos/hosts/sorrow.nix')
    const { inserted } = await edit(flake, 'sorrow')
    expect(inserted.trim()).toBe(entry('sorrow'))
    const own = { path, main: path }
    expect(await addHost(flake, 'sorrow')).toMatchObject({ own, paths: [path] })
  })

  test.each(['"wren.example.org"', 'WREN'])(
    'such as %s does not hide text that still names the copied host',
    async (name) => {
      const entry = `${name} = nixpkgs.lib.nixosSystem { modules = [ ./hosts/wren { networking.hostName = "wren"; } ]; };`
      const { notes } = await edit(flakeOf(`{ ${entry} }`), 'sorrow')
      const as = `as that of \`${name.replaceAll('"', '')}\` does`
      expect(notes).toContain(`The new entry still says \`./hosts/wren\`, ${as}`)
      expect(notes).toContain(`The new entry still says \`wren\`, ${as}`)
    },
  )
})

test.each(discoveries)(
  'in %s hosts are discovered, so no edit is needed',
  async (flake, line, directory, file = 'flake.nix') => {
    const root = join(corpus, flake)
    expect(await addHost(root, 'sorrow')).toMatchObject({
      outcome: 'discovered',
      file: join(root, file),
      line,
      directory: join(root, directory),
    })
  },
)

describe('a refusal', () => {
  test.each(Object.entries(refusals))(
    'of %s names the place and the reason',
    async (flake, message) => {
      const root = join(corpus, 'refused', flake)
      const failure = await refusedBy(addHost(root, 'sorrow'))
      expect(failure.message.replaceAll(root, '@')).toBe(message)
      expect(failure.exit).toBe(2)
      // scaffold-host gives the same failure when it looks for the place of the hosts
      if (message.startsWith('Cannot parse'))
        return await expect(readingPlace(root, 'sorrow')).rejects.toThrow(failure.message)
      const likely = /^Its hosts are (most likely what is in) `(.*?)`: /.exec(
        failure.detail.hint ?? '',
      )
      expect((await readingPlace(root, 'sorrow')).found).toBe(likely?.slice(1).join(' '))
      expect(failure.detail.hint?.replaceAll(root, '@')).toMatch(
        hints[flake] ?? /sorrow = .+;|--like/,
      )
    },
  )

  test('of two possible places is avoided by naming the host to copy', async () => {
    const root = join(corpus, 'refused/two-places')
    expect((await edit(root, 'sorrow', 'dove')).inserted).toBe(' "sorrow"')
    expect((await edit(root, 'sorrow', 'dove')).line).toBe(12)
    expect((await edit(root, 'sorrow', 'swift')).line).toBe(11)
    const failure = await refusedBy(addHost(root, 'sorrow', 'eagle'))
    expect(failure.message).toBe('Cannot copy `eagle`: it is not a host that can be copied')
    expect(failure.detail.hint).toMatch(/^There are .*\bdove\b/)
  })

  test('of a file that is not UTF-8 says so', async () => {
    const copy = copyOf('plan')
    writeFileSync(join(copy, 'flake.nix'), Buffer.from([0x7b, 0x20, 0xff, 0x7d]))
    const failure = await refusedBy(addHost(copy, 'sorrow'))
    expect(failure.message).toBe(`Cannot read \`${copy}/flake.nix\`: it is not UTF-8 text`)
  })

  test.each([
    ['plan', 'flake.nix'],
    ['import-hosts', 'hosts/default.nix'],
  ])(
    'of %s with a byte order mark in %s suggests a command that removes it',
    async (flake, file) => {
      const copy = copyOf(flake, file, (text) => `\uFEFF${text}`)
      const failure = await refusedBy(addHost(copy, 'sorrow'))
      expect(failure.message).toBe(
        `Cannot parse \`${copy}/${file}\`: it begins with a byte order mark, which nix rejects as a syntax error`,
      )
      const [, command] = /: (sed .*)$/.exec(failure.detail.hint ?? '') ?? []
      spawnSync('sh', ['-c', command ?? 'exit 1'])
      expect(readFileSync(join(copy, file))).toEqual(readFileSync(join(corpus, flake, file)))
      expect((await addHost(copy, 'sorrow')).outcome).toBe('edit')
    },
  )

  test('names the file if the hosts are outside the flake, behind a symlink', async () => {
    const copy = realpathSync(copyOf('import-hosts'))
    renameSync(join(copy, 'hosts'), join(copy, '../hosts'))
    symlinkSync('../hosts', join(copy, 'hosts'))
    const failure = await refusedBy(addHost(copy, 'sorrow'))
    expect(failure.message).toBe(
      `Cannot add \`sorrow\`: the hosts are in \`${copy}/hosts/default.nix\`, outside the flake`,
    )
  })

  test('comes quickly for an endless recursion', async () => {
    const copy = copyOf('plan')
    writeFileSync(
      join(copy, 'flake.nix'),
      '{ outputs = inputs: let f = n: f [ n ] // f n; in { nixosConfigurations = f 1; }; }',
    )
    const failure = await refusedBy(addHost(copy, 'sorrow'))
    expect(failure.message).toContain('the definition has no end')
  })
})

test.each(Object.entries(ownFiles))(
  '%s reads the configuration of a new host from %s',
  async (flake, main) => {
    const root = join(corpus, flake)
    const { own } = await readingPlace(root, 'sorrow')
    expect(relative(root, own.main)).toBe(main)
    // the same if the host already exists
    const copy = join(scratch, String(++copies))
    cpSync(root, copy, { recursive: true })
    mkdirSync(dirname(join(copy, main)), { recursive: true })
    writeFileSync(join(copy, main), '{ }')
    expect(relative(copy, (await readingPlace(copy, 'sorrow')).own.main)).toBe(main)
    if (flake.startsWith('refused/')) {
      const hint = async (of: string): Promise<string | undefined> =>
        (await refusedBy(addHost(of, 'sorrow'))).detail.hint?.replaceAll(of, '@')
      expect(await hint(copy)).toBe(await hint(root))
    }
  },
)

test.each(['home/mia/nixos', 'secrets', 'disks/hosts/sorrow', 'nixos/sorrow'])(
  'the location %s of a flake does not change where it reads a new host',
  async (place) => {
    for (const flake of ['nixos-system', 'list-of-records', 'read-dir-beside', 'read-dir-helper']) {
      const copy = join(scratch, String(++copies), place)
      cpSync(join(corpus, flake), copy, { recursive: true })
      const { own } = await readingPlace(copy, 'sorrow')
      expect([flake, relative(copy, own.main)]).toEqual([flake, ownFiles[flake]])
    }
  },
)

describe('a file that the grammar reports as broken', () => {
  test('is edited all the same if nix can parse it', async ({ skip }) => {
    if (spawnSync('nix-instantiate', ['--version']).error) skip('nix-instantiate is not installed')
    // the grammar reads the comment as a missing name
    const form = 'inherit # nothing\n ;'
    const copy = copyOf('plan', 'flake.nix', (text) => text.replace(/\blet\b/, `let ${form}`))
    const text = readFileSync(join(copy, 'flake.nix'), 'utf8')
    expect(text).toContain(form)
    const { after } = await edit(copy, 'sorrow')
    expect(after).toContain('sorrow = mkHost { hostname = "sorrow"; };')
    expect(after).toContain(form)
  })
})

test.each([
  ['filtered', 'kiwi', 8],
  ['filtered-names', 'shrike', 9],
])('a name that the flake %s filters out is not added a second time', async (flake, name, line) => {
  const root = join(corpus, flake)
  const { message, exit } = await refusedBy(addHost(root, name))
  expect({ message, exit }).toEqual({
    message: `Cannot add \`${name}\`: it is written at line ${line} of \`${root}/flake.nix\`, and the flake makes no host of it`,
    exit: 2,
  })
})

describe('notes', () => {
  test('name a path that still contains the name of the copied host', async () => {
    const { notes } = await edit(join(corpus, 'web'), 'sorrow')
    expect(notes).toEqual([
      'The new entry still says `./modules/web-server.nix`, as that of `web` does',
    ])
  })

  test('name a variable that contains the name of the copied host', async () => {
    const { notes } = await edit(join(corpus, 'shared-names'), 'sorrow', 'laptop')
    expect(notes).toEqual(['The new entry still says `laptopConfig`, as that of `laptop` does'])
  })

  test('name a file that only the copied host imports', async () => {
    const { notes } = await edit(join(corpus, 'other-platforms'), 'sorrow')
    expect(notes).toEqual([
      'The new entry still says `./common.nix`, as that of `avocet` alone does',
    ])
  })

  test('leave out text that every host has', async () => {
    const { notes } = await edit(join(corpus, 'joined-words'), 'sorrow')
    expect(notes).toEqual(['`self.disks.sorrow` is not there yet'])
  })

  test('say that the lab cannot run a host for another platform', async () => {
    const root = join(corpus, 'other-platforms')
    for (const [like, platform] of [
      ['wader', 'aarch64-linux'],
      ['stilt', 'riscv64-linux'],
    ] as const) {
      const { notes } = await edit(root, 'sorrow', like)
      expect(notes).toEqual([
        `\`${like}\` is a host for ${platform}, and the lab runs x86_64-linux alone: change it in the new entry`,
      ])
    }
  })

  test('name the files of scaffold-host if the new entry does not read them', async () => {
    const copy = copyOf('own-files')
    mkdirSync(join(copy, 'hosts/sorrow'), { recursive: true })
    const { notes } = await edit(copy, 'sorrow', 'rail')
    expect(notes).toEqual([
      `\`${copy}/hosts/sorrow\` exists, but nothing in the new entry appears to read it`,
    ])
  })
})

test('a name that is a Nix keyword is quoted', async () => {
  expect((await edit(join(corpus, 'plan'), 'rec')).inserted).toBe(
    '\n        "rec" = mkHost { hostname = "rec"; };',
  )
})

test('a path that only has the letters of a short name is not the new host’s', async () => {
  const { paths } = await edit(join(corpus, 'web'), 'b')
  expect(paths).toEqual([join(corpus, 'web/hosts/b')])
})

test('the paths that the new entry names are returned', async () => {
  const { paths } = await edit(join(corpus, 'import-hosts'), 'sorrow')
  expect(paths).toEqual([])
  const root = join(corpus, 'flake-parts-import')
  expect((await edit(root, 'sorrow')).paths).toEqual([join(root, 'hosts/sorrow')])
  // not ./common, which every host has
  const spelled = join(corpus, 'nixos-system')
  expect((await edit(spelled, 'sorrow')).paths).toEqual([
    join(spelled, 'hosts/sorrow/configuration.nix'),
  ])
})

const pipeOperators = ['--option', 'extra-experimental-features', 'pipe-operators']

/** The hosts of flakes as Nix evaluates them, with stand-ins for their inputs. */
function evaluated(flakes: string[]): string[][] {
  const list = flakes.map((flake) => `"${flake}"`).join(' ')
  const expression = `
    let
      inputs = import ${corpus}/inputs.nix;
      names = flake:
        let
          inherit (import (flake + "/flake.nix")) outputs;
          given = inputs // { inherit self; };
          open = builtins.match ".*([.]{3}|inputs:).*" (builtins.readFile (flake + "/flake.nix")) != null;
          wanted = if open then given else builtins.intersectAttrs (builtins.functionArgs outputs) given;
          made = outputs wanted;
          self = made // { inherit inputs; outputs = made; };
        in builtins.attrNames self.nixosConfigurations;
    in map names [ ${list} ]`
  const { stdout, stderr, status } = spawnSync(
    'nix-instantiate',
    ['--store', 'dummy://', ...pipeOperators, '--eval', '--strict', '--json', '-E', expression],
    { encoding: 'utf8' },
  )
  if (status !== 0) throw new Error(stderr)
  return JSON.parse(stdout) as string[][]
}

// this is the only flake that makes a second host of each name
const made = (flake: string): string[] =>
  flake === 'map-attrs-prime' ? ['sorrow', 'sorrow-vm'] : ['sorrow']

/** Compares, with nix, the hosts of flakes and of their edited copies. */
async function comparedByNix(expectations: ExpectedEdit[]): Promise<void> {
  const edited: string[] = []
  for (const expected of expectations) {
    const copy = copyOf(expected.flake)
    const { file, after } = await edit(copy, 'sorrow')
    writeFileSync(file, after)
    edited.push(copy)
  }
  const before = evaluated(expectations.map(({ flake }) => join(corpus, flake)))
  const after = evaluated(edited)
  for (const [index, { flake }] of expectations.entries()) {
    const expected = [...before[index]!, ...made(flake)].toSorted()
    expect([flake, ...after[index]!.toSorted()]).toEqual([flake, ...expected])
  }
}
const hasPipes = ({ flake }: ExpectedEdit): boolean => flake === 'pipes'

test('the entry that a refusal suggests writing by hand gives a host', async ({ skip }) => {
  if (spawnSync('nix-instantiate', ['--version']).error) skip('nix-instantiate is not installed')
  const copies_ = await Promise.all(
    writtenByHand.map(async (flake) => {
      const copy = copyOf(`refused/${flake}`)
      const { file, offset, length, text, words } = await handWritten(copy, 'sorrow')
      const before = readFileSync(file, 'utf8')
      writeFileSync(file, before.slice(0, offset) + text + before.slice(offset + length))
      const failure = await refusedBy(addHost(join(corpus, 'refused', flake), 'sorrow'))
      // except those whose hint names another place, or which host to copy
      if (!['named-in-a-file', 'two-places'].includes(flake))
        expect(failure.detail.hint?.endsWith(words)).toBe(true)
      return copy
    }),
  )
  for (const [index, names] of evaluated(copies_).entries())
    expect([writtenByHand[index], names]).toEqual([
      writtenByHand[index],
      expect.arrayContaining(['sorrow']),
    ])
})

/** Follows a hint in a copy of its flake. */
async function followed(flake: string): Promise<string> {
  const copy = copyOf(`refused/${flake}`)
  const { hint = '' } = (await refusedBy(addHost(copy, 'sorrow'))).detail
  const [, directory, entry] = /what is in `(.*?)`: write `(.*?)` there/.exec(hint) ?? []
  const [, line, path, written] = /at line (\d+) of `(.*?)`: write `(.*?)` there/.exec(hint) ?? []
  if (directory !== undefined && entry !== undefined) {
    const { main } = (await readingPlace(copy, 'sorrow')).own
    const file = entry.endsWith('.nix') ? entry : join(entry, basename(main))
    expect(join(directory, file)).toBe(main)
    mkdirSync(dirname(main), { recursive: true })
    writeFileSync(main, '{ }\n')
  } else if (path !== undefined && written !== undefined) {
    const lines = readFileSync(path, 'utf8').split('\n')
    const at = Number(line) - 1
    // in a list a name is a string
    lines[at] = written.includes('…')
      ? lines[at]!.replace('{', `{ ${written.replace('…', '{ }')}`)
      : lines[at]!.replace('[', `[ "${written}"`)
    writeFileSync(path, lines.join('\n'))
  } else {
    const { file, offset, length, text } = await handWritten(copy, 'sorrow')
    const before = readFileSync(file, 'utf8')
    writeFileSync(file, before.slice(0, offset) + text + before.slice(offset + length))
  }
  return copy
}

test('a file written where a framework’s hint says gives a host', async ({ skip }) => {
  if (spawnSync('nix-instantiate', ['--version']).error) skip('nix-instantiate is not installed')
  const before = evaluated(readByFrameworks.map((flake) => join(corpus, 'refused', flake)))
  const after = evaluated(await Promise.all(readByFrameworks.map(followed)))
  for (const [index, flake] of readByFrameworks.entries())
    expect([flake, after[index]]).toEqual([flake, [...before[index]!, 'sorrow'].toSorted()])
})

test('in every edited flake nix finds the new host, and the others unchanged', async ({ skip }) => {
  if (spawnSync('nix-instantiate', ['--version']).error) skip('nix-instantiate is not installed')
  await comparedByNix(edits.filter((one) => !hasPipes(one)))
})

test('in every edited flake with pipe operators nix finds the new host', async ({ skip }) => {
  const { status } = spawnSync('nix-instantiate', [...pipeOperators, '--eval', '-E', '1 |> (x: x)'])
  if (status !== 0) skip('nix-instantiate knows no pipe operators, or is not installed')
  await comparedByNix(edits.filter(hasPipes))
})

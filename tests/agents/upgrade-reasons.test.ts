import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { missingForRoot } from './root.ts'
import { makeUpgradeWorld, type UpgradeWorld } from './upgrade.ts'

const missing = await missingForRoot()
let world: UpgradeWorld
beforeAll(async () => {
  if (!missing) world = await makeUpgradeWorld()
})
beforeEach((context) => {
  if (missing) context.skip(missing)
})
afterAll(() => world?.remove())

/** Pushes a commit with this text.nix, and upgrades. */
const deploy = async (text: string, files: Record<string, string> = {}) => {
  await world.push('a change', { ...files, 'text.nix': text })
  return world.upgrade()
}
const knownBad = (): Promise<string> =>
  world.sh('cat /var/lib/nix-local-upgrade/known-bad 2>/dev/null || true')

/** A derivation as a Nix expression. */
const built = (name: string, script: string, more = ''): string =>
  `derivation { name = "${name}"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin"; args = [ "-c" ''${script}'' ]; ${more} }`
const fixed = 'outputHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";'

// a copy of the module system's error for conflicting values: there are no NixOS modules here
const conflicting = `throw "The option \`a.b' has conflicting definition values:\\n- In \`\${./.}/hosts/a.nix': \\"x\\"\\n- In \`\${./.}/hosts/b.nix': \\"y\\"\\nUse \`lib.mkForce value' to change the priority."`

test.each<[string, string, RegExp]>([
  [
    'an assertion',
    'assert 1 == 2; ""',
    /^an integer with value '1' is not equal to .* at text\.nix:1:1$/,
  ],
  [
    'an attribute',
    '{ fooo = 1; }.foo',
    /^attribute 'foo' missing at text\.nix:1:\d+ \(Did you mean fooo\?\)$/,
  ],
  [
    'a syntax error',
    '{ a = 1\nb = 2; }',
    /^syntax error, unexpected '=', expecting ';' at text\.nix:2:3$/,
  ],
  ['endless recursion', 'let x = x + 1; in x', /^infinite recursion encountered at text\.nix:1:9$/],
  ['a name', 'foo', /^undefined variable 'foo' at text\.nix:1:1$/],
  [
    'two values',
    conflicting,
    /^The option `a\.b' has conflicting definition values: - In `hosts\/a\.nix': "x" - In `hosts\/b\.nix': "y" Use `lib\.mkForce value' to change the priority\. at text\.nix:1:1$/,
  ],
  [
    'a list of assertions',
    'throw "\\nFailed assertions:\\n- No root file system.\\n- No boot loader."',
    /^Failed assertions: - No root file system\. - No boot loader\. at text\.nix:1:1$/,
  ],
  ['a file', 'builtins.readFile ./none.txt', /^`none\.txt` is not in the commit$/],
])('An evaluation that fails by %s is reported with cause and place', async (_, text, reason) => {
  const done = await deploy(text)
  expect(done).toMatchObject({ code: 1, outcome: 'build-failed', notRestored: [] })
  expect(done.reason).toMatch(reason)
  expect((await knownBad()).trim().split('\n').at(-1)).toContain(' build-failed ')
})

test('A build that never ends has a time limit, and is tried again', async () => {
  await world.push('a change', { 'text.nix': `"\${${built('hangs', 'sleep 1000')}}"` })
  const before = await knownBad()
  const done = await world.upgrade({ UPGRADE_BUILD_LIMIT: '5' })
  expect(done).toMatchObject({ code: 1, outcome: 'build-failed', notRestored: [] })
  expect(done.reason).toBe('The build took longer than 5 s')
  expect(await knownBad()).toBe(before)
})

const deep = (inner: string): string =>
  `"\${${built('outer', 'echo $inner >$out', `inner = ${inner};`)}}"`
test.each<[string, string, RegExp]>([
  [
    'deep down',
    deep(built('inner', 'echo first; echo "config line 3: bad value" >&2; exit 3')),
    /^Cannot build \/nix\/store\/\w+-inner\.drv: builder failed with exit code 3: config line 3: bad value$/,
  ],
  [
    'without a word',
    deep(built('mute', 'exit 4')),
    /^Cannot build \/nix\/store\/\w+-mute\.drv: builder failed with exit code 4$/,
  ],
  [
    'with nothing made',
    deep(built('lazy', 'echo done')),
    /-lazy\.drv' failed to produce output path/,
  ],
  [
    'with another hash',
    deep(built('source', 'echo x >$out', fixed)),
    /^hash mismatch in .*-source\.drv': specified: sha256-A+= got: sha256-\S+$/,
  ],
  [
    'by a port of its own',
    deep(built('check', 'echo "connect: Connection refused"; exit 1')),
    /-check\.drv: builder failed with exit code 1: connect: Connection refused$/,
  ],
])('For a build that fails %s the first failure is named', async (_, text, reason) => {
  const done = await deploy(text)
  expect(done).toMatchObject({ code: 1, outcome: 'build-failed', notRestored: [] })
  expect(done.reason).toMatch(reason)
})

test('If a build cannot fetch something, the network or the server is blamed', async () => {
  const before = await knownBad()
  const fetched = await deploy(
    deep(built('fetched', 'echo "curl: (6) Could not resolve host: example.org"; exit 1', fixed)),
  )
  expect(fetched).toMatchObject({ code: 0, outcome: 'offline' })
  const input = (url: string): string =>
    `{ inputs.x.url = "${url}"; outputs = { self, x }: { toplevel = x; }; }`
  const flake = await world.rain('cat flake.nix')
  await world.push('an input', { 'flake.nix': input('git+http://127.0.0.1:9/x') })
  expect(await world.upgrade()).toMatchObject({
    outcome: 'offline',
    reason: expect.stringMatching(/^Cannot fetch what the build needs: .*127\.0\.0\.1/),
  })
  await world.push('no input', { 'flake.nix': flake, 'text.nix': '"one"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'up-to-date' })
  expect(await knownBad()).toBe(before)
})

test('If a binary cache serves wrong content, the commit is not blamed', async () => {
  const before = await knownBad()
  const package_ = built('cached', 'echo from the cache >$out')
  await world.sh(`cat >/root/cached.nix <<'NIX'
${package_}
NIX
    path=$(nix-store --realise "$(nix-instantiate /root/cached.nix)") && mkdir -p /root/cache
    nix copy --extra-experimental-features nix-command --to 'file:///root/cache?compression=none' "$path"
    nix-store --delete "$path"; cp /etc/nix/nix.conf /root/nix.conf
    echo 'substituters = file:///root/cache?trusted=true' >>/etc/nix/nix.conf
    sed -i 's/from the cache/from THE cache/' /root/cache/nar/*.nar`)
  const wrong = await deploy(deep(package_))
  expect(wrong).toMatchObject({ code: 1, outcome: 'failed', notRestored: [] })
  expect(wrong.reason).toMatch(
    /^The binary cache served other contents than it announced: hash mismatch importing path '\/nix\/store\/\w+-cached'/,
  )
  expect(await knownBad()).toBe(before)
  // once the cache is repaired, the same commit is deployed
  await world.sh("sed -i 's/from THE cache/from the cache/' /root/cache/nar/*.nar")
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
  await world.sh('mv /root/nix.conf /etc/nix/nix.conf')
})

/**
 * All steps of a `nixos` guest except disko's image builder. They run on the embedded guest's disk, because no
 * NixOS can be built without its cache. The flake's `nixosConfigurations` are the lab's own systems, which
 * declare that they are prepared (`lab.vm`), and LAB_NIXOS_IMAGE gives the disk.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { buildHosts, readHost, type Host } from '../../lib/nix/host.ts'
import { ensureBaseImage } from '../../lib/image/image.ts'
import { ensureHostLayer } from '../../lib/image/layer.ts'
import { storeOptions } from '../../lib/nix/store.ts'
import { seal } from '../../lib/nix/secrets.ts'
import type { Verified } from '../../tasks/verify.ts'
import { changeHost, copyFlake } from '../flake-copy.ts'
import { makeLab, type Lab } from '../lab.ts'

let lab: Lab
let flake: string
let first: Host

const flakeText = `{
  outputs = { self }: {
    nixosConfigurations.sorrow = (import ./nix/lab).labSystem {
      hostname = "sorrow";
      modules = [ ({ lib, ... }: {
        options.lab.vm = lib.mkOption { default = true; };
        # as nix/lab/vm.nix has it
        config.services.openssh.authorizedKeysFiles = [ "/etc/ssh/lab_keys.d/%u" ];
        # agents have tests of their own
        config.myModules.services.autoUpgrade.enable = lib.mkForce false;
        config.myModules.system.boot.goldenGeneration.enable = lib.mkForce false;
      }) ];
    };
  };
}
`

beforeAll(async () => {
  lab = makeLab()
  flake = copyFlake(lab.dir)
  writeFileSync(join(flake, 'flake.nix'), flakeText)
  rmSync(join(flake, 'flake.lock'))
  execFileSync('git', ['-C', flake, 'add', '--all'])
  const base = await ensureBaseImage({ cache: lab.env['LAB_CACHE']! })
  const store = storeOptions(base)
  // the nixos guest builds in the machine's own store
  const [, directory, ...options] = store
  const settings = options.flatMap((word, at) =>
    word === '--option' ? [`${options[at + 1]} = ${options[at + 2]}`] : [],
  )
  Object.assign(lab.env, {
    LAB_GUEST: 'nixos',
    LAB_FLAKE: flake,
    NIX_REMOTE: directory,
    NIX_CONFIG: settings.join('\n'),
  })
  first = await readHost('sorrow', 'nixosConfigurations', store, flake)
  await buildHosts([first], store)
  lab.env['LAB_NIXOS_IMAGE'] = await ensureHostLayer(base, { ...first, host: 'sorrow', store })
})
afterAll(() => lab.remove())

const ssh = async (...command: string[]): Promise<string> => {
  const { stdout, stderr, code } = await lab.just('ssh-test-vm', 'sorrow', ...command)
  if (code !== 0) throw new Error(`${command.join(' ')}: exited with ${code}: ${stderr}`)
  return stdout.trim()
}

test('a deploy names its guest, starts the given image and logs in', async () => {
  expect(await lab.just('seal-secrets')).toMatchObject({ code: 0 })
  const { code, stdout, stderr } = await lab.just('deploy-test-vm', 'sorrow')
  expect({ code, stderr }).toMatchObject({ code: 0 })
  expect(stdout + stderr).toContain('guest nixos: LAB_GUEST says so')
  expect(await ssh('readlink -f /run/current-system')).toBe(first.toplevel)
  const vm = JSON.parse(readFileSync(join(lab.env['LAB_HOME']!, 'vms/sorrow/vm.json'), 'utf8'))
  expect(vm).toMatchObject({ guest: 'nixos', layer: lab.env['LAB_NIXOS_IMAGE'] })
})

test('the identity was provided at boot, in a file that a switch does not touch', async () => {
  expect(await ssh('ls /etc/ssh/lab_keys.d /etc/ssh/authorized_keys.d 2>/dev/null || true')).toBe(
    '/etc/ssh/lab_keys.d:\nrain\nroot',
  )
  expect(await ssh('--root', 'stat -c "%U %a" /var/lib/sops-nix/key.txt')).toBe('root 400')
  const pinned = readFileSync(join(lab.env['LAB_HOME']!, 'known_hosts'), 'utf8').split(' ')[2]
  expect((await ssh('cat /etc/ssh/ssh_host_ed25519_key.pub')).split(' ')[1]).toBe(pinned!.trim())
})

test('an existing VM keeps its guest, whatever LAB_GUEST says later', async () => {
  lab.env['LAB_GUEST'] = 'debian'
  const verified = await lab.task('verify', '--json')
  lab.env['LAB_GUEST'] = 'nixos'
  const [found] = JSON.parse(verified.stdout) as Verified[]
  expect(found!.results.filter(({ state }) => state === 'fail')).toEqual([])
  expect(found!.results.map(({ check }) => check)).toContain('running generation')
})

test('a rebuild copies with nix itself and switches', async () => {
  changeHost(flake, 'sorrow', '{ environment.etc."lab-change".text = "copied"; }')
  const { code, stdout, stderr } = await lab.just('rebuild-test-vm', 'sorrow')
  expect(code, stderr + stdout).toBe(0)
  expect(stdout).toContain('0 failed')
  expect(await ssh('cat /etc/lab-change')).toBe('copied')
  expect(await ssh('readlink /nix/var/nix/profiles/system')).toBe('system-2-link')
  expect(stderr).toContain('copy and switch')
})

test('secrets that the VM has no key for are detected before the switch, and login still works', async () => {
  const check =
    'SECRETS_KEY=/var/lib/sops-nix/key.txt sh ${../../nix/agents/check-secrets.sh} ${../../secrets/base.yaml}'
  changeHost(flake, 'sorrow', `{ system.preSwitchChecks.secrets = "${check}"; }`)
  expect(await lab.just('rebuild-test-vm', 'sorrow')).toMatchObject({ code: 0 })
  const running = await ssh('readlink -f /run/current-system')

  const { generateX25519Identity, identityToRecipient } = await import('age-encryption')
  const other = await identityToRecipient(await generateX25519Identity())
  writeFileSync(join(flake, 'secrets/base.yaml'), await seal({ greeting: 'not for you' }, [other]))
  const { code, stderr } = await lab.just('rebuild-test-vm', 'sorrow')
  expect(code).toBe(1)
  expect(stderr).toContain('Cannot open')
  expect(await ssh('readlink -f /run/current-system')).toBe(running)
})

test('a change that breaks a unit makes the rebuild fail and names it', async () => {
  changeHost(
    flake,
    'sorrow',
    `{ systemd.services.lab-broken = {
      wantedBy = [ "multi-user.target" ];
      serviceConfig = { Type = "oneshot"; ExecStart = "/bin/false"; };
    }; }`,
  )
  const { code, stderr } = await lab.just('rebuild-test-vm', 'sorrow')
  expect(code).toBe(1)
  expect(stderr).toContain('lab-broken.service')
})

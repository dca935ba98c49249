import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { type BaseImage } from '../../../lib/image/base.ts'
import { storeOptions } from '../../../lib/nix/store.ts'
import { nix } from '../../../lib/nix/nix.ts'
import { findCommand } from '../../../lib/find-command.ts'
import { run } from '../../../lib/run.ts'
import { project } from '../../../lib/settings.ts'
import { scratch } from './generation.ts'

/** A directory with everything that a store needs from an image: busybox, a kernel and a first stage. */
function image(kernel = 'kernel'): { dir: string; store: string[] } {
  const dir = scratch()
  onTestFinished(() => run('chmod', ['-R', 'u+w', dir]).then(() => undefined))
  for (const sub of ['bin', 'boot']) mkdirSync(join(dir, sub))
  copyFileSync(findCommand('busybox')!, join(dir, 'bin/busybox'))
  chmodSync(join(dir, 'bin/busybox'), 0o755)
  writeFileSync(join(dir, 'boot/kernel'), kernel)
  writeFileSync(join(dir, 'boot/initrd'), 'initrd')
  return { dir, store: storeOptions({ dir } as BaseImage) }
}

async function build(store: string[], module: string): Promise<string> {
  const expr = `((import ${project}/nix/lab).labSystem { hostname = "sorrow"; modules = [ (${module}) ]; }).config.system.build.toplevel`
  const args = ['build', ...store, '--impure', '--no-link', '--json', '--expr', expr]
  const [built] = JSON.parse((await nix(args)).stdout) as { outputs: { out: string } }[]
  return built!.outputs.out
}

const module = `{ pkgs, ... }: {
  environment.etc."dir/quoted".text = "it's \${"$"}{x} \\\\ %s\\nno newline at the end";
  environment.etc.secret = { text = "s"; mode = "0400"; user = "rain"; };
  environment.etc.linked.source = pkgs.writeText "elsewhere" "there";
  environment.systemPackages = [ (pkgs.writeShellScriptBin "hello" "echo hello") pkgs.git ];
  systemd.services.demo = { script = "echo demo"; wantedBy = [ "multi-user.target" ]; };
  boot.loader.systemd-boot.configurationLimit = 7;
}`

test('The tree is shaped like the toplevel of NixOS', async () => {
  const { dir, store } = image()
  const toplevel = await build(store, module)
  const physical = (path: string): string => join(dir, 'store', path)
  const read = (path: string): string => readFileSync(physical(`${toplevel}/${path}`), 'utf8')
  expect(toplevel).toMatch(/^\/nix\/store\/[a-z0-9]{32}-nixos-system-sorrow-lab$/)
  expect(readFileSync(physical(readlinkSync(physical(`${toplevel}/kernel`))), 'utf8')).toBe(
    'kernel',
  )
  expect(readFileSync(physical(readlinkSync(physical(`${toplevel}/initrd`))), 'utf8')).toBe(
    'initrd',
  )
  // with a root= here, a garbage first stage would not end in a panic
  expect(read('kernel-params')).toMatch(/^(?!.*\broot=).*\bpanic=10\b.*\n$/)
  // the kernel uses the last one
  expect(read('kernel-params')).not.toContain('panic=5')
  expect(read('kernel-params')).toContain('console=ttyS0')
  expect(read('etc/hostname')).toBe('sorrow\n')
  expect(read('etc/dir/quoted')).toBe("it's ${x} \\ %s\nno newline at the end")
  expect(readlinkSync(physical(`${toplevel}/etc/linked`))).toMatch(/^\/nix\/store\/.*-elsewhere$/)
  expect(read('table/etc').split('\n')).toEqual(
    expect.arrayContaining(['dir/quoted', 'linked', 'systemd/system']),
  )
  expect(read('table/copies')).toContain('0400 rain +0 secret\n')
  expect(read('table/etc')).not.toContain('secret')
  expect(read('configuration-limit')).toBe('7\n')
  expect(readdirSync(physical(`${toplevel}/sw/bin`))).toContain('hello')
  expect(
    readlinkSync(physical(`${toplevel}/etc/systemd/system/multi-user.target.wants/demo.service`)),
  ).toBe('../demo.service')
  for (const script of [
    'init',
    'activate',
    'bin/switch-to-configuration',
    'bin/install-boot-entries',
  ]) {
    expect(statSync(physical(`${toplevel}/${script}`)).mode & 0o111).toBe(0o111)
  }
})

test('It has the same path in every store, whatever kernel the image has', async () => {
  const one = await build(image().store, module)
  expect(await build(image('another').store, module)).toBe(one)
  expect(await build(image().store, '{ environment.etc.x.text = "x"; }')).not.toBe(one)
})

test('A change of a description or a script changes nothing else in the tree', async () => {
  const { dir, store } = image()
  const units = async (change: string): Promise<string[]> => {
    const toplevel = await build(
      store,
      `{ systemd.services.demo = { script = "true"; } // { ${change} }; }`,
    )
    return readFileSync(join(dir, 'store', toplevel, 'table/units'), 'utf8').split('\n')
  }
  const before = await units('')
  expect(await units('description = "x";')).toEqual(before)
  const changed = (await units('script = "false";')).filter((line) => !before.includes(line))
  expect(changed.map((line) => line.split(' ')[0])).toEqual(['demo.service'])
})

test('A group of activation scripts runs in the order of its dependencies', async () => {
  const { dir, store } = image()
  const toplevel = await build(
    store,
    '{ system.activationScripts = { a = { text = "echo a"; deps = [ "z" ]; }; z = "echo z; false"; m.text = "echo m"; }; }',
  )
  const script = join(dir, 'store', toplevel, 'activation-snippets')
  const { stdout, stderr } = await run('bash', [script], { allow: [1] })
  expect(stdout.split('\n').filter(Boolean).toSorted()).toEqual(['a', 'm', 'z'])
  expect(stdout.indexOf('z')).toBeLessThan(stdout.indexOf('a'))
  expect(stderr).toBe("Activation script snippet 'z' failed (1)\n")
})

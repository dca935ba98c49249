import { mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { run, type Ran } from '../../../lib/run.ts'
import { asRoot, files, generation, scratch } from './generation.ts'

/** A profile of generations in a directory, each with its own boot files. */
class Guest {
  readonly dir = scratch()
  readonly esp = join(this.dir, 'esp')
  readonly profiles = join(this.dir, 'profiles')

  constructor(numbers: number[], options: { limit?: number; kernelKiB?: number } = {}) {
    mkdirSync(this.esp)
    mkdirSync(this.profiles)
    for (const n of numbers) this.add(n, options)
    this.point(numbers.at(-1)!)
  }

  path = (n: number): string => join(this.dir, `toplevel-${n}`)

  add(n: number, options: { limit?: number; kernelKiB?: number } = {}): void {
    const boot = join(this.dir, 'boot')
    files(boot, {
      [`kernel-${n}`]: 'k'.repeat(1024 * (options.kernelKiB ?? 1)),
      initrd: 'the same',
    })
    generation(this.path(n), { 'configuration-limit': `${options.limit ?? 0}\n` })
    symlinkSync(join(boot, `kernel-${n}`), join(this.path(n), 'kernel'))
    symlinkSync(join(boot, 'initrd'), join(this.path(n), 'initrd'))
    symlinkSync(this.path(n), join(this.profiles, `system-${n}-link`))
  }

  point(n: number): void {
    rmSync(join(this.profiles, 'system'), { force: true })
    symlinkSync(`system-${n}-link`, join(this.profiles, 'system'))
  }

  get env(): Record<string, string> {
    return { ESP: this.esp, PROFILES: this.profiles }
  }

  install(n: number, ...args: string[]): Promise<Ran> {
    return run(join(this.path(n), 'bin/install-boot-entries'), args, { env: this.env, allow: [1] })
  }

  get entries(): string[] {
    return readdirSync(join(this.esp, 'loader/entries')).toSorted()
  }

  get kernels(): string[] {
    return readdirSync(join(this.esp, 'EFI/nixos')).toSorted()
  }

  get loader(): string {
    return readFileSync(join(this.esp, 'loader/loader.conf'), 'utf8')
  }
}

test('Each generation gets an entry with its own kernel, first stage and init', async () => {
  const guest = new Guest([1, 2, 10])
  await guest.install(10)
  expect(guest.entries).toEqual([
    'nixos-generation-1.conf',
    'nixos-generation-10.conf',
    'nixos-generation-2.conf',
  ])
  expect(guest.kernels).toEqual(['initrd.efi', 'kernel-1.efi', 'kernel-10.efi', 'kernel-2.efi'])
  expect(readFileSync(join(guest.esp, 'loader/entries/nixos-generation-2.conf'), 'utf8')).toBe(
    `title NixOS
sort-key nixos
version Generation 2
linux /EFI/nixos/kernel-2.efi
initrd /EFI/nixos/initrd.efi
options init=${guest.path(2)}/init loglevel=4
`,
  )
  expect(guest.loader).toBe('timeout 0\ndefault nixos-generation-10.conf\n')
})

test('Files of removed generations are removed, and nothing else', async () => {
  const guest = new Guest([1, 2])
  await guest.install(2)
  files(guest.esp, { 'loader/entries/golden.conf': 'kept', 'EFI/golden/kernel.efi': 'kept' })
  rmSync(join(guest.profiles, 'system-1-link'))
  // leftovers of a power cut
  files(guest.esp, {
    'EFI/nixos/kernel-7.efi.new': 'half',
    'loader/entries/nixos-generation-7.conf.new': '',
  })
  await guest.install(2)
  expect(guest.entries).toEqual(['golden.conf', 'nixos-generation-2.conf'])
  expect(guest.kernels).toEqual(['initrd.efi', 'kernel-2.efi'])
  expect(readdirSync(join(guest.esp, 'EFI/golden'))).toEqual(['kernel.efi'])
})

test('The limit keeps the newest generations, and always the default', async () => {
  const guest = new Guest([1, 2, 3, 4], { limit: 2 })
  guest.point(1)
  await guest.install(1)
  expect(guest.entries).toEqual([
    'nixos-generation-1.conf',
    'nixos-generation-3.conf',
    'nixos-generation-4.conf',
  ])
  expect(guest.loader).toContain('default nixos-generation-1.conf')
})

test('Other profiles have their own entries, and the generation that runs the installer becomes the default', async () => {
  const guest = new Guest([1, 2, 3])
  const beside = join(guest.profiles, 'system-profiles')
  mkdirSync(beside)
  for (const n of [1, 2]) symlinkSync(guest.path(n + 1), join(beside, `other-${n}-link`))
  symlinkSync('other-2-link', join(beside, 'other'))
  guest.point(1)
  await guest.install(3)
  expect(guest.entries.filter((entry) => entry.startsWith('nixos-other-'))).toEqual([
    'nixos-other-generation-1.conf',
    'nixos-other-generation-2.conf',
  ])
  const text = readFileSync(join(guest.esp, 'loader/entries/nixos-other-generation-2.conf'), 'utf8')
  expect(text).toMatch(/^title NixOS \[other\]\n[^]*\nversion Generation 2\n/)
  expect(text).toContain(`options init=${guest.path(3)}/init`)
  expect(guest.loader).toContain('default nixos-other-generation-2.conf')
  await guest.install(1)
  expect(guest.loader).toContain('default nixos-generation-1.conf')
  rmSync(beside, { recursive: true })
  await guest.install(1)
  expect(guest.entries.filter((entry) => entry.startsWith('nixos-other-'))).toEqual([])
})

test('A generation whose store path was collected is left out, but never the default', async () => {
  const guest = new Guest([1, 2])
  rmSync(guest.path(1), { recursive: true })
  await guest.install(2)
  expect(guest.entries).toEqual(['nixos-generation-2.conf'])
  guest.point(1)
  const { code, stderr } = await guest.install(2)
  expect(code).toBe(1)
  expect(stderr).toBe(
    'install-boot-entries: Cannot install boot entries: generation system-1-link is not in the store\n',
  )
  expect(guest.loader).toContain('default nixos-generation-2.conf')
})

test('A kernel that is truncated on the ESP is copied again', async () => {
  const guest = new Guest([1])
  await guest.install(1)
  writeFileSync(join(guest.esp, 'EFI/nixos/kernel-1.efi'), 'k')
  await guest.install(1)
  expect(readFileSync(join(guest.esp, 'EFI/nixos/kernel-1.efi'), 'utf8')).toHaveLength(1024)
})

test('If space is lacking it changes nothing and says how much is needed', async () => {
  const guest = new Guest([1, 2], { kernelKiB: 3000 })
  const script = join(guest.path(2), 'bin/install-boot-entries')
  const { stdout, stderr } = await asRoot(
    `mount -t tmpfs -o size=5m none ${guest.esp}
${script}; echo "exit $?"; ${script} --check; echo "check $?"; find ${guest.esp} -type f | wc -l`,
    { env: guest.env },
  )
  expect(stdout).toBe('exit 1\ncheck 1\n0\n')
  expect(stderr.split('\n')[0]).toBe(
    `install-boot-entries: Cannot install boot entries: ${guest.esp} has 5 MiB free and 7 MiB are needed`,
  )
})

test('Space that removed generations occupy is used', async () => {
  const guest = new Guest([1, 2], { kernelKiB: 3000 })
  const { stdout } = await asRoot(
    `mount -t tmpfs -o size=5m none ${guest.esp}
rm ${guest.profiles}/system-2-link ${guest.profiles}/system; ln -s system-1-link ${guest.profiles}/system
${guest.path(1)}/bin/install-boot-entries; echo "exit $?"
ln -s ${guest.path(2)} ${guest.profiles}/system-2-link; rm ${guest.profiles}/system-1-link
ln -sfn system-2-link ${guest.profiles}/system
${guest.path(2)}/bin/install-boot-entries; echo "exit $?"; ls ${guest.esp}/EFI/nixos; cat ${guest.esp}/loader/loader.conf`,
    { env: guest.env },
  )
  expect(stdout).toBe(
    'exit 0\nexit 0\ninitrd.efi\nkernel-2.efi\ntimeout 0\ndefault nixos-generation-2.conf\n',
  )
})

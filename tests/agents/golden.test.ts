import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { readSteps, spoilable, watchInPlace } from './durable.ts'
import { GoldenHost } from './golden.ts'
import { missingForRoot } from './root.ts'

const missing = await missingForRoot()
/** A host whose generation 1 is golden, with a generation 2 in the store. */
let made: GoldenHost
let one: string
let two: string
/** A copy of it for one test. */
let host: GoldenHost
beforeAll(async () => {
  if (missing) return
  ;[made, one] = await GoldenHost.makeBooted()
  two = await made.generation(2)
})
afterAll(() => made?.root.remove())
beforeEach(async (context) => {
  if (missing) return context.skip(missing)
  host = await made.copy()
})
afterEach(() => host?.root.remove())

const failed = (): string => readFileSync(host.path('var/lib/golden-generation/failed'), 'utf8')
const links = (): Promise<string> =>
  host.root.sh('readlink -f /run/booted-system /nix/var/nix/profiles/system')

/** The same status after golden's record was rewritten. */
const pinnedAnew = (before: object): object => ({
  ...before,
  pinnedAt: expect.any(String) as string,
})

describe('A trial', () => {
  test('is armed again once the host has woken up from hibernation, and has not failed', async () => {
    await host.rebuild(2)
    // the kernel that it starts finds the hibernation image
    expect(host.choose()).toBe(two)
    expect(await host.status()).toMatchObject({ trial: two, oneshot: null })
    await host.sh('golden-trial-resumed')
    expect(await host.status()).toMatchObject({ oneshot: 'nixos-generation-2.conf' })
    // the battery runs out, and the next boot is the trial
    const { tried, said } = await host.boot()
    expect(said).not.toContain('FAILED')
    expect(tried).toEqual([two])
    // and if nothing is on trial, nothing is armed
    await host.sh('golden-trial-resumed')
    expect(await host.status()).toMatchObject({ trial: null, oneshot: null })
  })

  test('whose record a power cut has left behind after it became golden has not failed', async () => {
    await host.rebuild(2)
    const record = host.path('var/lib/golden-generation/trial.json')
    const before = readFileSync(record)
    await host.boot()
    expect(await host.status()).toMatchObject({ golden: two, trial: null })
    writeFileSync(record, before)
    const { said } = await host.boot()
    expect(said).not.toContain('FAILED')
    expect(await host.status()).toMatchObject({ golden: two, trial: null, lastFailed: null })
  })

  test('that is good makes the new generation golden, and the former one’s files are removed', async () => {
    const first = host.entries()
    expect(await host.rebuild(2)).toContain(`on trial at the next boot: ${two}`)
    expect(await host.status()).toMatchObject({
      booted: one,
      running: two,
      golden: one,
      trial: two,
      oneshot: 'nixos-generation-2.conf',
    })
    // a trial's kernel that cannot be loaded must end in a reset; golden's must not end in an endless loop of resets
    const onError = (): string => readFileSync(host.path('boot/loader/loader.conf'), 'utf8')
    expect(onError()).toMatch(/^timeout 0\ndefault \S+\nreboot-on-error yes\n$/)
    expect(readFileSync(host.path('boot/startup.nsh'), 'utf8')).toBe('reset -c\r\n')
    const { tried, said } = await host.boot()
    expect(tried).toEqual([two])
    expect(said).toContain(`golden from now on: ${two}`)
    expect(onError()).toMatch(/^timeout 0\ndefault \S+\n$/)
    expect(existsSync(host.path('boot/startup.nsh'))).toBe(false)
    const status = await host.status()
    expect(status).toMatchObject({ golden: two, trial: null, oneshot: null, lastFailed: null })
    expect(status.default).toBe(status.goldenEntry)
    expect(host.entries()).not.toEqual(expect.arrayContaining(first))
    expect(host.entries().filter((name) => name.startsWith('golden-'))).toHaveLength(1)
    expect(host.copies()).toHaveLength(2)
    const again = await host.boot()
    expect(again.tried).toEqual([two])
    expect(again.said).toContain(`the golden generation is well: ${two}`)
  })

  test.each([
    ['is past its deadline', 'golden-trial-deadline', 'it was not validated within'],
    ['is not good', 'golden-boot-validation', 'sshd.service is failed'],
  ])(
    'that %s with /boot not mounted goes back to golden, and nothing is written below it',
    async (_, command, reason) => {
      await host.rebuild(2)
      renameSync(host.path('boot'), host.path('boot-of-the-disk'))
      mkdirSync(host.path('boot'))
      host.services({ 'sshd.service': 'failed' })
      const said = await host.sh(`ln -sfn ${two} /run/booted-system
        sed -i 's/"boot":"[^"]*"/"boot":"another"/' /var/lib/golden-generation/trial.json
        ${command} 2>&1 || true; find /boot -mindepth 1`)
      expect(said).toContain('going back to the golden generation')
      expect(said).not.toMatch(/^\/boot\//m)
      expect(failed()).toContain(`${two} `)
      expect(failed()).toContain(reason)
      expect(host.rebooting).toBe(true)
    },
  )

  test('is armed by the boot loader’s name for its entry, in lower case', async () => {
    await host.rebuild(2, 'boot')
    await host.sh(
      'cd /boot/loader/entries && mv nixos-generation-2.conf nixos-Work-generation-2.conf && golden-arm-trial',
    )
    expect(host.variable('LoaderEntryOneShot')).toBe('nixos-work-generation-2.conf')
  })

  test('is started by its own entry, and not by a copy that the user has made as a rescue entry', async () => {
    await host.rebuild(2, 'boot')
    await host.sh(`cd /boot/loader/entries
      sed 's/^options .*/& systemd.unit=rescue.target/' nixos-generation-2.conf >debug.conf; golden-arm-trial`)
    expect(host.variable('LoaderEntryOneShot')).toBe('nixos-generation-2.conf')
    await host.boot()
    const { golden, goldenEntry } = await host.status()
    expect(golden).toBe(two)
    expect(readFileSync(host.path(`boot/loader/entries/${goldenEntry}`), 'utf8')).not.toContain(
      'rescue',
    )
  })

  test('is judged at once if the upgrade to it was interrupted and the new system has no upgrade agent', async () => {
    await host.rebuild(2)
    await host.sh(`mkdir -p /var/lib/nix-local-upgrade
      echo '{"stage":"system","bootId":"another","toplevel":"${two}","revision":"1"}' >/var/lib/nix-local-upgrade/transaction.json`)
    // the new system's programs do not include the upgrade
    const { said } = await host.boot([], `chmod u+w ${two}; mkdir -p ${two}/sw/bin`)
    expect(said).toContain(`golden from now on: ${two}`)
  })

  test('keeps running after a failure if the boot loader would not start golden, and that cannot be repaired', async () => {
    await host.rebuild(2)
    renameSync(host.path('boot'), host.path('boot-of-the-disk'))
    mkdirSync(host.path('boot'))
    const said = await host.sh(`ln -sfn ${two} /run/booted-system
      sed -i 's/"boot":"[^"]*"/"boot":"another"/' /var/lib/golden-generation/trial.json
      bootctl set-default nixos-generation-2.conf; golden-trial-deadline 2>&1`)
    expect(said).toContain('no golden generation to go back to: this one keeps running')
    expect(host.rebooting).toBe(false)
  })

  test('keeps running after a failure if golden is no longer in the store, because its boot would halt', async () => {
    await host.rebuild(2)
    const said = await host.sh(`ln -sfn ${two} /run/booted-system; chmod u+w ${one}; rm ${one}/init
      sed -i 's/"boot":"[^"]*"/"boot":"another"/' /var/lib/golden-generation/trial.json
      golden-trial-deadline 2>&1`)
    expect(said).toContain('no golden generation to go back to: this one keeps running')
    expect(host.rebooting).toBe(false)
  })

  test('that does not come up is followed by a boot of golden, recorded, and removed from the profile', async () => {
    await host.rebuild(2)
    const { tried, said } = await host.boot([two])
    expect(tried).toEqual([two, one])
    expect(said).toContain('it did not come up')
    expect(failed()).toMatch(new RegExp(`^${two} \\d{4}-\\S+Z it did not come up: .*\\n$`))
    expect(await links()).toBe(`${one}\n${one}`)
    expect(await host.status()).toMatchObject({ trial: null, oneshot: null, golden: one })
    // the default in loader.conf as well, for a machine that loses its EFI variables
    expect(readFileSync(host.path('boot/loader/loader.conf'), 'utf8')).toContain(
      'default nixos-generation-1.conf',
    )
    expect((await host.boot()).tried).toEqual([one])
    expect(failed().split('\n')).toHaveLength(2)
  })

  test('whose service is dead falls back by itself, with that reason', async () => {
    await host.rebuild(2)
    host.services({ 'sshd.service': 'failed' })
    // golden has the same dead service, but keeps running
    const { tried, said } = await host.boot()
    expect(tried).toEqual([two, one])
    expect(said).toContain('going back to the golden generation')
    expect(said).toContain('the golden generation itself is not well')
    expect(failed()).toMatch(new RegExp(`^${two} \\S+ sshd.service is failed\\n$`))
    expect(await links()).toBe(`${one}\n${one}`)
  })

  test('that was started without the boot loader, as by kexec, is not started again after it has failed', async () => {
    await host.rebuild(2)
    const trial = host.variable('LoaderEntryOneShot')
    host.services({ 'sshd.service': 'failed' })
    // the one-shot entry is still set: the boot loader has not read it, or the firmware could not clear it
    const { tried } = await host.boot([], `bootctl set-oneshot ${trial}`)
    expect(tried).toEqual([two, one])
    expect(await links()).toBe(`${one}\n${one}`)
  })

  test('does not replace another entry that was set to boot once, and comes after it', async () => {
    const memory = 'memtest86.conf'
    await host.sh(`bootctl set-oneshot ${memory}`)
    expect(await host.rebuild(2)).toContain(
      `on trial once ${memory} has booted, which a user has set to boot before it: ${two}`,
    )
    expect(await host.rebuild(1)).toContain(`the golden generation boots: ${one}`)
    expect(await host.status()).toMatchObject({ trial: null, oneshot: memory })
    await host.rebuild(2)
    expect(host.variable('LoaderEntryOneShot')).toBe(memory)
    // that entry is booted, and then the power fails
    await host.sh("bootctl set-oneshot ''")
    const { tried, said } = await host.boot()
    expect(tried).toEqual([one])
    expect(said).toContain(`on trial at the next boot: ${two}`)
    expect(await host.status()).toMatchObject({ trial: two, lastFailed: null })
    // the trial's own one-shot is cleared when the trial is cancelled
    await host.rebuild(1)
    expect(await host.status()).toMatchObject({ trial: null, oneshot: null })
  })

  test('whose record is damaged, as after a disk repair, is judged or started again', async () => {
    const record = host.path('var/lib/golden-generation/trial.json')
    await host.rebuild(2)
    writeFileSync(record, '')
    await host.sh("bootctl set-oneshot ''")
    expect((await host.boot()).said).toContain(`on trial at the next boot: ${two}`)
    expect(await host.status()).toMatchObject({ lastFailed: null })
    writeFileSync(record, `{"toplevel":"${two}","entry":"nix`)
    expect((await host.boot()).said).toContain(`golden from now on: ${two}`)
  })

  test('that is stuck is ended by its deadline, but no other boot is', async () => {
    expect(await host.sh('golden-trial-deadline')).toBe('')
    await host.rebuild(2)
    expect(await host.sh('golden-trial-deadline')).toBe('')
    expect(host.rebooting).toBe(false)
    await host.sh(`ln -sfn ${two} /run/booted-system
      sed -i 's/"boot":"[^"]*"/"boot":"another"/' /var/lib/golden-generation/trial.json
      golden-trial-deadline`)
    expect(host.rebooting).toBe(true)
    expect(failed()).toContain('it was not validated within 300 s')
  })

  test('is recorded in one line, whatever text the failed check contains', async () => {
    await host.rebuild(2)
    const check = `export REACH_TIMEOUT=0 REACH_COMMAND=$'if true; then\\n  exit 3\\nfi\\n'`
    expect((await host.boot([], check)).tried).toEqual([two, one])
    expect(failed().split('\n')).toHaveLength(2)
    expect((await host.status()).lastFailed).toBe(failed().trimEnd())
  })

  test('that passes without being pinned is on trial again at the next boot', async () => {
    await host.sh(`cd /usr-local/bin && sed -i '2a GOLDEN_AUTO_PIN=false' golden-boot-validation`)
    await host.rebuild(2)
    for (const _ of [1, 2]) {
      const { tried, said } = await host.boot()
      expect(tried).toEqual([two])
      expect(said).toContain(`validated, but not made golden: ${two}`)
    }
    const { tried } = await host.boot([two])
    expect(tried).toEqual([two, one])
    expect(await links()).toBe(`${one}\n${one}`)
  })

  test('is not judged by the boot in which it was armed, however often that is validated', async () => {
    await host.rebuild(2)
    for (const _ of [1, 2, 3, 4]) {
      expect(await host.sh('golden-boot-validation')).toContain(`is well: ${one}`)
    }
    expect(await host.status()).toMatchObject({ trial: two, lastFailed: null })
    expect((await host.boot()).tried).toEqual([two])
  })

  test('may have secrets appended to its first stage, as an installer does', async () => {
    await host.rebuild(2, 'boot')
    await host.sh(`for file in /boot/EFI/nixos/*initrd*; do echo secrets >>$file; done`)
    expect(await host.sh('golden-arm-trial')).toContain(`on trial at the next boot: ${two}`)
    await host.boot()
    expect(await host.sh('show-golden')).toContain(`golden: ${two}`)
    // golden's copy of the first stage has them, too
    expect(await host.sh('cat /boot/EFI/golden/*initrd*')).toContain('secrets')
  })

  test('is cancelled when the profile goes back to golden', async () => {
    await host.rebuild(2)
    expect(await host.rebuild(1)).toContain(`the golden generation boots: ${one}`)
    expect(await host.status()).toMatchObject({ trial: null, oneshot: null })
    expect((await host.boot()).tried).toEqual([one])
  })

  test('is refused when the files on the ESP differ from those in the store', async () => {
    await host.rebuild(2, 'boot')
    writeFileSync(host.path('boot/EFI/nixos/cut.efi'), '')
    await host.sh(
      'f=$(ls /boot/EFI/nixos/*kernel.efi | tail -n 1); for f in /boot/EFI/nixos/*kernel.efi; do printf X | dd of=$f bs=1 seek=40 conv=notrunc status=none; done',
    )
    expect(await host.sh('golden-arm-trial 2>&1 || echo "exit $?"')).toMatch(
      /Cannot put \S+ on trial: \S+ differs from the kernel in the store\nexit 1$/,
    )
    expect(await host.status()).toMatchObject({ trial: null, oneshot: null })
    expect((await host.boot()).tried).toEqual([one])
  })

  test('is refused for a kernel that no firmware can start, and for a generation without a boot entry', async () => {
    const three = await host.generation(3, { magic: 'xx' })
    await expect(host.rebuild(3)).rejects.toThrow(/is no program that firmware can start/)
    expect((await host.boot()).tried).toEqual([one])
    await host.sh('rm /boot/loader/entries/nixos-generation-3.conf')
    expect(await host.sh(`golden-arm-trial ${three} 2>&1 || echo "exit $?"`)).toContain(
      `Cannot put ${three} on trial: no boot entry names it`,
    )
  })

  test('that was interrupted before it was armed is armed at the next boot', async () => {
    await host.rebuild(2)
    await host.sh(
      'bootctl set-oneshot ""; sed -i s/armed/arming/2 /var/lib/golden-generation/trial.json',
    )
    expect(await host.sh('cat /var/lib/golden-generation/trial.json')).toContain('"arming"')
    expect((await host.boot()).tried).toEqual([one])
    expect(await host.status()).toMatchObject({ trial: two, oneshot: 'nixos-generation-2.conf' })
    expect((await host.boot()).tried).toEqual([two])
  })
})

describe('A trial that was not started is armed again', () => {
  const again = (): Promise<string> => host.sh('cat /var/lib/golden-generation/trial.json')

  test('when its one-shot had been cleared before the machine went down', async () => {
    await host.rebuild(2)
    expect(await host.sh('golden-trial-cleared')).toBe('')
    expect(await host.sh('bootctl set-oneshot ""; golden-trial-cleared')).toContain('was cleared')
    const { tried, said } = await host.boot()
    expect(tried).toEqual([one])
    expect(said).toContain(`the trial of ${two} was not started: its one-shot entry was cleared`)
    expect(said).toContain(`on trial at the next boot: ${two}`)
    expect(existsSync(host.path('var/lib/golden-generation/failed'))).toBe(false)
    expect((await host.boot()).tried).toEqual([two])
    expect((await host.status()).golden).toBe(two)
  })

  test('when the boot loader’s counter shows no start of its entry', async () => {
    await host.rebuild(2, 'boot')
    await host.sh(`cd /boot/loader/entries && mv nixos-generation-2.conf nixos-0123abc+3.conf && golden-arm-trial
      # another entry was chosen in the menu, which clears the one-shot as well
      bootctl set-oneshot ""`)
    expect((await host.boot()).said).toContain('has counted no start of nixos-0123abc+3.conf')
    // this time it is started, but does not come up
    await host.sh('cd /boot/loader/entries && mv nixos-0123abc+3.conf nixos-0123abc+2-1.conf')
    expect((await host.boot([two])).said).toContain('it did not come up')
    expect(failed().split('\n')).toHaveLength(2)
  })

  test('only a limited number of times', async () => {
    await host.rebuild(2)
    for (const _ of [1, 2]) {
      await host.sh('bootctl set-oneshot ""; golden-trial-cleared')
      expect((await host.boot()).said).toContain('on trial at the next boot')
      expect(await again()).toContain('"armed"')
    }
    await host.sh('bootctl set-oneshot ""; golden-trial-cleared')
    expect((await host.boot()).said).toContain('FAILED')
    expect(failed()).toMatch(/ it was armed 3 times and never started: its one-shot/)
    expect(await links()).toBe(`${one}\n${one}`)
  })

  test('but not when the profile has left it', async () => {
    await host.rebuild(2)
    await host.sh(`bootctl set-oneshot ""; golden-trial-cleared
      ln -sfn system-1-link /nix/var/nix/profiles/system`)
    await host.boot()
    expect(await host.status()).toMatchObject({ trial: null, oneshot: null, lastFailed: null })
  })

  test('only if it did not fail, whatever the clock says', async () => {
    await host.rebuild(2)
    host.services({ 'sshd.service': 'failed' })
    // its record says that it was armed a century after the failure
    await host.sh(`sed -i 's/"armedAt":"20/"armedAt":"21/' /var/lib/golden-generation/trial.json`)
    await host.boot()
    expect(failed()).toMatch(/^\S+ \S+ sshd.service is failed\n$/)
  })
})

describe('A generation whose upgrade was interrupted', () => {
  const transaction = '/var/lib/nix-local-upgrade/transaction.json'
  const cutOff = (toplevel: string): Promise<string> =>
    host.sh(`mkdir -p /var/lib/nix-local-upgrade
      echo '{"stage":"system","bootId":"another","toplevel":"${toplevel}","revision":"1"}' >${transaction}`)

  test('becomes golden only after that upgrade has run its checks', async () => {
    await host.rebuild(2)
    await cutOff(two)
    for (const _ of [1, 2]) {
      const { tried, said } = await host.boot()
      expect(tried).toEqual([two])
      expect(said).toContain(
        `validated: ${two}, which becomes golden once the upgrade to it has run`,
      )
      expect((await host.status()).golden).toBe(one)
    }
    expect(await host.sh('pin-golden 2>&1 || echo "exit $?"')).toMatch(
      /was cut off before its own checks have run[\s\S]*exit 1$/,
    )
    // until the upgrade has ended, its own call changes nothing either
    await host.sh('golden-boot-validation --upgraded')
    expect((await host.status()).golden).toBe(one)
    // the deadline is only for a boot that was not validated, and this one was
    await host.sh('golden-trial-deadline')
    expect(host.rebooting).toBe(false)
    expect(await host.sh(`rm ${transaction}; golden-boot-validation --upgraded`)).toContain(
      `golden from now on: ${two}`,
    )
    expect(await host.status()).toMatchObject({ golden: two, trial: null, oneshot: null })
    expect(await host.sh('golden-boot-validation --upgraded')).toBe('')
  })

  test.each(['', 'damaged'])(
    'does not become golden before the next upgrade while the record of the interrupted one cannot be read (`%s`)',
    async (text) => {
      await host.rebuild(2)
      await cutOff(two)
      await host.sh(`printf %s '${text}' >${transaction}`)
      expect((await host.boot()).said).toContain('golden once the upgrade to it')
      expect((await host.status()).golden).toBe(one)
      expect(await host.sh(`rm ${transaction}; golden-boot-validation --upgraded`)).toContain(
        `golden from now on: ${two}`,
      )
    },
  )

  test('falls back to golden when it does not come up the next time', async () => {
    await host.rebuild(2)
    await cutOff(two)
    await host.boot()
    expect((await host.boot([two])).tried).toEqual([two, one])
    expect(failed()).toContain('it did not come up')
  })

  test('can be the first golden generation, too', async () => {
    await host.sh('unpin-golden')
    await cutOff(one)
    expect((await host.boot()).said).toContain('golden once the upgrade to it')
    expect((await host.status()).golden).toBe(null)
    expect(await host.sh(`rm ${transaction}; golden-boot-validation --upgraded`)).toContain(
      `golden from now on: ${one}`,
    )
  })

  test('does not become golden when that upgrade has rolled it back', async () => {
    await host.sh('unpin-golden')
    await cutOff(one)
    await host.boot()
    await host.sh(`rm ${transaction}; ln -sfn ${two} /run/current-system; golden-boot-validation --upgraded
      ln -sfn ${one} /run/current-system; golden-boot-validation --upgraded`)
    expect((await host.status()).golden).toBe(null)
  })

  test('does not delay any other generation', async () => {
    await host.rebuild(2)
    await cutOff(one)
    expect((await host.boot()).said).toContain(`golden from now on: ${two}`)
  })
})

describe('Golden', () => {
  test('has its own entry and files, which an installer and a garbage collection leave alone', async () => {
    await host.rebuild(2)
    await host.boot()
    await host.generation(3)
    await host.rebuild(3)
    await host.boot([await host.root.sh('readlink -f /nix/var/nix/profiles/system-3-link')])
    // remove everything that refers to it, except golden's own references
    await host.sh(`ln -sfn system-3-link /nix/var/nix/profiles/system
      rm /run/booted-system /run/current-system; nix-collect-garbage -d 2>&1
      /nix/var/nix/profiles/system/bin/install-boot-entries`)
    expect(
      readdirSync(host.path('nix/var/nix/profiles')).filter((name) => name.startsWith('system')),
    ).toEqual(['system', 'system-3-link'])
    expect(host.entries().filter((name) => name.startsWith('nixos-'))).toEqual([
      'nixos-generation-3.conf',
    ])
    await host.sh('show-golden')
    await host.sh('bootctl set-oneshot ""; rm /var/lib/golden-generation/trial.json')
    expect((await host.boot()).tried).toEqual([two])
    expect(await host.sh('rollback-to-golden')).toContain(`running: ${two}`)
    expect(await links()).toBe(`${two}\n${two}`)
  })

  test('becomes the default again after another entry was made the default, as by a key in the boot menu', async () => {
    await host.rebuild(2, 'boot')
    await host.sh('bootctl set-oneshot ""; bootctl set-default nixos-generation-2.conf')
    await host.sh('golden-boot-validation')
    const { default: chosen, goldenEntry } = await host.status()
    expect(chosen).toBe(goldenEntry)
  })

  test('has its own copy of the devicetree if its generation has one', async () => {
    await host.rebuild(2, 'boot')
    await host.sh(`echo tree >/boot/EFI/nixos/board.dtb
      printf '\\ndevicetree /EFI/nixos/board.dtb\\n' >>/boot/loader/entries/nixos-generation-2.conf; golden-arm-trial`)
    await host.boot()
    const { golden, goldenEntry } = await host.status()
    expect(golden).toBe(two)
    expect(readFileSync(host.path(`boot/loader/entries/${goldenEntry}`), 'utf8')).toMatch(
      /^devicetree \/EFI\/golden\/board.dtb$/m,
    )
    // an installer removes its copy
    expect(host.copies()).toContain('board.dtb')
  })

  test('halts when it does not come up, instead of rebooting in a loop', async () => {
    const [entry] = host.entries().filter((name) => name.startsWith('golden-'))
    const text = readFileSync(host.path(`boot/loader/entries/${entry}`), 'utf8')
    expect(text).toMatch(
      /^options init=\S+\/init loglevel=4 panic=5 panic=0 systemd.watchdog_sec=0$/m,
    )
    // once golden is up, a panic or a hang may reboot, because that leads to a system that is known to work
    expect(readFileSync(host.path('model/panic'), 'utf8')).toBe('0\n')
    await host.boot()
    expect(readFileSync(host.path('model/panic'), 'utf8')).toBe('10\n')
    expect(readFileSync(host.path('model/busctl.log'), 'utf8')).toContain(
      'RuntimeWatchdogUSec t 30000000',
    )
  })

  test('stays the same when /boot has no space for the next one', async () => {
    const big = await host.generation(3, { kernel: 3000 })
    await host.rebuild(3, 'boot')
    const before = [host.entries().filter((name) => name.startsWith('golden-')), host.copies()]
    await host.sh(`ln -sfn ${big} /run/booted-system; ln -sfn ${big} /run/current-system`)
    const said = await host.sh(`mkdir /tmp/small; mount -t tmpfs -o size=5m none /tmp/small
      cp -a /boot/. /tmp/small/; mount --bind /tmp/small /boot
      pin-golden 2>&1 || echo "exit $?"
      ls /boot/EFI/golden; show-golden >/dev/null && echo whole`)
    expect(said).toMatch(
      /Cannot make \S+ golden: \/boot has \d MiB free and \d MiB are needed\nexit 1/,
    )
    expect(said).toMatch(new RegExp(`\n${before[1]!.join('\n')}\nwhole$`))
    expect((await host.status()).golden).toBe(one)
  })

  test('is repaired after its files were damaged, before anything is put on trial', async () => {
    const kernel = host.path(
      `boot/EFI/golden/${host.copies().find((name) => name.includes('kernel'))}`,
    )
    writeFileSync(kernel, 'MZ but nothing else')
    expect(await host.sh('show-golden || echo "exit $?"')).toMatch(
      /PROBLEM \S+ differs from the kernel in the store\nexit 1$/,
    )
    expect(await host.rebuild(2)).toContain('on trial at the next boot')
    await host.sh('show-golden')
    rmSync(kernel)
    await host.sh('golden-boot-validation; show-golden')
  })

  test('cannot be fallen back to, so that no trial starts, when its files cannot be made again', async () => {
    await host.rebuild(2)
    await host.sh('rm -r /boot/EFI/golden /boot/EFI/nixos')
    const refused = await host.sh('golden-arm-trial 2>&1 || echo "exit $?"')
    expect(refused).toMatch(/cannot be read[^]*\nexit 1$/)
    expect(refused).not.toContain('on trial at the next boot')
  })

  test('is given up by unpin-golden: the boot loader’s own default boots', async () => {
    await host.rebuild(2)
    expect(await host.sh('unpin-golden')).toBe(`no longer golden: ${one}`)
    expect(host.entries().filter((name) => name.startsWith('golden-'))).toEqual([])
    expect(await host.sh('show-golden 2>&1 || echo "exit $?"')).toMatch(
      /no generation is golden\nexit 1$/,
    )
    expect((await host.boot()).tried).toEqual([two])
    // only root may hold the lock
    expect(await host.sh('stat --format %a /run/golden-generation.lock')).toBe('600')
  })

  test('keeps the pending trial when it is pinned by hand', async () => {
    await host.rebuild(2, 'boot')
    expect(await host.sh('pin-golden')).toMatch(
      new RegExp(`golden from now on: ${one}\nstill on trial at the next boot: ${two}$`),
    )
    expect(await host.status()).toMatchObject({ golden: one, trial: two })
    expect((await host.boot()).tried).toEqual([two])
  })

  test('that a rebuild has turned off is golden again after a rebuild that turns it back on', async () => {
    const off = await host.generation(3, { off: true })
    const before = await host.status()
    await host.rebuild(3)
    expect(await host.status()).toMatchObject({ golden: null, default: null, running: off })
    expect(await left()).toBe('')
    expect(await host.rebuild(1)).toContain(`golden again: ${one}`)
    expect(await host.status()).toEqual(pinnedAnew(before))
    expect(await host.sh('show-golden')).not.toContain('PROBLEM')
    // the rebuild may also go back to another generation than golden
    await host.rebuild(3)
    expect(await host.rebuild(2)).toContain(`on trial at the next boot: ${two}`)
    expect((await host.boot([two])).tried).toEqual([two, one])
    // but a golden that was unpinned by hand stays unpinned
    await host.sh('unpin-golden')
    expect(await host.rebuild(2)).toContain('no golden generation yet')
  })

  test('puts the pending next generation on trial when it is the first one', async () => {
    await host.sh('unpin-golden')
    expect(await host.rebuild(2, 'boot')).toContain('nothing is on trial')
    expect(await host.sh('pin-golden')).toMatch(
      new RegExp(`golden from now on: ${one}\non trial at the next boot: ${two}$`),
    )
    expect(await host.status()).toMatchObject({ golden: one, trial: two })
    expect((await host.boot()).tried).toEqual([two])
  })

  test('is not changed if the boot loader’s variables cannot be set', async () => {
    await host.rebuild(2)
    await host.boot()
    const three = await host.generation(3)
    await host.sh(`touch /model/no-variables; ln -sfn ${three} /run/booted-system; ln -sfn ${three} /run/current-system
      ln -sfn system-3-link /nix/var/nix/profiles/system; ESP=/boot /run/current-system/bin/install-boot-entries`)
    expect(await host.sh('pin-golden 2>&1 || echo "exit $?"')).toMatch(/cannot be set\nexit 1$/)
    expect((await host.status()).golden).toBe(two)
    // nothing of the other one is left, neither on the ESP nor as a gcroot
    expect(host.entries().filter((name) => name.startsWith('golden-'))).toHaveLength(1)
    expect(await host.sh('show-golden; ls /nix/var/nix/gcroots')).not.toMatch(/PROBLEM|next/)
    await host.sh('show-golden; rm /model/no-variables; golden-boot-validation; show-golden')
    expect(host.entries().filter((name) => name.startsWith('golden-'))).toHaveLength(1)
  })

  const left = (): Promise<string> =>
    host.sh(
      'ls -d /boot/EFI/golden /boot/loader/entries/golden-* /nix/var/nix/gcroots/golden-* 2>/dev/null || true',
    )

  test('leaves nothing behind if the first pin failed or was interrupted', async () => {
    await host.sh('unpin-golden; touch /model/no-variables')
    expect(await host.sh('pin-golden 2>&1 || echo "exit $?"')).toMatch(/cannot be set\nexit 1$/)
    expect(await left()).toBe('')
    await host.sh(
      `rm /model/no-variables; rmdir /var/lib/golden-generation; touch /var/lib/golden-generation`,
    )
    expect(await host.sh('pin-golden 2>&1 || echo "exit $?"')).toMatch(/Cannot write .*\nexit 1$/)
    expect(await left()).toBe('')
    expect(await host.status()).toMatchObject({ golden: null, default: null })
    await host.sh(
      `rm /var/lib/golden-generation; pin-golden; rm /var/lib/golden-generation/golden.json`,
    )
    expect(await host.sh('unpin-golden')).toBe('no generation is golden')
    expect(await left()).toBe('')
    expect(await host.status()).toMatchObject({ golden: null, default: null })
  })

  test('whose state is lost, as with a root that is recreated at each boot, does not stay the boot default for ever', async () => {
    await host.sh('rm -rf /var/lib/golden-generation')
    expect(await host.rebuild(2)).toMatch(/^no golden generation yet/m)
    expect(await left()).toBe('')
    expect(await host.boot()).toMatchObject({ tried: [two] })
    expect(host.choose()).toBe(two)
  })

  test('stays the same if its record is damaged, as after a disk repair', async () => {
    const record = '/var/lib/golden-generation/golden.json'
    const before = await host.status()
    for (const text of ['', '{', `{"toplevel":"${one}","ent`, 'null', '\0'.repeat(200)]) {
      writeFileSync(host.path(record), text)
      await host.sh('golden-boot-validation 2>/dev/null')
      expect(await host.status()).toEqual(pinnedAnew(before))
      expect(await host.sh('show-golden')).not.toContain('PROBLEM')
    }
    writeFileSync(host.path(record), '')
    await host.rebuild(2)
    expect((await host.boot([two])).tried).toEqual([two, one])
    // a generation that has lost its gcroot as well is not golden
    await host.sh(`: >${record}; rm /nix/var/nix/gcroots/golden-generation`)
    expect(await host.rebuild(2)).toContain('no golden generation yet')
  })

  test('is not unpinned halfway if /boot cannot be written', async () => {
    const before = await host.status()
    const refused = await host.sh(
      'mount -o remount,ro,bind /boot; unpin-golden 2>&1 || echo "exit $?"',
    )
    expect(refused).toMatch(
      /^unpin-golden: Cannot unpin \S+: \S+ cannot be written \(is \S+ mounted\?\)\nexit 1$/,
    )
    expect(await host.status()).toEqual(before)
    expect(await host.sh('show-golden')).not.toContain('PROBLEM')
  })

  test('survives a kill at any step of a pin', async () => {
    // kill before each program that changes something
    const seen = new Set<string | null>()
    for (let step = 1; step < 12; step++) {
      await host.sh(`ln -sfn ${two} /run/booted-system; ln -sfn ${two} /run/current-system
        ln -sfn system-2-link /nix/var/nix/profiles/system; ESP=/boot /run/current-system/bin/install-boot-entries
        n=0
        kill_at() { n=$((n + 1)); [[ $n -ne ${step} ]] || kill -9 $BASHPID; }
        export -f kill_at
        (
          set -- ; enter() { :; }
          trap 'case $BASH_COMMAND in "mv "*|"cp "*|"ln "*|"bootctl "*|"rm "*|"write_state "*) kill_at ;; esac' DEBUG
          set -T
          . /usr-local/bin/pin-golden
        ) >/dev/null 2>&1 || true`)
      const { golden } = await host.status()
      expect([one, two]).toContain(golden)
      seen.add(golden)
      // the old or the new golden boots, and after that boot everything is whole
      const { tried } = await host.boot()
      expect([one, two]).toContain(tried[0])
      await host.sh('show-golden')
      expect(host.entries().filter((name) => name.startsWith('golden-'))).toHaveLength(1)
      await host.sh(
        `ln -sfn ${one} /run/booted-system; ln -sfn ${one} /run/current-system; pin-golden`,
      )
    }
    expect(seen.size).toBe(2)
  })
})

test('A rebuild during the validation of the very first boot is put on trial after it', async () => {
  const fresh = await GoldenHost.make()
  try {
    const first = await fresh.generation(1)
    await fresh.install(1)
    const next = await fresh.generation(2)
    const { said } = await fresh.boot([], GoldenHost.rebuilding(2))
    expect(said).toContain('no golden generation yet')
    expect(said).toContain(`golden from now on: ${first}\non trial at the next boot: ${next}`)
    expect((await fresh.boot()).said).toContain(`golden from now on: ${next}`)
  } finally {
    await fresh.root.remove()
  }
})

test('Boot counting is left alone, and its renamed entries are found by their content', async () => {
  await host.rebuild(2, 'boot')
  await host.sh(
    'cd /boot/loader/entries && mv nixos-generation-2.conf nixos-0123abc+3.conf && golden-arm-trial',
  )
  expect(host.variable('LoaderEntryOneShot')).toBe('nixos-0123abc.conf')
  await host.sh('cd /boot/loader/entries && mv nixos-0123abc+3.conf nixos-0123abc+2-1.conf')
  await host.boot()
  expect(host.entries()).toContain('nixos-0123abc+2-1.conf')
  expect((await host.status()).golden).toBe(two)
})

test('An installer’s preferred entry, as with boot counting, does not beat golden', async () => {
  const conf = '/boot/loader/loader.conf'
  // as NixOS 26.11 writes it with boot.loader.systemd-boot.bootCounting
  const counting = `sed -i 's/^default \\(.*\\)/preferred \\1\\ndefault nixos-*/' ${conf}`
  const preferred = (): string | undefined =>
    /^preferred (.*)$/m.exec(readFileSync(host.path(conf), 'utf8'))?.[1]
  await host.rebuild(2, 'boot')
  await host.sh(`${counting}\ngrep -q '^preferred nixos-generation-2' ${conf}\ngolden-arm-trial`)
  expect(preferred()).toBe((await host.status()).goldenEntry)
  // the trial starts by its one-shot, and after its failure golden boots
  expect((await host.boot([two])).tried).toEqual([two, one])

  await host.rebuild(2, 'boot')
  await host.sh(`${counting}\ngolden-arm-trial`)
  expect((await host.boot()).tried).toEqual([two])
  expect((await host.status()).golden).toBe(two)
  expect(preferred()).toBe((await host.status()).goldenEntry)
  // without golden, it is the installer's entry again and not one that is gone
  await host.sh('unpin-golden')
  expect(preferred()).toBe('nixos-generation-2.conf')
})

test('Commands that only root may run say so', async () => {
  for (const command of ['pin-golden', 'unpin-golden', 'rollback-to-golden', 'golden-arm-trial']) {
    expect(
      await host.root.sh(
        `PATH=/usr-local/bin:$PATH GOLDEN_BOOT=/boot GOLDEN_ESP=/boot ${command} 2>&1 || echo "exit $?"`,
        { user: 'rain' },
      ),
    ).toMatch(new RegExp(`^${command}: Cannot .*: only root may \\(try sudo\\)\nexit 1$`))
  }
})

test('A boot is not good when systemd does not answer, or answers only for some units', async () => {
  const env = { GOLDEN_SERVICES: 'sshd.service syncthing.service' }
  host.services({ 'sshd.service': 'active', 'syncthing.service': 'active' })
  await host.sh('golden-boot-validation', env)
  const said = await host.sh(
    `printf '#!/bin/sh\necho "Failed to connect to bus" >&2; exit 1\n' >/model/silent; chmod +x /model/silent
    mount --bind /model/silent /usr/bin/systemctl
    golden-boot-validation || echo "exit $?"; pin-golden 2>&1 || echo "exit $?"`,
    env,
  )
  expect(said).toMatch(/FAILED {2}systemd says nothing of 2 of 2 units\n[\s\S]*exit 1\n/)
  expect(said).toMatch(/Cannot pin \S+: systemd says nothing of 2 of 2 units\nexit 1$/)
  expect(said).not.toContain('active  sshd.service')
  const half = await host.sh(
    `sed 's/^shift$/shift; set -- "$1"/' /model/systemctl >/model/half; chmod +x /model/half
    mount --bind /model/half /usr/bin/systemctl; golden-boot-validation || echo "exit $?"`,
    env,
  )
  expect(half).toContain('FAILED  systemd says nothing of 1 of 2 units')
})

test('A boot is not good when a validated unit is restarted while it settles', async () => {
  const said = await host.sh(`echo >/model/asked
    sed 's/^first=1$/first=1; echo >>\\/model\\/asked/; s/NRestarts=0/NRestarts=$(wc -l <\\/model\\/asked)/' /model/systemctl >/model/restless
    chmod +x /model/restless; mount --bind /model/restless /usr/bin/systemctl
    golden-boot-validation || echo "exit $?"`)
  expect(said).toMatch(/^FAILED {2}a unit was restarted\n[^]*exit 1$/m)
})

test('A boot is good even if a validated unit is just reloading', async () => {
  await host.rebuild(2)
  host.services({ 'sshd.service': 'reloading' })
  const { tried, said } = await host.boot()
  expect(tried).toEqual([two])
  expect(said).toContain(`golden from now on: ${two}`)
})

test('Setting the clock during a validation does not shorten the units’ time', async () => {
  await host.rebuild(2)
  host.services({ 'sshd.service': 'activating' })
  // as on a machine whose clock stands still while it is off, when the network sets it
  await host.sh(
    `sed -i '2a sleep() { SECONDS=$((SECONDS + 36000)); n=$((\${n-0} + 1)); ((n < 3)) || echo "sshd.service active" >/model/units; }' /usr-local/bin/golden-boot-validation`,
  )
  const { tried, said } = await host.boot([], 'export GOLDEN_TIMEOUT=60')
  expect(tried).toEqual([two])
  expect(said).toContain(`golden from now on: ${two}`)
})

test('A failed trial falls back even if systemd does not accept a reboot', async () => {
  await host.rebuild(2)
  await host.sh(`printf '#!/bin/sh\ncase $* in *--force*) touch /model/rebooting; exit ;; esac; exit 1\n' >/model/mute
    chmod +x /model/mute; mount --bind /model/mute /usr/bin/systemctl
    ln -sfn ${two} /run/booted-system; sed -i 's/"boot":"[^"]*"/"boot":"another"/' /var/lib/golden-generation/trial.json
    golden-boot-validation || true`)
  expect(host.rebooting).toBe(true)
  expect(failed()).toContain('systemd says nothing of 1 of 1 units')
})

test('A unit that the guest cannot have is n/a, and one that does not exist makes the boot bad', async () => {
  expect(await host.sh('golden-boot-validation')).toContain(
    'n/a     tailscaled.service: Debian carries no tailscale\nactive  sshd.service',
  )
  host.services({})
  expect(await host.sh('golden-boot-validation || echo "exit $?"')).toMatch(
    /FAILED {2}sshd.service does not exist\n[\s\S]*exit 1$/,
  )
  host.services({ 'sshd.service': 'activating' })
  expect(await host.sh('golden-boot-validation || echo "exit $?"')).toContain(
    'FAILED  sshd.service is activating (running)',
  )
})

test('A power cut at any moment damages nothing that the boot relies on', async () => {
  // the gcroot is a link, which the next boot recreates
  const steps = async (): Promise<string[]> =>
    (await host.sh(readSteps)).split('\n').filter((step) => !step.includes('/gcroots/'))
  // the old and the new text are whole, and golden boots with either
  const either = /loader\.conf$/
  await host.sh(`${watchInPlace}\n${GoldenHost.rebuilding(2)}`)
  const armed = await steps()
  expect(spoilable(armed, /^bootctl set-\w+ ./, either)).toEqual([])
  expect(armed).toContain('sync /boot/loader/loader.conf.new')
  // the installer's files are synced as well
  const oneshot = armed.indexOf('bootctl set-oneshot nixos-generation-2.conf')
  const state = '/var/lib/golden-generation'
  const trial = `mv -T ${state}/trial.json.new ${state}/trial.json`
  expect(armed.indexOf('sync -f /boot')).toBeLessThan(oneshot)
  expect(armed.indexOf('sync -f /boot')).toBeGreaterThan(-1)
  // `arming` before the variable, `armed` after it
  expect(armed.indexOf(trial)).toBeLessThan(oneshot)
  expect(armed.lastIndexOf(trial)).toBeGreaterThan(oneshot)

  await host.boot([], watchInPlace)
  const pinned = await steps()
  expect(spoilable(pinned, /^bootctl set-\w+ ./, either)).toEqual([])
  const { goldenEntry } = await host.status()
  const named = pinned.indexOf(
    `mv -T /boot/loader/entries/${goldenEntry}.new /boot/loader/entries/${goldenEntry}`,
  )
  const copied = pinned.findLastIndex((step) => /^mv .*\/EFI\/golden\//.test(step))
  // an entry is synced after the files that it names, before the boot loader starts it as golden
  expect(copied).toBeGreaterThan(-1)
  expect(pinned.slice(copied, named)).toContain('sync -f /boot')
  const golden = pinned.indexOf(`mv -T ${state}/golden.json.new ${state}/golden.json`)
  const chosen = pinned.indexOf(`bootctl set-default ${goldenEntry}`)
  expect(named).toBeLessThan(chosen)
  expect(chosen).toBeGreaterThan(-1)
  expect(chosen).toBeLessThan(golden)
})

test('A command with wrong arguments shows its usage, and changes nothing', async () => {
  const before = await host.status()
  for (const [command, argument] of [
    ['golden-boot-validation', '--again'],
    ['pin-golden', two],
    ['rollback-to-golden', '--now'],
    ['show-boot-status', '--text'],
    ['show-golden', two],
    ['unpin-golden', two],
  ] as const) {
    const said = await host.sh(`${command} ${argument} 2>&1 || echo "exit $?"`)
    expect(said).toMatch(new RegExp(`^Usage: ${command}.*\nexit 2$`))
  }
  expect(await host.sh('golden-arm-trial /etc 2>&1 || echo "exit $?"')).toBe(
    'golden-arm-trial: Cannot put /etc on trial: it is no system\nexit 1',
  )
  expect(await host.status()).toEqual(before)
})

test('show-golden names each thing that keeps golden from booting, and fails', async () => {
  const show = (): Promise<string> => host.sh('show-golden 2>&1 || echo "exit $?"')
  const { goldenEntry } = await host.status()
  const well = await show()
  expect(well).toMatch(new RegExp(`^golden: ${one}\npinned: \\d{4}-\\S+Z\nentry:  ${goldenEntry}$`))
  const entry = `/boot/loader/entries/${goldenEntry}`
  for (const [damage, problem] of [
    [
      'rm /nix/var/nix/gcroots/golden-generation',
      /golden-generation does not keep it from garbage collection/,
    ],
    ["bootctl set-default ''", /it is not the boot default/],
    [`: >${entry}`, /golden-\S+\.conf is missing/],
    [`sed -i /^linux/d ${entry}`, /golden-\S+\.conf names no kernel/],
    [': >/boot$(sed -n "s/^linux //p" ENTRY)', /is missing or empty/],
    ['echo >/boot$(sed -n "s/^initrd //p" ENTRY)', /differs from the first stage in the store/],
  ] as const) {
    await host.sh(`cp -a /boot /root/kept; ${damage.replace('ENTRY', entry)}`)
    expect(await show()).toMatch(new RegExp(`\nPROBLEM .*${problem.source}\nexit 1$`))
    await host.sh('rm -rf /boot/*; cp -a /root/kept/. /boot; rm -rf /root/kept')
    expect(await host.sh('golden-boot-validation')).toContain('the golden generation is well')
    expect(await show()).toBe(well)
  }
  // there is nothing that its copies could be compared with
  await host.sh(
    `sed -i 's/"toplevel":"[^"]*"/"toplevel":"\\/nix\\/store\\/none"/' /var/lib/golden-generation/golden.json`,
  )
  expect(await show()).toMatch(
    /\nPROBLEM \S+ does not keep it from garbage collection\nPROBLEM it is not in the store\nexit 1$/,
  )
  await host.sh('unpin-golden')
  expect(await show()).toBe('show-golden: no generation is golden\nexit 1')
  expect(await host.sh('unpin-golden')).toBe('no generation is golden')
  expect(await host.sh('rollback-to-golden 2>&1 || echo "exit $?"')).toBe(
    'rollback-to-golden: Cannot go back: no generation is golden\nexit 1',
  )
})

test('show-boot-status shows what runs, what boots next and how trials ended', async () => {
  const { goldenEntry } = await host.status()
  const status = (booted: string, profile: string, next: string, running = profile): string =>
    `booted:       ${booted}
running:      ${running}
profile:      ${profile}
golden:       ${one}
boot default: ${goldenEntry}
next boot:    ${next}
validation:   success active`
  const golden = `${one} (golden)`
  const onTrial = `${two} (on trial)`
  expect(await host.sh('show-boot-status')).toBe(status(golden, golden, 'the default'))
  await host.rebuild(2)
  expect(await host.sh('show-boot-status')).toBe(status(golden, onTrial, 'nixos-generation-2.conf'))
  await host.boot([two])
  const said = await host.sh('show-boot-status')
  expect(said).toContain(status(golden, golden, 'the default'))
  expect(said).toMatch(new RegExp(`\nfailed trials:\n  ${two} \\S+ it did not come up: .*$`))
})

test('rollback-to-golden activates golden at once, or boots it, and says what needs a reboot', async () => {
  await host.rebuild(2)
  expect(await host.sh('pin-golden 2>&1 || echo "exit $?"')).toBe(
    `pin-golden: ${two} runs since a switch and has not been booted\npin-golden: Cannot pin it: reboot first\nexit 1`,
  )
  expect(await host.sh('rollback-to-golden --reboot')).toContain(`rebooting into ${one}`)
  expect(host.rebooting).toBe(true)
  expect(await host.status()).toMatchObject({ running: two, profile: one, trial: null })
  const { said } = await host.boot()
  expect(said).toContain(`the golden generation is well: ${one}`)
  await host.rebuild(2)
  const back = await host.sh('rollback-to-golden')
  expect(back).toContain(`running: ${one}`)
  expect(back).not.toContain('takes effect only after a reboot')
  expect(await host.status()).toMatchObject({
    running: one,
    profile: one,
    trial: null,
    oneshot: null,
  })
  // the running kernel is not golden's
  await host.sh(`ln -sfn ${two} /run/booted-system`)
  expect((await host.sh('rollback-to-golden')).split('\n').slice(-2)).toEqual([
    `running: ${one}`,
    'its kernel takes effect only after a reboot',
  ])
  await host.sh(
    `sed -i 's/"toplevel":"[^"]*"/"toplevel":"\\/nix\\/store\\/none"/' /var/lib/golden-generation/golden.json`,
  )
  expect(await host.sh('rollback-to-golden 2>&1 || echo "exit $?"')).toBe(
    'rollback-to-golden: Cannot go back: /nix/store/none is not in the store\nexit 1',
  )
})

test('A rollback that needs a reboot is not reported as already running', async () => {
  await host.rebuild(2)
  // as a NixOS pre-switch check fails for a change that needs a reboot
  await host.sh(`sed -i '2i case $1 in test) exit 1 ;; esac' ${one}/bin/switch-to-configuration`)
  expect(await host.sh('rollback-to-golden 2>&1 || echo "exit $?"')).toMatch(
    /^rollback-to-golden: Cannot go back at once: \S+ could not be switched to, but boots next time \(`rollback-to-golden --reboot` does that now\)\nexit 1$/m,
  )
  expect(await host.status()).toMatchObject({ running: two, profile: one, trial: null })
})

test('A link beside the profile that the user has made by hand is not a generation', async () => {
  await host.rebuild(2)
  await host.sh(`ln -sfn ${one} /nix/var/nix/profiles/system-known-good-link`)
  const { said } = await host.boot([two])
  expect(said).toContain(`the golden generation is well: ${one}`)
  expect(await host.status()).toMatchObject({ profile: one, trial: null })
  await host.rebuild(2)
  expect(await host.sh('rollback-to-golden')).toContain(`running: ${one}`)
  expect(await host.sh('readlink /nix/var/nix/profiles/system')).toBe('system-1-link')
})

test('A generation that is pinned by hand is no longer on trial, and its failure is forgotten', async () => {
  await host.rebuild(2)
  await host.boot([two])
  expect(await host.status()).toMatchObject({ lastFailed: expect.stringContaining(two) })
  // the user has chosen it in the boot menu
  await host.sh(`ln -sfn ${two} /run/booted-system; ln -sfn ${two} /run/current-system`)
  expect(await host.sh('pin-golden')).toContain(`golden from now on: ${two}`)
  expect(await host.status()).toMatchObject({ golden: two, trial: null, lastFailed: null })

  const three = await host.generation(3)
  await host.sh(`cd /usr-local/bin && sed -i '2a GOLDEN_AUTO_PIN=false' golden-boot-validation`)
  await host.rebuild(3)
  expect((await host.boot()).tried).toEqual([three])
  expect(await host.status()).toMatchObject({ golden: two, trial: three })
  expect(await host.sh('pin-golden')).not.toContain('on trial')
  expect(await host.status()).toMatchObject({ golden: three, trial: null, oneshot: null })
})

test('A command that changes golden or a trial waits for the lock', async () => {
  const armed = `${GoldenHost.rebuilding(2)} >/dev/null`
  const inTrial = `${armed}; ln -sfn ${two} /run/booted-system
    sed -i 's/"boot":"[^"]*"/"boot":"another"/' /var/lib/golden-generation/trial.json`
  for (const [command, before] of [
    ['golden-arm-trial', `ln -sfn system-2-link /nix/var/nix/profiles/system`],
    ['golden-trial-cleared', `${armed}; bootctl set-oneshot ''`],
    ['golden-trial-deadline', inTrial],
    ['golden-boot-validation', `ln -sfn ${one} /run/booted-system`],
    ['pin-golden', `ln -sfn ${one} /run/current-system`],
    ['unpin-golden', ':'],
  ] as const) {
    // the background process keeps the lock, and says when it ends
    const held = `exec 8>/run/golden-generation.lock; flock 8
      { sleep 2; echo 'the other'; } & exec 8>&-`
    const said = await host.sh(
      `${before}\n${held}\n${command} >/dev/null 2>&1 || true; echo ${command}; wait`,
    )
    expect(said).toBe(`the other\n${command}`)
  }
})

/** Lets a command wait for the lock while these commands change the state that it works on. */
const meanwhile = (command: string, commands: string): Promise<string> =>
  host.sh(`exec 8>/run/golden-generation.lock; flock 8
    ${command} 8>&- & sleep 2
    ${commands}
    exec 8>&-; wait`)

test('A boot that is found good while its deadline waits for the lock is not rolled back', async () => {
  await host.rebuild(2)
  await host.sh(`ln -sfn ${two} /run/booted-system
    sed -i 's/"boot":"[^"]*"/"boot":"another"/' /var/lib/golden-generation/trial.json`)
  await meanwhile('golden-trial-deadline', 'rm /var/lib/golden-generation/trial.json')
  expect(host.rebooting).toBe(false)
  expect(existsSync(host.path('var/lib/golden-generation/failed'))).toBe(false)
})

test('A generation that becomes golden while a rebuild waits is what the rebuild’s trial falls back to', async () => {
  const three = await host.generation(3)
  await host.rebuild(3, 'boot')
  await host.sh(`ln -sfn ${two} /run/booted-system; ln -sfn ${two} /run/current-system
    cd /usr-local/bin && sed '/^locked$/d' pin-golden >pin-now && chmod +x pin-now`)
  await meanwhile(`golden-arm-trial ${three}`, 'pin-now')
  expect(await host.status()).toMatchObject({ golden: two, trial: three })
  expect(await host.sh('show-golden')).not.toContain('PROBLEM')
  expect((await host.boot([three])).tried).toEqual([three, two])
})

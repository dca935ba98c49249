import { describe, expect, test } from 'vitest'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { expression, findNixOS, lab } from './evaluate.ts'

interface Read {
  kernelParams: string[]
  manager: Record<string, string>
  install: string
  commands: string[]
}

const read = `host: {
  inherit (host.config.boot) kernelParams;
  manager = host.config.systemd.settings.Manager;
  install = builtins.unsafeDiscardStringContext host.config.boot.loader.systemd-boot.extraInstallCommands;
  commands = map (p: p.name or "") host.config.environment.systemPackages;
}`
const commands = [
  'golden-arm-trial',
  'pin-golden',
  'rollback-to-golden',
  'show-boot-status',
  'show-golden',
  'unpin-golden',
]
const expected = {
  kernelParams: expect.arrayContaining(['panic=10', 'boot.panic_on_fail']),
  manager: expect.objectContaining({ RuntimeWatchdogSec: '30s', RebootWatchdogSec: '2min' }),
  install: expect.stringMatching(
    /^\[ "\$\?" = 0 \] \|\| exit 1\n[^]*\/bin\/golden-arm-trial "\$1"\n$/,
  ),
  commands: expect.arrayContaining(commands),
}
const sorrow = (module: string): string =>
  `(lab.labSystem { hostname = "sorrow"; modules = [ (${module}) ]; })`

describe('A host with a golden generation', () => {
  test('ends every stuck boot, and puts each newly installed generation on trial', async () => {
    expect(await lab<Read>('sorrow', read)).toEqual(expected)
  })

  test('does so on NixOS', async (context) => {
    const found = await findNixOS()
    if ('missing' in found) return context.skip(found.missing)
    expect(await found.nixos<Read>('sorrow', read)).toEqual(expected)
  }, 300_000)

  test('counts the time of a trial from the start of systemd', async () => {
    // the first stage may wait a long time for a passphrase
    const timer = 'host: host.config.systemd.timers.golden-trial-deadline.timerConfig'
    expect(await lab('sorrow', timer)).toEqual({ AccuracySec: 1, OnStartupSec: 300 })
  })

  test('has systemd-boot, because other boot loaders use neither its entry nor its variables', async () => {
    // lanzaboote turns it off: firmware then starts only signed kernels, and golden's is not signed
    const other = '{ lib, ... }: { boot.loader.systemd-boot.enable = lib.mkForce false; }'
    const failed = `map (a: a.message) (builtins.filter (a: !a.assertion) ${sorrow(other)}.config.assertions)`
    expect(await expression<string[]>(failed)).toEqual([expect.stringContaining('systemd-boot')])
  })

  test('must not validate a unit that comes after its validation, which systemd would drop', async () => {
    const refused = async (unit: string): Promise<string[]> => {
      const module = `{ myModules.system.boot.goldenGeneration.validateServices = [ "${unit}" ]; }`
      return await expression(
        `map (a: a.message) (builtins.filter (a: !a.assertion) ${sorrow(module)}.config.assertions)`,
      )
    }
    expect(await refused('graphical.target')).toEqual([
      expect.stringMatching(/has graphical\.target, which comes after/),
    ])
    expect(await refused('multi-user.target')).toEqual([])
  })

  test('lets the host choose its own watchdog, and can turn the watchdog off', async () => {
    const golden = (settings: string): string =>
      sorrow(`{ myModules.system.boot.goldenGeneration = ${settings}; }`)
    const none = await expression<Read>(`(${read}) ${golden('{ watchdogTimeout = 0; }')}`)
    expect(none.manager).toEqual({})
    const own = '{ systemd.settings.Manager.RuntimeWatchdogSec = "1min"; }'
    const { manager } = await expression<Read>(`(${read}) ${sorrow(own)}`)
    expect(manager['RuntimeWatchdogSec']).toBe('1min')
  })

  test('fails if boot entries could not be installed, which arming a trial must not hide', async () => {
    const { install } = await lab<Read>('sorrow', read)
    const trial = install.replaceAll(/\S+\/bin\/golden-arm-trial/g, 'echo on trial:')
    // combined as in older releases of NixOS, without `set -e`
    const installed = (code: number) =>
      run('bash', ['-c', `(exit ${code})\n${trial}`, 'install', '/nix/store/x'], { allow: [1] })
    expect(await installed(0)).toMatchObject({ code: 0, stdout: 'on trial: /nix/store/x\n' })
    expect(await installed(1)).toMatchObject({ code: 1, stdout: '' })
  })

  test('restores the boot default when the golden generation is turned off', async () => {
    const off =
      '{ lib, ... }: { myModules.system.boot.goldenGeneration.enable = lib.mkForce false; }'
    const { install, kernelParams } = await expression<Read>(`(${read}) ${sorrow(off)}`)
    expect(install).toMatch(
      /^\[ "\$\?" = 0 \] \|\| exit 1\n[^]*golden\.json \] && \[ ! -e \/boot\/EFI\/golden \] \|\| \S+\/bin\/unpin-golden --turned-off\n$/,
    )
    expect(kernelParams).not.toContain('panic=10')
  })
})

test('The installer of boot entries runs the golden generation’s commands, for the generation that it is called for', async () => {
  const script = await expression<string>(
    `builtins.readFile ${project}/nix/lab/guest/install-boot-entries.sh`,
  )
  expect(script.trimEnd().split('\n').slice(-3).join('\n')).toContain('extra-install-commands" "$(')
  const build = await lab<string>(
    'sorrow',
    'host: builtins.unsafeDiscardStringContext host.config.system.build.toplevel.build',
  )
  expect(build).toMatch(
    /#!\/usr\/bin\/bash\nset -euo pipefail\n\[ .*\n+\S+\/bin\/golden-arm-trial "\$1"/,
  )
})

import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import { hostChoices, namesIn } from '../../../lib/scaffold/choices.ts'
import { usual } from '../../../lib/scaffold/shape.ts'

const { user, layout, device, schedule } = usual
const given = {
  name: 'web',
  user,
  layout,
  device,
  schedule,
  services: [...usual.cli, ...usual.networking],
}

test('the available names are read from the modules', async () => {
  expect(await namesIn('services/cli.nix')).toContain('atuin')
  expect(await namesIn('services/networking.nix')).toEqual([
    'openssh',
    'ssh',
    'syncthing',
    'tailscale',
  ])
  expect(await namesIn('disks.nix')).toEqual(['btrfs', 'ext4'])
})

test('services are sorted into cli and networking', async () => {
  expect(await hostChoices({ ...given, services: ['tailscale', 'atuin, openssh'] })).toMatchObject({
    cli: ['atuin'],
    networking: ['openssh', 'tailscale'],
  })
  const named = { ...given, user: 'mia.muster', services: [] }
  expect(await hostChoices(named)).toMatchObject({ user: 'mia.muster', cli: [], networking: [] })
})

describe('refused are', () => {
  const wrong: [Partial<typeof given>, string][] = [
    [{ name: '${x}' }, 'Cannot use `${x}` as a host name'],
    [{ user: 'Rain' }, 'Cannot use `Rain` as a user name'],
    [{ user: 'root' }, 'Cannot use `root` as the primary user'],
    [{ user: 'a\n"; }' }, 'Cannot use `a\\n"; }` as a user name'],
    [{ layout: 'zfs' }, 'Cannot find disk layout `zfs`'],
    [{ device: 'vda' }, 'Cannot use `vda` as a block device'],
    [{ device: '/dev/../etc/passwd' }, 'Cannot use `/dev/../etc/passwd` as a block device'],
    [{ device: '/dev/vda"; x' }, 'Cannot use `/dev/vda"; x` as a block device'],
    [{ services: ['openssh', 'gopher'] }, 'Cannot find service `gopher`'],
    [{ services: [''] }, 'Cannot find service ``'],
    [{ schedule: '' }, 'Cannot use `` as a schedule'],
    [{ schedule: 'hourly\nWantedBy=x' }, 'Cannot use `hourly\\nWantedBy=x` as a schedule'],
  ]
  test.each(wrong)('%j', async (part, message) => {
    const thrown: unknown = await hostChoices({ ...given, ...part }).catch(
      (error: unknown) => error,
    )
    expect(thrown).toBeInstanceOf(Failure)
    expect((thrown as Failure).message).toBe(message)
    expect((thrown as Failure).exit).toBe(2)
  })
})

test('a schedule is accepted if systemd accepts it', async ({ skip }) => {
  if (spawnSync('systemd-analyze', ['--version']).error) skip('systemd-analyze is not installed')
  for (const right of ['hourly', 'Mon *-*-* 03:00', '*:0/15']) {
    expect(await hostChoices({ ...given, schedule: right })).toMatchObject({ schedule: right })
  }
  for (const wrong of ['sometimes', '-x', '25:00']) {
    await expect(hostChoices({ ...given, schedule: wrong })).rejects.toThrow(
      `Cannot use \`${wrong}\` as a schedule`,
    )
  }
})

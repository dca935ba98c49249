/** What a user does with a running VM: read, copy, look, save, restore; on one VM. */
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { makeLab, type Lab } from '../lab.ts'

let lab: Lab
beforeAll(async () => {
  lab = makeLab()
  const { code, stderr } = await lab.task('deploy-vm', 'sorrow')
  expect({ code, stderr }).toMatchObject({ code: 0 })
})
afterAll(() => lab.remove())

const root = async (...command: string[]): Promise<string> => {
  const { code, stdout, stderr } = await lab.task('ssh', 'sorrow', '--root', '--', ...command)
  expect({ code, stderr }).toMatchObject({ code: 0 })
  return stdout.trim()
}
const status = async () => {
  const { stdout } = await lab.task('status', 'sorrow', '--json')
  return (JSON.parse(stdout) as Record<string, unknown>[])[0]!
}

test('status shows the running generation, and that it is golden', async () => {
  await root('systemctl start golden-boot-validation.service')
  const toplevel = await root('readlink -f /run/current-system')
  expect(await status()).toMatchObject({
    state: 'running',
    guest: 'debian',
    generation: { toplevel, number: 1, golden: true },
  })
  const { stdout } = await lab.just('status')
  expect(stdout).toMatch(/^sorrow +running +debian +1 \(no commit\) +yes +no +none +\d+ MiB/m)

  // the files that an upgrade and a trial write
  await root(`mkdir -p /var/lib/nix-local-upgrade
    echo "0123456789abcdef 0123456789abcdef ${toplevel} 2026-01-01T00:00:00Z" >/var/lib/nix-local-upgrade/deployed
    ln -s ${toplevel} /nix/var/nix/profiles/system-12-link
    echo '{"toplevel":"${toplevel}","entry":"x","state":"armed","boot":"another"}' >/var/lib/golden-generation/trial.json`)
  expect(await status()).toMatchObject({
    generation: { number: 12, commit: '0123456789abcdef', golden: true, trial: 'running' },
  })
  await root(`rm -r /var/lib/nix-local-upgrade /nix/var/nix/profiles/system-12-link
    rm /var/lib/golden-generation/trial.json`)
})

test('logs shows one unit or all, and suggests the nearest name for an unknown unit', async () => {
  await root('logger --tag lab-word said-here')
  const all = await lab.just('logs', 'sorrow', '--lines', '50')
  expect(all).toMatchObject({ code: 0, stdout: expect.stringContaining('said-here') })
  const unit = await lab.just('logs', 'sorrow', 'golden-boot-validation')
  expect(unit).toMatchObject({ code: 0, stdout: expect.stringContaining('golden') })
  expect(unit.stdout).not.toContain('said-here')
  const data = await lab.just('logs', 'sorrow', 'golden-boot-validation', '--json', '--lines', '1')
  expect(JSON.parse(data.stdout)).toMatchObject({ _HOSTNAME: 'sorrow' })
  const slip = await lab.just('logs', 'sorrow', 'golden-boot-validaton')
  expect(slip).toMatchObject({ code: 2, stdout: '' })
  expect(slip.stderr).toContain('The nearest is golden-boot-validation; ')
})

test('copy handles whole directories, special file names and root’s files, in both directions', async () => {
  const from = join(lab.dir, 'odd dir')
  mkdirSync(from)
  const odd = `it's ü $HOME *.txt`
  writeFileSync(join(from, odd), 'ä\n')
  expect(await lab.just('copy', from, 'sorrow:')).toMatchObject({ code: 0, stdout: '' })
  const back = join(lab.dir, 'back')
  expect(await lab.just('copy', 'sorrow:odd dir', back)).toMatchObject({ code: 0 })
  expect(readFileSync(join(back, odd), 'utf8')).toBe('ä\n')

  const mine = await lab.just('copy', join(from, odd), 'sorrow:/etc/')
  expect(mine).toMatchObject({ code: 3, stdout: '' })
  expect(mine.stderr).toMatch(/^copy: Cannot copy .* to `sorrow:\/etc\/`: .*Permission denied/m)
  const asRoot = await lab.just('copy', '--root', join(from, odd), 'sorrow:/etc/lab-copied')
  expect(asRoot).toMatchObject({ code: 0 })
  expect(await root('cat /etc/lab-copied')).toBe('ä')
})

test('screenshot saves the screen of a running guest', async () => {
  const path = join(lab.dir, 'up.png')
  expect(await lab.just('screenshot', 'sorrow', path)).toMatchObject({ code: 0 })
  expect(readFileSync(path).subarray(1, 4).toString()).toBe('PNG')
})

test('restore brings back the saved state, and sets the clock to the current time', async () => {
  const up = async (): Promise<number> => Number.parseFloat(await root('cat /proc/uptime'))
  await root('echo before >/etc/lab-saved')
  const [atSave, from] = [await up(), Date.now()]
  expect(await lab.just('save', 'sorrow', 'one')).toMatchObject({ code: 0 })
  await root('echo after >/etc/lab-saved')
  await sleep(10_000)
  const { code, stdout } = await lab.just('restore', 'sorrow', 'one')
  expect(code).toBe(0)
  expect(stdout).toContain('Its clock was set to now')
  // for the guest no time has passed in between: a kernel whose clock leaps may hang
  expect((await up()) - atSave).toBeLessThan((Date.now() - from) / 1000 - 5)
  expect(await root('cat /etc/lab-saved')).toBe('before')
  const off = Number(await root('date +%s')) - Date.now() / 1000
  expect(Math.abs(off)).toBeLessThan(2)
  const { stderr } = await lab.just('restore', 'sorrow', 'oen')
  expect(stderr).toContain('saved are one')

  // and from off, after a power cut
  await lab.just('down', 'sorrow', '--now')
  expect(await lab.just('restore', 'sorrow', 'one')).toMatchObject({ code: 0 })
  expect(await root('cat /etc/lab-saved')).toBe('before')
})

test('the console’s terminal does not answer the guest’s queries', async () => {
  const serial = join(lab.env['LAB_HOME']!, 'vms/sorrow/serial.log')
  // a getty asks for the size of its terminal when it starts
  await root('systemctl restart serial-getty@ttyS0.service')
  const prompts = (): number => readFileSync(serial, 'utf8').split('sorrow login:').length
  expect(readFileSync(serial, 'latin1')).toContain('\u001b[6n')
  const command = `${process.execPath} --import tsx tasks/console.ts sorrow`
  const terminal = spawn('script', ['--quiet', '--flush', '--command', command, '/dev/null'], {
    cwd: project,
    env: { ...process.env, ...lab.env, SHELL: '/bin/sh' },
  })
  let screen = ''
  terminal.stdout.on('data', (chunk: Buffer) => {
    const text = chunk.toString('latin1')
    screen += text
    // answer as a terminal of 150 columns does
    if (text.includes('\u001b[6n')) terminal.stdin.write('\u001b[50;150R')
  })
  const shows = async (text: string): Promise<void> => {
    for (let tries = 0; !screen.includes(text); tries++) {
      if (tries > 300) throw new Error(`no ${text} on the screen: ${JSON.stringify(screen)}`)
      await sleep(100)
    }
  }
  await shows('Attached to sorrow')
  const before = prompts()
  await root('systemctl restart serial-getty@ttyS0.service')
  terminal.stdin.write('\r')
  for (let tries = 0; prompts() === before && tries < 300; tries++) await sleep(100)
  terminal.stdin.write('\u001d')
  await new Promise((resolve) => terminal.once('close', resolve))
  expect(screen).toContain('sorrow login:')
  expect(screen).not.toContain('\u001b[6n')
  expect(readFileSync(serial, 'latin1')).not.toContain('50;150R')
})

import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { programPath } from '../vm/guest-agent.ts'
import { inHome } from '../lab-settings.ts'
import type { Machine } from './machine.ts'
import { statusLog } from './status-log.ts'
import { files } from '../vm/vm.ts'
import type { Clones } from './world.ts'

/**
 * The kernel's warning that it was starved while it calibrated its clock at boot. Its time may then run many times too
 * fast until the next boot, so that time limits end too early.
 */
const clockWarning = 'PIT calibration deviates from'

/** Whether the evidence of a VM has that warning for its current boot. @param dir where `collectEvidence` put it */
export function clockRanWrong(dir: string): boolean {
  const file = join(dir, 'clock.txt')
  return existsSync(file) && readFileSync(file, 'utf8').includes(clockWarning)
}

/** Commands that collect evidence inside the guest as root, by the file that each one's output goes to. */
const inside: Record<string, string> = {
  'journal.txt': 'journalctl --no-pager --boot 0 --lines 2000',
  'journal-of-the-boot-before.txt': 'journalctl --no-pager --boot -1 --lines 2000',
  'boot.txt': `bootctl --no-pager status; bootctl --no-pager list
    find /boot -type f -exec ls -l --time-style=+%T {} +; head -n 20 /boot/loader/loader.conf /boot/loader/entries/*.conf`,
  'generations.txt': `ls -l /nix/var/nix/profiles/ /run/current-system /run/booted-system /nix/var/nix/gcroots/`,
  'units.txt':
    'systemctl --no-pager --failed; systemctl --no-pager list-units --all; systemctl --no-pager list-timers --all',
  'state.txt': `head -c 20000 /var/lib/nix-local-upgrade/* /var/lib/golden-generation/* 2>&1`,
  'status-log.txt': `cat ${statusLog}`,
  'clock.txt': `journalctl --no-pager --boot 0 --output cat _TRANSPORT=kernel | grep '${clockWarning}'`,
  'disk.txt': 'df; df -i; dmesg | tail -n 100',
}

/** The same for the user's repositories; through `runuser`, because the guest agent has no login of the user. */
const repositories = (home: string, user: string, { paths }: Clones): Record<string, string> =>
  Object.fromEntries(
    [paths.flake, paths.dotfiles].map((path) => [
      `jj-${path.split('/').at(-1)}.txt`,
      `cd ${inHome(path, home)} && for what in 'op log --no-graph --limit 60' 'log --revisions all()' status; do
        runuser -u ${user} -- jj --no-pager --ignore-working-copy $what; done; git -c safe.directory=* show-ref`,
    ]),
  )

/**
 * Writes the evidence of a failure into a directory, one file each: serial log, screenshot, journals of this boot and
 * the one before, boot entries, generations, state of the agents, operation logs of the repositories. If something
 * cannot be collected, a file says why: a guest that does not answer is evidence, too.
 */
export async function collectEvidence(
  vm: Machine,
  dir: string,
  replay: string,
  clones: Clones,
): Promise<void> {
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const put = (name: string, text: string | Buffer): void => writeFileSync(join(dir, name), text)
  put('replay.txt', `${replay}\n`)
  for (const name of ['serial', 'events', 'qemuLog'] as const) {
    const path = files(vm.host)[name]
    if (existsSync(path)) put(path.split('/').at(-1)!, lastPart(path))
  }
  await screenshot(vm, join(dir, 'screen.png')).catch((thrown: Error) =>
    put('screen.txt', `${thrown.message}\n`),
  )
  const asked = { ...inside, ...repositories(`/home/${vm.vm.user}`, vm.vm.user, clones) }
  const script = `exec 2>&1 </dev/null; ${programPath}
${Object.entries(asked)
  .map(([name, command]) => `printf '\\036%s\\n' ${name}; ( ${command}\n)`)
  .join('\n')}`
  try {
    // the guest agent works without a network
    const told = await vm
      .root(script, { timeout: 60 * vm.patience, allow: 'any' })
      .catch(() => vm.agent(script, { limit: 60, allow: 'any' }))
    for (const part of told.stdout.split('\u001e').slice(1)) {
      const end = part.indexOf('\n')
      put(part.slice(0, end), part.slice(end + 1))
    }
  } catch (thrown) {
    if (!(thrown instanceof Failure)) throw thrown
    put('guest-did-not-answer.txt', `${thrown.message}\n`)
  }
}

/** @throws Failure when no QEMU runs */
async function screenshot(vm: Machine, path: string): Promise<void> {
  await vm.monitor((monitor) => monitor.execute('screendump', { filename: path, format: 'png' }))
}

/** The end of a log, by default the last MiB: it may have grown for weeks. */
function lastPart(path: string, most = 1024 ** 2): Buffer {
  const fd = openSync(path, 'r')
  try {
    const { size } = fstatSync(fd)
    const part = Buffer.alloc(Math.min(size, most))
    readSync(fd, part, 0, part.length, size - part.length)
    return part
  } finally {
    closeSync(fd)
  }
}

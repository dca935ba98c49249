import { Failure, onFailure } from '../failure.ts'
import { endFaults } from '../fault/lease.ts'
import { follow } from '../vm/follow.ts'
import { kernelOf } from '../vm/kernel.ts'
import { programPath, withGuest } from '../vm/guest-agent.ts'
import { sshTarget } from '../vm/identity.ts'
import { end, gone } from '../process.ts'
import { quote } from '../quote.ts'
import { ensureKeeper, startQemu } from '../vm/qemu.ts'
import type { Qmp } from '../vm/qmp.ts'
import type { Note } from '../report/record.ts'
import { counting, TookTooLong, waitFor, type Wake } from '../retry.ts'
import { lastLines, type Ran } from '../run.ts'
import { withMonitor } from '../vm/monitor.ts'
import { restoreSnapshot } from '../vm/snapshot.ts'
import { connect, waitForSsh, type Ssh } from '../ssh/ssh.ts'
import type { Exec } from '../ssh/commands.ts'
import { readFileSync } from 'node:fs'
import type { Subject } from './subject.ts'
import { upgradeUnit, type UpgradeUnit } from './upgrade-unit.ts'
import { files, keepersOf, qemuOf, type Vm } from '../vm/vm.ts'

export interface BootOptions {
  /** What is waited for, as a message names it. Default: to boot. */
  name?: string
  /** Seconds on a machine with KVM. Default 60. */
  limit?: number
  /** Shell condition, run as root, that tells the wanted boot from others that may come first. */
  until?: string
}

/** Starts a reboot. The answer may get lost as sshd stops, so the caller has to wait for the new boot. */
export async function startReboot(root: Exec): Promise<void> {
  await root('systemctl reboot --no-block', { allow: 'any' }).catch(onFailure(() => {}))
}

/**
 * The error of a boot that took too long. If the boot has come meanwhile it was only late, which tells much about this
 * machine's speed and nothing about what the boot promises, so the error is no `TookTooLong`.
 * @param condition shell condition that holds in the boot that was waited for
 */
export async function lateBoot(
  thrown: TookTooLong,
  agent: (script: string, options: { allow: 'any' }) => Promise<{ stdout: string }>,
  condition: string,
): Promise<Error> {
  const ask = agent(`{ ${condition}; } && echo it has`, { allow: 'any' })
  const { stdout } = await ask.catch(() => ({ stdout: '' }))
  if (!stdout.includes('it has')) return thrown
  return new Failure(`${thrown.message}, but the boot came a moment later`, { cause: thrown })
}

type Ask = (...asked: Parameters<Exec>) => Promise<string>

/** A VM as a case controls it. Limits are seconds on KVM; an emulated CPU gets `patience` times as many. */
export interface Machine extends UpgradeUnit {
  host: string
  vm: Vm
  patience: number
  /** Runs a shell command over SSH as root; one connection, made again after a reboot or a restore. */
  root: Exec
  /** The same as the primary user. */
  user: Exec
  /** Runs a shell command as root and returns its output, trimmed. */
  ask: Ask
  /** `ask` as the primary user. */
  askUser: Ask
  /** Runs a shell script as root through the guest agent, which needs no network. */
  agent: (script: string, options?: { limit?: number; allow?: number[] | 'any' }) => Promise<Ran>
  /** Connects to QEMU's monitor for one task. */
  monitor: <T>(use: (monitor: Qmp) => Promise<T>) => Promise<T>
  /** Writes a file in the guest, atomically. */
  write: (path: string, text: string, options?: { mode?: string; user?: boolean }) => Promise<void>
  bootId: () => Promise<string>
  /** Store path of the running system. */
  running: () => Promise<string>
  /** Starts a reboot of the guest, without waiting for it. */
  startReboot: () => Promise<void>
  /** Reboots and waits until another boot answers on SSH. @returns seconds */
  reboot: (options?: BootOptions) => Promise<number>
  /**
   * Waits for a boot that comes by itself: another QEMU process, SSH, another boot_id.
   * @param before boot_id of the boot before it
   * @returns seconds
   */
  awaitBoot: (before: string, options?: BootOptions) => Promise<number>
  /** Cuts the power: QEMU is killed, and the VM stays off. */
  cutPower: () => Promise<void>
  /** Starts a VM that is off; `awaitBoot` waits for it. */
  powerOn: () => Promise<void>
  /**
   * Waits for a line that the serial console prints after this call, so call it before the action that
   * causes the line.
   */
  serial: (pattern: RegExp, name: string, limit: number) => Promise<string>
  /**
   * Runs a part of a case and records its time under that name, for the report of where the run's time went.
   * @param limit seconds that the work may take, for work that does not show its own wait
   */
  spend: <T>(what: string, work: () => Promise<T>, limit?: number) => Promise<T>
  /** Waits until a shell command, run as root, succeeds; returns what it printed. */
  until: (name: string, limit: number, command: string) => Promise<string>
  /** Restores the VM to its baseline snapshot. */
  restore: () => Promise<void>
  /** Closes the connections; they are opened again when needed. */
  disconnect: () => void
  /** Closes every connection for good, so that a command left running by a case can no longer reach the VM. */
  retire: () => void
}

export interface MachineOptions {
  patience: number
  /** QEMU's arguments, for a new process. */
  argv: string[]
  /** Name of the baseline snapshot. */
  tag: string
  note: Note
  /** Shows what is being waited for. */
  say: (line: string) => void
  /** What upgrades the VM. Default: the lab's agents. */
  subject?: Subject
}

/** Makes the `Machine` of a VM. Connections are only opened when they are needed. */
export function machine(vm: Vm, options: MachineOptions): Machine {
  const { patience, argv, tag, note, say, subject } = options
  const { host } = vm
  const f = files(host)
  const connections = new Map<string, Promise<Ssh>>()
  const seconds = (limit: number): number => limit * patience

  const spend: Machine['spend'] = async (what, work, limit) => {
    const of = note({ kind: 'work', name: what, host, phase: 'begin' })
    try {
      return await (limit === undefined ? work() : counting(`${what} of ${host}`, limit, say, work))
    } finally {
      note({ kind: 'work', name: what, host, phase: 'end', of })
    }
  }

  let retired = false
  const connection = (user: string): Promise<Ssh> => {
    if (retired) throw new Failure(`\`${host}\` now belongs to another case`)
    const known = connections.get(user)
    if (known) return known
    const made = connect({ ...sshTarget(vm, user), connectTimeout: seconds(15) })
    connections.set(user, made)
    const forget = (): void => {
      if (connections.get(user) === made) connections.delete(user)
    }
    made.then((ssh) => ssh.closed).then(forget, forget)
    return made
  }
  const over =
    (user: string): Exec =>
    async (command, execOptions = {}) =>
      (await connection(user)).exec(command, { timeout: seconds(30), ...execOptions })
  const root = over('root')
  const user = over(vm.user)
  const asking =
    (exec: Exec): Ask =>
    async (...asked) =>
      (await exec(...asked)).stdout.trim()
  const ask = asking(root)
  const disconnect = (): void => {
    for (const made of connections.values()) made.then((ssh) => ssh.close()).catch(() => {})
    connections.clear()
  }

  const agent: Machine['agent'] = (script, { limit = 15, allow } = {}) => {
    const command = ['-c', `${programPath}; ${script}`]
    const bounds = { timeout: seconds(limit), allow }
    return withGuest(vm, (guest) => guest.exec('/bin/sh', command, bounds), seconds(5))
  }

  const bootId = (): Promise<string> =>
    ask('read -r id </proc/sys/kernel/random/boot_id; echo "$id"')

  const awaitBoot: Machine['awaitBoot'] = async (before, bootOptions = {}) => {
    const { name = 'to boot', limit = 60, until = 'true' } = bootOptions
    const from = performance.now()
    const began = note({ kind: 'boot', name: `wait ${name}`, host, phase: 'begin' })
    const wake: Wake = (poke) =>
      follow(f.serial, (line) => /Started.*(sshd|SSH Daemon)/.test(line) && poke(), { from: 'end' })
    const condition = `read -r id </proc/sys/kernel/random/boot_id && [ "$id" != ${before} ] && { ${until}; }`
    const waiting = waitForSsh({
      ...sshTarget(vm, 'root'),
      name: `${host} ${name}`,
      limit: seconds(limit),
      until: condition,
      // each try costs an emulated guest a second of its boot
      every: 1.5,
      wake,
      hold: seconds(limit) / 4,
      evidence: () => `${f.serial}\n${lastLines(readFileSync(f.serial, 'utf8'), 8)}`,
      say,
      as: `${host} ${name}`,
    })
    const ssh = await waiting.catch(async (thrown: unknown) => {
      throw thrown instanceof TookTooLong ? await lateBoot(thrown, agent, condition) : thrown
    })
    connections.set('root', Promise.resolve(ssh))
    void ssh.closed.then(() => connections.delete('root'))
    const took = (performance.now() - from) / 1000
    note({ kind: 'boot', name: `wait ${name}`, host, phase: 'end', of: began, seconds: took })
    return took
  }

  const start = async (): Promise<void> => {
    note({ kind: 'power', name: 'on', host })
    await startQemu(vm, argv)
    ensureKeeper(vm)
  }
  const cutPower = async (): Promise<void> => {
    note({ kind: 'power', name: 'cut', host })
    for (const keeper of keepersOf(vm)) await end(keeper)
    const qemu = qemuOf(vm)
    if (qemu) {
      process.kill(qemu.pid, 'SIGKILL')
      await gone(qemu, 10)
    }
    disconnect()
  }

  const write: Machine['write'] = async (path, text, { mode = '0644', user: asUser } = {}) => {
    const at = quote(path)
    const script = `mkdir -p "$(dirname ${at})" && cat >${at}.new && chmod ${mode} ${at}.new && mv ${at}.new ${at}`
    await (asUser ? user : root)(script, { input: text || '\n' })
  }
  const serial: Machine['serial'] = (pattern, name, limit) => {
    let found: string | undefined
    const wake: Wake = (poke) =>
      follow(
        f.serial,
        (line) => {
          if (!pattern.test(line)) return
          found ??= line
          poke()
        },
        { from: 'end' },
      )
    const evidence = (): string => `${f.serial}\n${lastLines(readFileSync(f.serial, 'utf8'), 8)}`
    const blame = kernelOf(host)
    const heard = () =>
      waitFor(name, seconds(limit), () => found, { every: 5, wake, evidence, say, blame })
    return spend('waits for a moment', heard)
  }

  return {
    host,
    vm,
    patience,
    root,
    user,
    ask,
    askUser: asking(user),
    agent,
    monitor: (use) => withMonitor(vm, use),
    write,
    bootId,
    running: () => ask('readlink -f /run/current-system'),
    awaitBoot,
    startReboot: () => startReboot(root),
    reboot: async (bootOptions) => {
      const before = await bootId()
      note({ kind: 'power', name: 'reboot', host })
      await startReboot(root)
      const old = qemuOf(vm)
      // a reboot ends QEMU; before that, a connection would only reach the old system
      if (old) {
        await counting(`${host} to shut down`, seconds(30), say, () => gone(old, seconds(30)))
      }
      disconnect()
      return awaitBoot(before, { name: 'to reboot', ...bootOptions })
    },
    cutPower,
    powerOn: start,
    serial,
    spend,
    until: async (name, limit, command) => {
      const asked = async (): Promise<string> => (await root(command)).stdout
      const blame = kernelOf(host)
      const holds = () =>
        waitFor(`${name} on \`${host}\``, seconds(limit), asked, {
          blame,
          say,
          as: `${host}: ${name}`,
        })
      return spend('waits for a moment', holds)
    },
    ...upgradeUnit({ host, subject, root, write, serial, note, say, seconds }),
    restore: async () => {
      disconnect()
      const from = performance.now()
      await endFaults(vm)
      await counting(`put ${host} back to its baseline`, seconds(30), say, () =>
        restoreSnapshot(vm, tag, argv, seconds(30)),
      )
      note({ kind: 'reset', name: 'put back', host, seconds: (performance.now() - from) / 1000 })
    },
    disconnect,
    retire: () => {
      retired = true
      disconnect()
    },
  }
}

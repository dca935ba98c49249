import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, rmSync, rmdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { acceleratorArgs, optionValue, type Accelerator } from './accelerator.ts'
import { privateDirectory } from '../directory.ts'
import { Failure } from '../failure.ts'
import type { Firmware } from './firmware.ts'
import { identify, end, gone } from '../process.ts'
import { sshTarget } from './identity.ts'
import { qmp } from './qmp.ts'
import { follow } from './follow.ts'
import type { Wake } from '../retry.ts'
import { quote } from '../quote.ts'
import { lastLines } from '../run.ts'
import { waitForSsh, type Ssh } from '../ssh/ssh.ts'
import { labHome, project, runtimeDir } from '../settings.ts'
import { cacheOf, served, serveStore } from './served.ts'
import {
  files,
  keepersOf,
  macs,
  qemuOf,
  writeJson,
  type Running,
  type Vm,
  type WhichVm,
} from './vm.ts'

/** Addresses and names on a guest's uplink. */
export const uplink = { git: '10.0.3.100', gitName: 'git.lab', dns: '10.0.3.53' } as const

/** The fw_cfg file that tells a guest that its uplink is open (nix/lab/vm.nix). */
const openFile = 'opt/lab/open-uplink'

/** Whether QEMU's arguments let a guest reach the internet. */
export const opensUplink = (argv: string[]): boolean =>
  argv.some((arg) => arg.includes(`name=${openFile},`))

/**
 * Kernel parameters that systemd-boot (since version 256) adds to those of a host. An emulated CPU needs no
 * mitigations, and each one slows it down; QEMU 7.2 translates a program again at each start if its addresses are
 * random; the clock is the host's, so that calibrating it gains nothing. Finding the devices of a whole NixOS can take
 * longer than systemd's 90 seconds, after which it gives up on the boot. The embedded guest, whose systemd-boot is
 * older, has its own (nix/lab/guest/system.nix).
 */
const forEmulatedCpus = [
  ...['mitigations=off', 'nokaslr', 'norandmaps', 'cryptomgr.notests'],
  ...['tsc=reliable', 'no_timer_check', 'random.trust_cpu=on'],
  'systemd.default_device_timeout_sec=360',
].join(' ')

/**
 * The whole QEMU command line of a VM: no interactive monitor, no display, no default devices. Unless
 * its uplink is open, its network has only the forwarded SSH port, the lab's name server and git remote,
 * this machine's binary cache and the other VMs.
 */
export function qemuArgs(vm: Vm, accelerator: Accelerator['kind'], firmware: Firmware): string[] {
  const f = files(vm.host)
  const mac = macs(vm.slot)
  const nic = (id: string, netdev: string): string[] => [
    ...['-netdev', withId(id, netdev)],
    ...[
      '-device',
      `virtio-net-pci,id=${id}-nic,netdev=${id},mac=${mac[id as keyof typeof mac]},romfile=`,
    ],
  ]
  const socket = (id: string, path: string, more = ''): string[] => [
    ...['-chardev', `socket,id=${id},path=${optionValue(path)},server=on,wait=off${more}`],
  ]
  return [
    ...['-name', vm.host, '-uuid', vm.uuid, '-nodefaults', '-no-user-config'],
    ...['-machine', 'q35', ...acceleratorArgs(accelerator)],
    ...['-smp', String(vm.cpus), '-m', `${Math.round(vm.memory / 1024 ** 2)}M`],
    // a reset ends QEMU and the keeper starts it again, which under TCG is twice as fast as a reset
    ...['-display', 'none', '-vga', 'std', '-rtc', 'base=utc', '-no-reboot'],
    ...['-drive', `if=pflash,format=raw,readonly=on,file=${optionValue(firmware.code)}`],
    // written through, like flash: a power cut must not lose a boot entry that was chosen before it
    ...[
      '-drive',
      `if=pflash,format=qcow2,node-name=efivars,cache.writeback=off,file.driver=file,file.cache.no-flush=on,file.filename=${optionValue(f.vars)}`,
    ],
    '-blockdev',
    JSON.stringify({
      driver: 'qcow2',
      'node-name': 'disk0',
      discard: 'unmap',
      file: { driver: 'file', filename: f.disk, cache: { 'no-flush': true } },
    }),
    // virtio, because an NVMe device blocks snapshots
    ...['-device', 'virtio-blk-pci,drive=disk0,bootindex=1'],
    ...nic('mgmt', `user,restrict=on,hostfwd=tcp:127.0.0.1:${vm.port}-:22`),
    ...nic('uplink', uplinkOf(vm)),
    ...nic('lan', `socket,mcast=${lanGroup()},localaddr=127.0.0.1`),
    ...['-device', 'virtio-serial-pci', ...socket('qga', f.agent)],
    ...['-device', 'virtserialport,chardev=qga,name=org.qemu.guest_agent.0'],
    ...['-device', 'virtio-rng-pci', '-device', 'i6300esb', '-action', 'watchdog=reset'],
    ...socket('serial', f.console, `,logfile=${optionValue(f.serial)},logappend=on`),
    ...['-serial', 'chardev:serial'],
    ...[...socket('qmp', f.qmp), '-mon', 'chardev=qmp,mode=control'],
    ...[...socket('keeper', f.keeperQmp), '-mon', 'chardev=keeper,mode=control'],
    ...[
      '-fw_cfg',
      `name=opt/io.systemd.credentials/tmpfiles.extra,file=${optionValue(f.credential)}`,
    ],
    ...(vm.openUplink ? ['-fw_cfg', `name=${openFile},string=1`] : []),
    ...(accelerator === 'tcg'
      ? ['-smbios', `type=11,value=io.systemd.boot.kernel-cmdline-extra=${forEmulatedCpus}`]
      : []),
  ]
}

/** The network of an uplink. QEMU starts a program for each connection of the guest to one of its servers. */
function uplinkOf(vm: Pick<Vm, 'host' | 'openUplink'>): string {
  const remote = `git daemon --inetd --export-all --enable=receive-pack --base-path=${quote(served(vm.host))} ${quote(served(vm.host))}`
  const cache = [process.execPath, join(project, 'lib/vm/cache.mjs'), cacheOf(vm.host)]
  const names = [
    process.execPath,
    join(project, 'lib/vm/dns.mjs'),
    `${uplink.gitName}=${uplink.git}`,
    ...(vm.openUplink ? ['--others'] : []),
  ]
  return [
    `user,net=10.0.3.0/24,restrict=${vm.openUplink ? 'off' : 'on'}`,
    `guestfwd=tcp:${uplink.git}:9418-cmd:${optionValue(remote)}`,
    `guestfwd=tcp:${uplink.git}:80-cmd:${optionValue(cache.map(quote).join(' '))}`,
    `guestfwd=tcp:${uplink.dns}:53-cmd:${optionValue(names.map(quote).join(' '))}`,
  ].join(',')
}
const withId = (id: string, netdev: string): string => netdev.replace(/^\w+/, `$&,id=${id}`)

/**
 * Adapts QEMU's arguments of an earlier start to a start now: the SSH port, the directory of the sockets, and the
 * programs of the uplink, as Node.js and this project may have moved.
 * @param there directory of the sockets in `argv`
 */
export function argsNow(argv: string[], vm: Vm, there: string): string[] {
  const [from, to] = [there, files(vm.host).run].map((path) => `${optionValue(path)}/`)
  const now = withId('uplink', uplinkOf({ ...vm, openUplink: opensUplink(argv) }))
  return argv.map((arg) =>
    arg.startsWith('user,id=uplink,')
      ? now
      : arg.replace(/(hostfwd=tcp:[\d.]+:)\d+/, `$1${vm.port}`).replace(from!, () => to!),
  )
}

/**
 * The multicast group that is this lab's lan. It is on loopback, every running VM joins it, and it needs
 * no process. Each `LAB_HOME` has another one.
 */
function lanGroup(): string {
  const id = Number.parseInt(runtimeDir().slice(-6), 16)
  return `239.${(id >> 16) & 255}.${(id >> 8) & 255}.${id & 255}:4810`
}

/**
 * Starts QEMU, detached, and waits until its monitor answers.
 * @param once arguments for this start only, such as `-S` before a snapshot is loaded; they are not recorded,
 *   so the keeper starts QEMU again without them
 * @throws Failure with QEMU's own message when it does not start; no QEMU is left running then
 */
export async function startQemu(vm: Vm, argv: string[], once: string[] = []): Promise<Running> {
  const f = files(vm.host, argv)
  privateDirectory(dirname(f.run))
  privateDirectory(f.run)
  serveStore(vm.host, vm.guest)
  const log = openSync(f.qemuLog, 'w', 0o600)
  const child = spawn('qemu-system-x86_64', [...argv, ...once], {
    detached: true,
    stdio: ['ignore', log, log],
  })
  closeSync(log)
  child.unref()
  try {
    return await answering(vm, argv, child)
  } catch (thrown) {
    // it may have no record, as on a full disk, so end it
    child.kill('SIGKILL')
    throw thrown
  }
}

async function answering(vm: Vm, argv: string[], child: ChildProcess): Promise<Running> {
  const f = files(vm.host, argv)
  let ended: string | undefined
  child.on('error', (error) => (ended = error.message))
  child.on('exit', (code, signal) => (ended = `it exited with ${code ?? signal}`))
  const evidence = f.qemuLog
  for (const until = performance.now() + 30_000; performance.now() < until;) {
    await sleep(20)
    if (ended !== undefined) {
      const words = lastLines(readFileSync(f.qemuLog, 'utf8'), 3)
      throw new Failure(`Cannot start QEMU for \`${vm.host}\`: ${words.split('\n')[0] || ended}`, {
        evidence,
      })
    }
    const identity = child.pid === undefined ? undefined : identify(child.pid, vm.uuid)
    if (!identity || !existsSync(f.qmp)) continue
    const running = { ...identity, argv }
    writeJson(f.running, running)
    const monitor = await qmp(f.qmp, { timeout: 10 }).catch(() => undefined)
    if (!monitor) continue
    monitor.close()
    return running
  }
  const late = `Cannot start QEMU for \`${vm.host}\`: its monitor does not answer within 30 s`
  throw new Failure(late, { evidence })
}

/** Starts the keeper, which starts QEMU again after a guest's reboot, unless it runs already. */
export function ensureKeeper(vm: Vm): void {
  if (keepersOf(vm).length > 0) return
  const log = openSync(join(files(vm.host).dir, 'keeper.log'), 'a', 0o600)
  const argv = [
    '--import',
    import.meta.resolve('tsx'),
    join(project, 'lib/vm/keeper.ts'),
    vm.host,
    vm.uuid,
  ]
  // the current lab, which may be a copy
  const env = { ...process.env, LAB_HOME: labHome() }
  spawn(process.execPath, argv, {
    detached: true,
    cwd: '/',
    env,
    stdio: ['ignore', log, log],
  }).unref()
  closeSync(log)
}

/**
 * Waits until the primary user can log in.
 * @param started whether QEMU was just started; then the first login waits until the serial console says
 *   that sshd has started, or for a quarter of the limit
 * @param limit seconds
 * @throws Failure with the console's last lines when the limit passes or QEMU ends
 */
export async function waitForGuest(
  vm: Vm,
  started: boolean,
  limit: number,
  say: (line: string) => void,
): Promise<Ssh> {
  const { serial } = files(vm.host)
  const evidence = (): string => `${serial}\n${lastLines(readFileSync(serial, 'utf8'), 5)}`
  const over = new AbortController()
  let missed = 0
  // systemd logs this to the console of both kinds of guest
  const wake: Wake = (poke) =>
    follow(serial, (line) => /Started.*(sshd|SSH Daemon)/.test(line) && poke(), { from: 'end' })
  const watch = setInterval(() => {
    // a reboot ends QEMU too, and the keeper starts it again within seconds
    missed = qemuOf(vm) ? 0 : missed + 1
    const ended = new Failure(`QEMU of \`${vm.host}\` ended while it was waited for`, {
      evidence: evidence(),
      replay: `just deploy-test-vm ${vm.host}`,
    })
    if (missed > 5) over.abort(ended)
  }, 1000)
  try {
    const { port } = vm
    return await waitForSsh({
      ...sshTarget(vm),
      limit,
      signal: over.signal,
      ...(started && { wake, hold: limit / 4 }),
      evidence,
      say,
      as: `SSH on port ${port}`,
      hint: `just console-test-vm ${vm.host}`,
    })
  } finally {
    clearInterval(watch)
  }
}

/**
 * Ends a VM's keeper and QEMU. Asks the guest to power off first, and kills QEMU when it has not ended
 * within `grace` seconds; with 0 it kills at once.
 */
export async function stopVm(
  vm: WhichVm,
  grace: number,
): Promise<'stopped' | 'cut off' | 'not running'> {
  const { running, run } = files(vm.host)
  // the process that a keeper has just forked looks like a keeper until it executes QEMU
  for (let keepers; (keepers = keepersOf(vm)).length > 0;)
    await Promise.all(keepers.map((keeper) => end(keeper)))
  const qemu = qemuOf(vm)
  let how: 'stopped' | 'cut off' | 'not running' = qemu ? 'stopped' : 'not running'
  if (qemu) {
    const asked = grace > 0 && (await powerDown(vm))
    if (!asked || !(await gone(qemu, grace))) {
      await end(qemu)
      how = 'cut off'
    }
  }
  rmSync(running, { force: true })
  rmSync(run, { recursive: true, force: true })
  try {
    rmdirSync(dirname(run))
  } catch {
    // other VMs still have sockets there
  }
  return how
}

async function powerDown(vm: WhichVm): Promise<boolean> {
  try {
    const monitor = await qmp(files(vm.host).qmp, { timeout: 2 })
    await monitor.execute('system_powerdown')
    monitor.close()
    return true
  } catch {
    return false
  }
}

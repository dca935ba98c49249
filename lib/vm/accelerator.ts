import { constants, accessSync } from 'node:fs'
import { join } from 'node:path'
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { privateDirectory } from '../directory.ts'
import { Failure, usage } from '../failure.ts'
import type { Firmware } from './firmware.ts'
import { bootId } from '../process.ts'
import { run } from '../run.ts'
import { labCache } from '../settings.ts'
import { readableJson, writeJson } from './vm.ts'

export interface Accelerator {
  kind: 'kvm' | 'tcg'
  /** Why this one was chosen, for messages. */
  reason: string
  /** Factor for time limits, because an emulated CPU is slower. */
  patience: number
  /** Default number of CPUs of a VM. */
  cpus: number
}

/** QEMU arguments. The probe guest and the VMs must get the same ones, or the probe would prove nothing. */
export const acceleratorArgs = (kind: 'kvm' | 'tcg'): string[] =>
  kind === 'kvm'
    ? ['-accel', 'kvm', '-cpu', 'host']
    : ['-accel', 'tcg,thread=multi,tb-size=512', '-cpu', 'qemu64,+rdrand']

/** The value of `LAB_ACCEL`. @throws Failure (usage) unless it is auto, kvm or tcg */
export function demandedAccelerator(): string {
  const demanded = process.env['LAB_ACCEL'] || 'auto'
  if (['auto', 'kvm', 'tcg'].includes(demanded)) return demanded
  throw usage(`Cannot read LAB_ACCEL=\`${demanded}\``, 'Use auto, kvm or tcg')
}

/**
 * Finds the accelerator: KVM where this user may use it and a probe guest runs on it, else TCG. That
 * /dev/kvm opens proves nothing, so the probe guest boots the firmware under KVM. The result is cached
 * until the host reboots, or QEMU, the firmware or the user changes. `LAB_ACCEL=kvm|tcg` overrides it.
 * @throws Failure when KVM is demanded and does not work
 */
export async function findAccelerator(firmware: Firmware): Promise<Accelerator> {
  const demanded = demandedAccelerator()
  const qemu = (await run('qemu-system-x86_64', ['--version'])).stdout.split('\n')[0]
  const tcg = { kind: 'tcg', patience: 4, cpus: emulatedCpus(qemu ?? '') } as const
  if (demanded === 'tcg') return { ...tcg, reason: 'LAB_ACCEL says so' }
  const key = [bootId(), process.getuid?.(), qemu, firmware.code].join(' ')
  const memory = join(privateDirectory(labCache()), 'accelerator.json')
  // a cached result that cannot be read is found out again
  let known = readableJson<{ key: string; problem: string | null }>(memory)
  if (known?.key !== key) {
    known = { key, problem: await probe(firmware) }
    writeJson(memory, known)
  }
  if (known.problem === null) {
    return { kind: 'kvm', reason: 'a probe guest ran on it', patience: 1, cpus: 2 }
  }
  if (demanded === 'kvm') {
    throw new Failure(`Cannot use KVM: ${known.problem}`, {
      hint: 'LAB_ACCEL=tcg works everywhere',
    })
  }
  return { ...tcg, reason: `KVM does not work here: ${known.problem}` }
}

/**
 * The number of CPUs of an emulated VM. A kernel sometimes patches its own code, as when the first ping enables
 * timestamps. With QEMU before 8.1 another emulated CPU may run a half-written patch: the kernel reports `Oops: int3`
 * and kills the process that ran there, even sshd.
 * @param qemu output of QEMU's `--version`
 */
export function emulatedCpus(qemu: string): number {
  const [, major, minor] = /version (\d+)\.(\d+)/.exec(qemu) ?? []
  return Number(major) * 100 + Number(minor) < 801 ? 1 : 2
}

/** Boots the firmware under KVM until its boot manager prints a line. @returns null, or why it did not */
async function probe(firmware: Firmware): Promise<string | null> {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOENT' ? 'there is no /dev/kvm' : 'this user may not open /dev/kvm'
  }
  const limit = 15
  const drive = 'if=pflash,format=raw,readonly=on,file='
  const guest = spawn(
    'setpriv',
    [
      ...['--pdeathsig', 'KILL', 'qemu-system-x86_64', '-nodefaults', '-no-user-config'],
      ...['-machine', 'q35', ...acceleratorArgs('kvm'), '-m', '256', '-display', 'none'],
      ...['-drive', drive + optionValue(firmware.code)],
      ...['-drive', `if=pflash,format=raw,snapshot=on,file=${optionValue(firmware.vars)}`],
      ...['-serial', 'stdio'],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let complaint = ''
  guest.stderr.on('data', (data: Buffer) => (complaint += data.toString()))
  const spoke = new Promise<null>((resolve) => {
    createInterface({ input: guest.stdout }).on('line', (line) => {
      if (line.includes('BdsDxe')) resolve(null)
    })
  })
  const ended = new Promise<string>((resolve) => {
    guest.on('error', () => resolve('qemu-system-x86_64 does not start'))
    guest.on('close', () => resolve(complaint.trim().split('\n')[0] || 'the probe guest ended'))
  })
  let timer: NodeJS.Timeout | undefined
  const silent = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`a probe guest hung for ${limit} s`), limit * 1000)
  })
  const problem = await Promise.race([spoke, ended, silent])
  clearTimeout(timer)
  guest.kill('SIGKILL')
  await ended
  return problem
}

/** Escapes a value inside a QEMU option, by doubling its commas. */
export const optionValue = (text: string): string => text.replaceAll(',', ',,')

import { chmodSync, existsSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { Failure } from '../failure.ts'
import { lock, locked } from '../lock.ts'
import { pasted } from '../quote.ts'
import { run } from '../run.ts'
import { labHome } from '../settings.ts'
import { ageKeyText } from '../nix/secrets.ts'
import { writeSshConfig } from '../ssh/config.ts'
import type { SshTarget } from '../ssh/ssh.ts'
import { kernelOf } from './kernel.ts'
import { files, knownVms, readVm, type Vm } from './vm.ts'
import { writeFile } from '../write-file.ts'

/** The lab's own key pair: what the primary user and root of every VM accept. */
export const labKey = (): string => join(labHome(), 'keys', 'id_ed25519')

/** Makes the lab's key pair, once. */
export async function ensureLabKey(): Promise<void> {
  privateDirectory(labHome())
  privateDirectory(join(labHome(), 'keys'))
  // two deploys at once must not each keep half of a pair
  const take = () => lock(join(labHome(), 'keys', 'lock'), "make the lab's key", { wait: 30 })
  await locked([take], () => ensureKey(labKey(), 'gitops-vm-lab'))
}

/** The public part of a key, without its comment. */
export function publicKey(path: string): string {
  const [type, key] = readFileSync(`${path}.pub`, 'utf8').split(' ')
  if (type !== 'ssh-ed25519' || !key)
    throw new Failure(`Cannot read \`${path}.pub\` as a public key`)
  return `${type} ${key.trim()}`
}

/**
 * Makes what tells this VM from another: its SSH host key, made here so that it can be pinned
 * before the first connection, and the systemd credential that brings it, the lab's public key and,
 * where there are such, its age key and a key for tailscale into the guest at every boot. No image holds
 * any of it, and it works on any systemd (tmpfiles.d reads the credential `tmpfiles.extra`:
 * systemd-tmpfiles-setup.service(8)).
 */
export async function ensureIdentity(vm: Vm): Promise<void> {
  const f = files(vm.host)
  await ensureKey(f.hostKey, vm.host)
  const key = publicKey(labKey())
  // NixOS writes authorized_keys.d anew at every switch; nix/lab/vm.nix has sshd read this one, too
  const keys = vm.guest === 'nixos' ? '/etc/ssh/lab_keys.d' : '/etc/ssh/authorized_keys.d'
  const lines = [
    put('/etc/ssh/ssh_host_ed25519_key', '0600', readFileSync(f.hostKey, 'utf8')),
    put('/etc/ssh/ssh_host_ed25519_key.pub', '0644', `${publicKey(f.hostKey)}\n`),
    `d ${keys} 0755 root root - -`,
    ...[...new Set([vm.user, 'root'])].map((user) => put(`${keys}/${user}`, '0644', `${key}\n`)),
  ]
  const age = ageKeyText(vm.host)
  if (age !== undefined) {
    lines.push('d /var/lib/sops-nix 0700 root root - -')
    lines.push(put('/var/lib/sops-nix/key.txt', '0400', age))
  }
  const tailscale = process.env['LAB_TAILSCALE_AUTHKEY']
  // of no use without a way to its coordination server
  if (tailscale && vm.openUplink) {
    lines.push('d /run/lab 0700 root root - -')
    lines.push(put('/run/lab/tailscale-authkey', '0400', `${tailscale}\n`))
  }
  writeFile(f.credential, `${lines.join('\n')}\n`, { mode: 0o600, over: 'any' })
}

const put = (path: string, mode: string, content: string): string =>
  `f+~ ${path} ${mode} root root - ${Buffer.from(content).toString('base64')}`

/** Made under another name first: a key cut short by a crash is never taken for one. */
async function ensureKey(path: string, comment: string): Promise<void> {
  if (existsSync(path) && existsSync(`${path}.pub`)) {
    chmodSync(path, 0o600)
    return
  }
  const beside = `${path}.${process.pid}.tmp`
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', comment, '-f', beside])
  renameSync(`${beside}.pub`, `${path}.pub`)
  renameSync(beside, path)
}

/** The ssh_config that names every VM: `ssh -F <this> sorrow`, or `sorrow-root`. */
export const sshConfig = (): string => join(labHome(), 'ssh_config')

/** The line that a person pastes. */
export const sshLine = (host: string): string => pasted('ssh', '-F', sshConfig(), host)

/** Where and as whom a VM is reached, with its pinned host key. */
export const sshTarget = (vm: Vm, user = vm.user): SshTarget => ({
  name: vm.host,
  port: vm.port,
  user,
  keyPath: labKey(),
  hostKey: publicKey(files(vm.host).hostKey),
  blame: kernelOf(vm.host),
})

/**
 * Writes the ssh_config anew for the VMs that there are. One without a host key is being made, or its
 * deploy was killed before it had one: it comes in when it starts.
 */
export function writeSshConfigOfAll(): void {
  const vms = knownVms()
    .filter((host) => existsSync(`${files(host).hostKey}.pub`))
    .flatMap((host) => readVm(host) ?? [])
  writeSshConfig(
    sshConfig(),
    vms.map((vm) => ({ ...sshTarget(vm), name: vm.host })),
  )
}

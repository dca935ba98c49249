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

/** The lab's own key pair, which logs in as the primary user and as root of every VM. */
export const labKey = (): string => join(labHome(), 'keys', 'id_ed25519')

/** Makes the lab's key pair, once. */
export async function ensureLabKey(): Promise<void> {
  privateDirectory(labHome())
  privateDirectory(join(labHome(), 'keys'))
  // two concurrent deploys must not each write half of the pair
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
 * Makes the identity of a VM: its SSH host key, made here so that it can be pinned before the first
 * connection, and a systemd credential. At every boot the credential brings into the guest the host key,
 * the lab's public key and, if there are any, the host's age key and a key for tailscale. No image holds
 * any of these, and this works with any systemd (tmpfiles.d reads the credential `tmpfiles.extra`:
 * systemd-tmpfiles-setup.service(8)).
 */
export async function ensureIdentity(vm: Vm): Promise<void> {
  const f = files(vm.host)
  await ensureKey(f.hostKey, vm.host)
  const key = publicKey(labKey())
  // NixOS rewrites authorized_keys.d at every switch; nix/lab/vm.nix makes sshd read lab_keys.d too
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
  // useless without a route to tailscale's coordination server
  if (tailscale && vm.openUplink) {
    lines.push('d /run/lab 0700 root root - -')
    lines.push(put('/run/lab/tailscale-authkey', '0400', `${tailscale}\n`))
  }
  writeFile(f.credential, `${lines.join('\n')}\n`, { mode: 0o600, over: 'any' })
}

const put = (path: string, mode: string, content: string): string =>
  `f+~ ${path} ${mode} root root - ${Buffer.from(content).toString('base64')}`

/** Makes a key under a temporary name first, so that a crash never leaves a truncated key. */
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

/** The path of the ssh_config with every VM: `ssh -F <this> sorrow`, or `sorrow-root`. */
export const sshConfig = (): string => join(labHome(), 'ssh_config')

/** The command line for a person to paste. */
export const sshLine = (host: string): string => pasted('ssh', '-F', sshConfig(), host)

/** The SSH target of a VM, with its pinned host key. */
export const sshTarget = (vm: Vm, user = vm.user): SshTarget => ({
  name: vm.host,
  port: vm.port,
  user,
  keyPath: labKey(),
  hostKey: publicKey(files(vm.host).hostKey),
  blame: kernelOf(vm.host),
})

/**
 * Rewrites the ssh_config for all existing VMs. Skips one without a host key: it is being made, or its
 * deploy was killed before it had one. It is added when it starts.
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

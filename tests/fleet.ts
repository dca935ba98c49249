/** A flake of many hosts, made for a test. */
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findCommand } from '../lib/find-command.ts'
import { copyFlake } from './flake-copy.ts'

/**
 * The project's flake with these identical hosts in place of its own.
 * @param inUse the hosts that can be evaluated; evaluating any other one fails
 */
export function makeFleet(dir: string, names: string[], inUse: string[]): string {
  const flake = copyFlake(dir)
  const model = join(flake, 'hosts/torment')
  for (const name of names) {
    const host = join(flake, 'hosts', name)
    cpSync(model, host, { recursive: true })
    const path = join(host, 'default.nix')
    const own = readFileSync(path, 'utf8').replace('hostName = "torment"', `hostName = "${name}"`)
    writeFileSync(path, inUse.includes(name) ? own : `throw "${name} was evaluated"\n`)
  }
  const path = join(flake, 'flake.nix')
  const entries = names
    .map((name) => `${name} = mkHost { hostname = "${name}"; };`)
    .join('\n        ')
  const text = readFileSync(path, 'utf8')
  writeFileSync(path, text.replace(/sorrow = mkHost [^]*?torment = mkHost .*;/, entries))
  execFileSync('git', ['-C', flake, 'add', '--all'])
  return flake
}

/**
 * Makes a `nix` that logs what it is asked to evaluate and then runs the real one.
 * @returns the directory for PATH, and what was evaluated so far
 */
export function countEvaluations(dir: string): { bin: string; seen: () => string[] } {
  const bin = join(dir, 'bin')
  const log = join(dir, 'evaluations')
  mkdirSync(bin)
  writeFileSync(log, '')
  const script = `#!/bin/sh
for word; do case $word in *[[:space:]]*) ;; *#*) echo "\${word#*#}" >>${log};; esac; done
exec ${findCommand('nix')!} "$@"
`
  writeFileSync(join(bin, 'nix'), script)
  chmodSync(join(bin, 'nix'), 0o755)
  return { bin, seen: () => readFileSync(log, 'utf8').split('\n').filter(Boolean) }
}

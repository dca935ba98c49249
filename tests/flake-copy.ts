/** Copies of the project's flake, for tests and benchmarks that change it. */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { project } from '../lib/settings.ts'

/** Copies the project's flake into a separate git repository. */
export function copyFlake(dir: string): string {
  const flake = join(dir, 'flake')
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: project, encoding: 'utf8', maxBuffer: 2 ** 26 })
  for (const file of git('ls-files', 'flake.nix', 'flake.lock', 'hosts', 'nix')
    .trim()
    .split('\n')) {
    mkdirSync(dirname(join(flake, file)), { recursive: true })
    cpSync(join(project, file), join(flake, file))
  }
  // a scheduled upgrade would revert what a test has just rebuilt
  for (const host of readdirSync(join(flake, 'hosts'))) {
    const path = join(flake, 'hosts', host, 'default.nix')
    writeFileSync(path, readFileSync(path, 'utf8').replace('"hourly"', '"yearly"'))
  }
  const own = ['-C', flake, '-c', 'user.name=lab', '-c', 'user.email=lab@localhost']
  git('init', '--quiet', '--initial-branch=main', flake)
  git(...own, 'add', '--all')
  git(...own, 'commit', '--quiet', '--message=Start')
  return flake
}

/** Adds a module to a host of a copied flake, as a user's change would. */
export function changeHost(flake: string, host: string, module: string): void {
  writeFileSync(join(flake, 'hosts', host, 'change.nix'), module)
  const path = join(flake, 'hosts', host, 'default.nix')
  const text = readFileSync(path, 'utf8').replace(' ./change.nix', '')
  writeFileSync(path, text.replace('./hardware-configuration.nix', '$& ./change.nix'))
  execFileSync('git', ['-C', flake, 'add', '--all'])
}

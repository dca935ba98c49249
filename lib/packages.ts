import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from './failure.ts'
import { whenCutShort } from './interrupt.ts'
import { agreed, canAsk } from './question.ts'
import { findFirmware } from './vm/firmware.ts'
import { findCommand } from './find-command.ts'
import { project } from './settings.ts'

export interface Package {
  name: string
  /** A command, an absolute path, or `@firmware`; if it is found, the package counts as present. */
  brings: string
  why: string
  forTests: boolean
}

/** The one list of Debian packages, `packages.debian`. */
export function packages(): Package[] {
  const text = readFileSync(join(project, 'packages.debian'), 'utf8')
  const [lab = '', test = ''] = text.split('[test]\n')
  const read = (part: string, forTests: boolean): Package[] =>
    part
      .split('\n')
      .filter((line) => line && !line.startsWith('#'))
      .map((line) => {
        const [name = '', brings = '', ...why] = line.split(/\s+/)
        return { name, brings, why: why.join(' '), forTests }
      })
  return [...read(lab, false), ...read(test, true)]
}

/** True if what the package provides is on this machine, on any distribution. */
export function present({ brings }: Package): boolean {
  if (brings.startsWith('/')) return existsSync(brings)
  if (brings !== '@firmware') return findCommand(brings) !== undefined
  try {
    return Boolean(findFirmware())
  } catch {
    return false
  }
}

export const onDebian = (): boolean => findCommand('apt-get') !== undefined

/** The hint for other distributions. */
export const withNix = 'nix develop gives every tool that nixpkgs has'

const apt = (missing: Package[]): string[] => [
  ...['apt-get', 'install', '--yes', '--no-install-recommends'],
  ...missing.map(({ name }) => name),
]

/** The command that installs packages, as this user has to type it. */
export const installLine = (missing: Package[]): string =>
  [...(process.getuid?.() === 0 ? [] : ['sudo']), ...apt(missing)].join(' ')

/**
 * Installs Debian packages: as root directly, else through sudo. Asks first, unless `yes`.
 * @throws Failure with the command to type if it may not or cannot install
 */
export async function install(missing: Package[], yes: boolean): Promise<void> {
  const names = missing.map(({ name }) => name)
  const asRoot = process.getuid?.() === 0
  const line = installLine(missing)
  if (!onDebian()) {
    throw new Failure(`Cannot install ${names.join(', ')}: this is not Debian`, {
      hint: `${withNix}; elsewhere install them by hand`,
    })
  }
  if (!yes && !(await mayInstall(names, line))) {
    throw new Failure(`Cannot go on without ${names.join(', ')}: nothing was installed`, {
      hint: line,
    })
  }
  for (const args of [['apt-get', 'update'], apt(missing)]) {
    const words = [...(asRoot ? [] : ['sudo']), 'env', 'DEBIAN_FRONTEND=noninteractive', ...args]
    if (!(await succeeds(words))) {
      throw new Failure(`Cannot install ${names.join(', ')}`, { hint: line })
    }
  }
  const still = missing.filter((wanted) => !present(wanted))
  if (still.length === 0) return
  throw new Failure(`Cannot find \`${still[0]!.brings}\` after installing \`${still[0]!.name}\``)
}

async function mayInstall(names: string[], line: string): Promise<boolean> {
  if (!canAsk()) return false
  const what = names.length === 1 ? 'a Debian package' : `${names.length} Debian packages`
  process.stderr.write(`The lab needs ${what} more. This installs what is missing:\n  ${line}\n`)
  return agreed('Run this now?')
}

/** Not through `run`: sudo asks for its password on the terminal, and dpkg must not be killed half-way. */
async function succeeds([command, ...args]: string[]): Promise<boolean> {
  const child = spawn(command!, args, { stdio: ['inherit', 2, 2] })
  const forget = whenCutShort(() => ({ left: 'apt-get may still run and ends what it has begun' }))
  try {
    const [status] = (await once(child, 'exit')) as [number | null]
    return status === 0
  } catch {
    return false
  } finally {
    forget()
  }
}

import { createHash } from 'node:crypto'
import { existsSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { cached } from './cache.ts'
import { privateDirectory } from '../directory.ts'
import { Failure } from '../failure.ts'
import { readImageBuilder, type ImageWanted } from '../nix/host.ts'
import { checkDisk } from './qcow2.ts'
import { realise } from '../nix/nix.ts'
import { requireSpace } from '../vm/preflight.ts'
import { counting } from '../retry.ts'
import { run } from '../run.ts'
import { labCache } from '../settings.ts'

/** Bytes that building an installed system takes: the image, of which no copy is made. */
const needed = 8 * 1024 ** 3

/**
 * The disk of a NixOS host as its disko lays it out, for `--disko`. disko's own image builder makes it: a
 * program that formats a sparse file and installs the host into it inside QEMU, so it needs neither root
 * nor Nix's `kvm` feature. It contains nothing specific to one VM, and is cached by the program's store path.
 * @param limit seconds that the installation may take
 * @returns path of a qcow2 image
 * @throws Failure
 */
export async function ensureDiskoImage(
  host: string,
  wanted: ImageWanted,
  limit: number,
  say: (line: string) => void,
): Promise<string> {
  const { derivation, file } = await readImageBuilder(host, wanted)
  const [program] = await realise([derivation], [], { say, timeout: 4 * 3600 })
  const key = createHash('sha256').update(`1 ${program}`).digest('hex').slice(0, 16)
  const images = join(privateDirectory(labCache()), 'disko')
  const path = join(images, `${key}.qcow2`)
  return await cached({
    ...{ dir: images, key, what: `make the disk of \`${host}\``, wait: limit, say },
    find: () => (existsSync(path) ? path : undefined),
    make: async (work) => {
      requireSpace(images, needed, `make the disk of \`${host}\``)
      let at = `disko installs ${host} into an image`
      const onLine = (line: string): void => void (at = stage(line))
      await counting(
        () => at,
        limit,
        say,
        () => run(program!, [], { cwd: work, timeout: limit, onLine }),
      )
      const made = join(work, file)
      if (!existsSync(made)) {
        throw new Failure(`Cannot find the image that disko made of \`${host}\`: \`${file}\``, {
          replay: program,
        })
      }
      await checkDisk(made)
      renameSync(made, path)
      return path
    },
  })
}

/** The builder echoes each shell command that it runs, which is enough to show progress. */
const stage = (line: string): string => `disko: ${line.replace(/^\++ /, '').slice(0, 100)}`

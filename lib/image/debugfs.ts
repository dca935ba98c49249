import { lstatSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { Failure } from '../failure.ts'
import type { Writer } from './generation.ts'
import { run } from '../run.ts'

/**
 * A script for debugfs(8), which writes into an ext4 without mounting it. Everything belongs to root, a file
 * keeps the mode of its source, and every time is 1, as in a store.
 */
export class Debugfs implements Writer {
  private readonly lines: string[] = []
  /** Space that the commands so far take in the file system. */
  readonly taken = { inodes: 0, bytes: 0 }

  directory(path: string, mode = 0o755): void {
    this.take(block)
    this.lines.push(`mkdir ${quote(path)}`)
    if (mode !== 0o755) this.mode(path, 0o040000 | mode)
  }

  symlink(target: string, path: string): void {
    this.take(target.length < 60 ? 0 : block)
    this.lines.push(`symlink ${quote(path)} ${quote(target)}`)
  }

  file(source: string, path: string): void {
    this.take(lstatSync(source).size)
    this.lines.push(`write ${quote(source)} ${quote(path)}`)
  }

  hardLink(existing: string, path: string): void {
    this.lines.push(`ln ${existing} ${quote(path)}`, `sif ${existing} links_count 2`)
  }

  /** The modes of its source are those of a store already. */
  tree(source: string, path: string): void {
    // changes into each directory, because debugfs would look up every path from the root
    this.lines.push(`cd ${quote(dirname(path))}`)
    this.within(source, basename(path))
    this.lines.push('cd /')
  }

  private within(source: string, name: string): void {
    const found = lstatSync(source)
    if (found.isSymbolicLink()) this.symlink(readlinkSync(source), name)
    else if (found.isDirectory()) {
      this.directory(name)
      this.lines.push(`cd ${quote(name)}`)
      for (const each of readdirSync(source)) this.within(join(source, each), each)
      this.lines.push('cd ..')
      this.mode(name, 0o040555)
    } else this.file(source, name)
  }

  private mode(path: string, mode: number): void {
    this.lines.push(`sif ${quote(path)} mode 0${mode.toString(8)}`)
  }

  private take(bytes: number): void {
    this.taken.inodes++
    this.taken.bytes += Math.ceil(bytes / block) * block
  }

  /**
   * Runs the script.
   * @param image path of the image, with `?offset=<bytes>` when the file system does not begin at byte 0
   * @throws Failure with the first error message of debugfs
   */
  async run(image: string, script: string): Promise<void> {
    writeFileSync(script, this.lines.join('\n'))
    const { stderr } = await run('debugfs', ['-w', '-f', script, image], {
      env: { E2FSPROGS_FAKE_TIME: '1' },
      timeout: 3600,
    })
    // the exit code of debugfs is always 0
    const complaint = stderr.split('\n').find((line) => line && !/^debugfs \d/.test(line))
    if (complaint) throw new Failure(`Cannot write generation 1 into the disk: ${complaint}`)
  }
}

/** ext4's unit of allocation. */
export const block = 4096

/** debugfs splits its lines at blanks; inside quotes only a quote is special, and is written twice. */
function quote(path: string): string {
  if (/[\n\r]/.test(path)) throw new Failure(`Cannot write a file name with a newline: \`${path}\``)
  return `"${path.replaceAll('"', '""')}"`
}

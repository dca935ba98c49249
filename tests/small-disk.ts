import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { project } from '../lib/settings.ts'

/**
 * Runs code of the lab with LAB_HOME on a separate file system that no other process sees.
 * @param size MiB
 * @param code TypeScript, in which `#/` is the project's directory
 * @returns what it printed
 */
export function onSmallDisk(dir: string, size: number, code: string): string {
  const disk = join(dir, 'disk')
  mkdirSync(disk, { recursive: true })
  const piece = join(dir, 'piece.mts')
  writeFileSync(piece, code.replaceAll("'#/", `'${project}/`))
  const script = `mount -t tmpfs -o size=${size}M none ${disk} && exec "$0" --import tsx ${piece}`
  const namespace = ['--map-root-user', '--user', '--mount', 'sh', '-c', script, process.execPath]
  return execFileSync('unshare', namespace, {
    cwd: project,
    env: { ...process.env, LAB_HOME: disk },
    encoding: 'utf8',
  })
}

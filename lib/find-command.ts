import { accessSync, constants } from 'node:fs'
import { resolve } from 'node:path'

/** Where commands are looked for: Debian keeps the tools for disks where users do not look. */
export const searchPath = (): string => `${process.env['PATH'] ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`

/** The path of a command, or undefined; looks into the sbin directories as well. */
export function findCommand(name: string): string | undefined {
  return searchPath()
    .split(':')
    .map((directory) => resolve(directory, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

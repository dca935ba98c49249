import { existsSync, statSync } from 'node:fs'

/** Not so of what is below a file, as a path may be that only looks like one of a host. */
export const isDirectory = (path: string): boolean =>
  existsSync(path) && statSync(path).isDirectory()

export const isFile = (path: string): boolean => existsSync(path) && statSync(path).isFile()

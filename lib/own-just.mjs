// Run by npm once it has installed the packages.
//
// The package of just puts a script of Node before the program. On Ctrl-C that script dies at once, and the
// shell prints its prompt while the task still writes what it left and how to go on: over that prompt.
// just itself waits for its task; it also starts a fifth of a second sooner.
import { existsSync, rmSync, symlinkSync } from 'node:fs'

const program = `../rust-just-${process.platform}-${process.arch}/bin/just`
const directory = new URL('../node_modules/.bin/', import.meta.url)
// on any other machine the script stays, which knows more of them
if (existsSync(new URL(program, directory))) {
  const link = new URL('just', directory)
  rmSync(link, { force: true })
  symlinkSync(program, link)
}

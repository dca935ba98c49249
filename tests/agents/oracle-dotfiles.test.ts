import { expect, test } from 'vitest'
import { makeDotfiles, type Host } from './dotfiles.ts'
import { type ScratchRoot, useRoot } from './root.ts'
import { lostChanges } from '../../lib/scenario/oracle.ts'
import { changed } from '../../lib/scenario/oracle-clones.ts'
import { readFacts } from '../../lib/scenario/oracle-facts.ts'
import { asUser } from '../../lib/scenario/oracle-questions.ts'

let root: ScratchRoot
await useRoot((made) => (root = made))
const source = '.local/share/chezmoi'
const ten = Array.from({ length: 10 }, (_, i) => `line ${i}\n`).join('')

/** What the oracle finds wrong with a host's clone. */
async function wrong(host: Host): Promise<string[]> {
  const said = await host.sh(asUser([source]))
  const { unread, repositories } = readFacts('\u001eend\n', `${said}\n`, undefined)
  expect(unread).toEqual([])
  const clone = repositories[source]!
  expect(clone.shown.length).toBeGreaterThan(1)
  expect(clone.shown.filter((id) => id in clone.commits)).toHaveLength(clone.shown.length - 1)
  return [...changed(clone, false), ...lostChanges(clone)]
}

test('edits that were captured, rebased, refused and settled are complete on both hosts', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  const both = [sorrow, torment]
  await sorrow.sh('sed -i "s/line 1/of sorrow/" .a')
  await torment.sh('sed -i "s/line 8/of torment/" .a')
  for (const host of [...both, sorrow]) await host.sync()
  for (const host of both) expect(await wrong(host)).toEqual([])

  await sorrow.sh('sed -i "s/line 5/of sorrow/" .a')
  await torment.sh('sed -i "s/line 5/of torment/" .a')
  await sorrow.sync()
  expect((await torment.sync()).outcome).toBe('conflict')
  await sorrow.sync()
  for (const host of both) expect(await wrong(host)).toEqual([])

  await torment.sh(
    `cd ${source} && jj new @- main@origin 2>&1 && jj resolve --tool :ours dot_a 2>&1 && sed -i 's/of torment/of both/' dot_a`,
  )
  for (const host of [torment, sorrow, torment]) await host.sync()
  for (const host of both) expect(await wrong(host)).toEqual([])
})

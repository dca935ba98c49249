import { join } from 'node:path'
import { expect, test } from 'vitest'
import { asRoot, generation, scratch } from './generation.ts'

const accounts = `mkdir -p /etc/skel /lab/packages
echo skeleton > /etc/skel/.profile
echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd
printf 'root:x:0:\\nusers:x:100:\\n' > /etc/group
echo 'root:*:1::::::' > /etc/shadow
printf 'root:*::\\nusers:*::\\n' > /etc/gshadow
`
const tables = {
  'table/groups': 'wheel -\nmedia 4711\n',
  'table/users':
    'rain - normal users wheel,media /home/rain home /usr/bin/bash -\nsync 333 system - - /var/empty nohome /usr/sbin/nologin -\n',
  'etc/hostname': 'sorrow\n',
}

function two(): [string, string] {
  const dir = scratch()
  return [
    generation(join(dir, 'one'), {
      ...tables,
      'table/etc': 'hostname\nkept/file\ngone/deep/file\nours\n',
      'table/copies': '0440 +0 +0 sudoers\n',
      'etc/kept/file': 'one',
      'etc/gone/deep/file': 'one',
      'etc/ours': 'one',
      'etc/sudoers': 'one',
    }),
    generation(join(dir, 'two'), {
      ...tables,
      'table/etc': 'hostname\nkept/file\nnew\n',
      'table/copies': '',
      'etc/kept/file': 'two',
      'etc/new': 'two',
    }),
  ]
}

test('Activation installs a generation’s files, and removes those that only the previous one had', async () => {
  const [one, two_] = two()
  const { stdout, stderr } = await asRoot(`${accounts}
${one}/activate && stat -c '%A %n' /etc/sudoers /etc/gone/deep/file
echo == && ${two_}/activate && cat /etc/kept/file /etc/new && ls -d /etc/gone /etc/ours /etc/sudoers
echo == && ${one}/activate && cat /etc/kept/file /etc/gone/deep/file && ls -d /etc/new`)
  const [first, second, third] = stdout.split('==\n')
  expect(first).toBe('-r--r----- /etc/sudoers\nlrwxrwxrwx /etc/gone/deep/file\n')
  expect(second).toBe('twotwo')
  expect(third).toBe('oneone')
  const missing = [...stderr.matchAll(/cannot access '(.*?)'/g)].map(([, path]) => path)
  expect(missing).toEqual(['/etc/gone', '/etc/ours', '/etc/sudoers', '/etc/new'])
})

test('A foreign file in the way is kept, and restored later', async () => {
  const [one, two_] = two()
  const { stdout } = await asRoot(`${accounts}
echo theirs > /etc/ours
mkdir /etc/gone && echo theirs > /etc/gone/beside
${one}/activate && cat /etc/ours && ${two_}/activate && cat /etc/ours /etc/gone/beside`)
  expect(stdout).toBe('onetheirs\ntheirs\n')
})

test('Users and groups are created once, and keep later changes', async () => {
  const [one] = two()
  const { stdout } = await asRoot(`${accounts}
${one}/activate
sed -i 's/^rain:[*]/rain:secret/' /etc/shadow
sed -i '/^rain:/s|bash|zsh|' /etc/passwd
echo mine > /home/rain/.profile
${one}/activate
ls -A /etc /home | grep -F .new
cat /etc/passwd /etc/group; grep rain /etc/shadow /etc/gshadow; stat -c '%a %u %g' /home/rain /etc/group; cat /home/rain/.profile`)
  expect(stdout.split('\n')).toEqual([
    'root:x:0:0:root:/root:/bin/sh',
    'rain:x:1000:100::/home/rain:/usr/bin/bash',
    'sync:x:333:65534::/var/empty:/usr/sbin/nologin',
    'root:x:0:',
    'users:x:100:',
    'wheel:x:400:rain',
    'media:x:4711:rain',
    '/etc/shadow:rain:secret:1::::::',
    '/etc/gshadow:wheel:!::rain',
    '/etc/gshadow:media:!::rain',
    '700 1000 100',
    '644 0 0',
    'mine',
    '',
  ])
})

test('After an interruption between two files, the next boot knows which files were installed', async () => {
  const [one, two_] = two()
  // the first link of generation one is created, and then the power fails
  const { stdout } = await asRoot(`${accounts}
sed 's|^link_all() {|&\\n  kill -9 $$|' ${one}/activate > ${one}/cut && chmod 755 ${one}/cut
sed -i 's|{0%/activate}|{0%/cut}|' ${one}/cut
${one}/cut
echo "ended with $?"
${two_}/activate
ls -A /etc /etc/static/ | grep -E 'gone|ours|sudoers|new|hostname'
cat /var/lib/lab-generation/installed`)
  expect(stdout.split('\n')[0]).toMatch(/ended with (137|9)/)
  expect(stdout).not.toMatch(/gone|ours|sudoers/)
  expect(stdout).toContain('new')
})

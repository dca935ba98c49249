/** Shared by the tests of the upgrade: a scratch root with a remote, a clone of it, and the agent. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { upgradeForm } from '../../lib/scenario/status-form.ts'
import { project } from '../../lib/settings.ts'
import { makeRoot, type ScratchRoot } from './root.ts'

export interface Status {
  phase: string
  outcome: string | null
  reason: string
  from: { commit: string; toplevel: string; generation: number | null }
  to: { commit: string; toplevel: string; generation: number | null } | null
  notRestored: string[]
  checks: { command: string; result: string }[]
  finished: string | null
}

export interface Upgraded extends Status {
  code: number
  /** All that it printed. */
  said: string
}

const agents = join(project, 'nix/agents')
const module = readFileSync(join(project, 'nix/modules/auto-upgrade.nix'), 'utf8')
const parts = /parts = \[([^\]]*)\]/.exec(module)![1]!.match(/[\w-]+/g)!
export const agent = parts.map((part) => readFileSync(join(agents, `${part}.sh`), 'utf8')).join('')

export const settings = {
  UPGRADE_MODE: 'local',
  UPGRADE_USER: 'rain',
  UPGRADE_REPOSITORY: '/home/rain/nix-config',
  UPGRADE_FLAKE_DIRECTORY: '.',
  UPGRADE_FLAKE_URL: '',
  UPGRADE_BRANCH: 'main',
  UPGRADE_ATTRIBUTE: 'toplevel',
  UPGRADE_FETCH_TIMEOUT: '20',
  UPGRADE_SWITCH_LIMIT: '900',
  UPGRADE_LOCK_LIMIT: '21600',
  UPGRADE_HOST: 'sorrow',
  UPGRADE_DOTFILES: '',
  UPGRADE_HOOKS: '[]',
  UPGRADE_BUILD_FIRST: 'true',
  UPGRADE_CHECKS: '[]',
  UPGRADE_CHECKS_NA: '[]',
  UPGRADE_SETTLE: '0',
  UPGRADE_PATIENCE: '0',
  UPGRADE_ON_FAILURE: 'rollback',
  UPGRADE_BOOT: '/boot',
  UPGRADE_KEEP_GENERATIONS: '5',
  UPGRADE_KEEP_DAYS: '7',
  UPGRADE_ALLOW_REBOOT: 'false',
  UPGRADE_REBOOT_WINDOW: '',
}

/**
 * A minimal system whose `switch-to-configuration` only sets the links that the contract requires: there is no
 * systemd here. `etc` is a file of the repository: with the text `switch fails` the switch to that generation
 * fails, with `switch idles` it succeeds without doing anything, and a line `switch does: …` holds commands that
 * the switch runs first. If /boot has a file `unwritable`, no boot entries can be written.
 */
export const flake = `{
  outputs = { self }: {
    toplevel = derivation {
      name = "nixos-system-sorrow";
      system = "x86_64-linux";
      builder = "/bin/sh";
      PATH = "/usr/bin";
      text = import ./text.nix;
      args = [ "-euc" ''
        mkdir -p $out/bin
        echo "$text" >$out/text
        case $text in *"build fails"*) echo no >&2; exit 1 ;; esac
        cat >$out/bin/switch-to-configuration <<END
      #!/bin/sh
      echo "\\$1 $text" >>/root/switched
      case \\$1 in switch | boot) [ ! -e /boot/unwritable ] || exit 1 ;; esac
      [ \\$1 != switch ] || eval "\\$(sed -n 's/^switch does: //p' $out/text)"
      case "\\$1 $text" in *"switch fails") exit 2 ;; *"switch idles") exit 0 ;; esac
      case \\$1 in switch | test) ln -sfn $out /run/current-system ;; esac
      END
        chmod +x $out/bin/switch-to-configuration
      '' ];
    };
  };
}
`

export interface UpgradeWorld extends ScratchRoot {
  /** Runs the agent as its wrapper does, with these settings overriding the usual ones. */
  upgrade: (env?: Record<string, string>, ...args: string[]) => Promise<Upgraded>
  status: () => Status
  /** Commits files (text by path; null removes) in another user's clone, and pushes. */
  push: (message: string, files: Record<string, string | null>) => Promise<string>
  /** Runs a script as rain in the repository. */
  rain: (script: string) => Promise<string>
  /** Writes a file of the root. */
  write: (path: string, text: string) => void
  read: (path: string) => string
  /** The state that an upgrade could have changed, for comparison: system, profile, repository. */
  state: () => Promise<string>
}

/** A root in which one good commit has been deployed. */
export async function makeUpgradeWorld(): Promise<UpgradeWorld> {
  const root = await makeRoot()
  const world = inHand(root)
  world.write('root/agent', agent)
  world.write('home/agent', agent)
  await root.sh('mkdir -p /boot; ln -s nowhere /run/booted-system; mkdir -p /nix/var/nix/profiles')
  const setUp = `
    git config --global user.name rain; git config --global user.email rain@localhost
    git config --global init.defaultBranch main
    jj config set --user user.name rain; jj config set --user user.email rain@localhost
    git init -q --bare config.git; git clone -q config.git other
    cd other; printf %s ${quote(flake)} >flake.nix; printf %s '"one"' >text.nix; git add .
    git commit -qm one; git push -q origin HEAD:main; cd ..
    jj git clone --colocate config.git nix-config`
  await root.sh(setUp, { user: 'rain' })
  const first = await world.upgrade()
  if (first.outcome !== 'upgraded') throw new Error(first.said)
  return world
}

/** The same world in a root of its own. */
export const copyWorld = async (world: UpgradeWorld): Promise<UpgradeWorld> =>
  inHand(await world.copy())

function inHand(root: ScratchRoot): UpgradeWorld {
  const inside = (path: string): string => join(root.dir, path)
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(inside(path)), { recursive: true })
    writeFileSync(inside(path), text)
  }
  const read = (path: string): string => readFileSync(inside(path), 'utf8')
  const rain = (script: string): Promise<string> =>
    root.sh(`cd nix-config\n${script}`, { user: 'rain' })
  const status = (): Status => {
    const found = JSON.parse(read('var/lib/nix-local-upgrade/status.json')) as Status
    const misfit = upgradeForm(found)
    if (misfit !== undefined) throw new Error(`In the status is ${misfit}`)
    return found
  }
  const world: UpgradeWorld = {
    ...root,
    write,
    read,
    rain,
    status,
    upgrade: async (env = {}, ...args) => {
      const wrapper = ['bash', '-euo', 'pipefail', '/root/agent', ...args]
      const options = { env: { ...settings, ...env }, daemon: true, allow: [1, 128, 137] }
      const { code, stdout, stderr } = await root.run(wrapper, options)
      return { ...status(), code, said: `${stdout}\n${stderr}` }
    },
    push: async (message, files) => {
      const lines = Object.entries(files).map(([path, text]) =>
        text === null
          ? `git rm -q ${quote(path)}`
          : `mkdir -p "$(dirname ${quote(path)})"; printf %s ${quote(text)} >${quote(path)}; git add -f ${quote(path)}`,
      )
      const script = `cd other; git pull -q; ${lines.join('; ')}; git commit -qm ${quote(message)}; git push -q; git rev-parse HEAD`
      return root.sh(script, { user: 'rain' })
    },
    state: () =>
      root.sh(`
        readlink /run/current-system /nix/var/nix/profiles/system
        ls -d /nix/var/nix/profiles/system*
        cat /var/lib/nix-local-upgrade/deployed
        cd /home/rain/nix-config
        as() { setpriv --reuid=1000 --regid=100 --clear-groups env HOME=/home/rain "$@"; }
        as jj --ignore-working-copy log --no-graph -r 'all()' -T 'commit_id ++ bookmarks ++ remote_bookmarks ++ "\n"'
        as git show-ref | grep -v -e refs/jj -e nix-local-upgrade
        as git status --short
        head -n 1000 ./*.nix`),
  }
  return world
}

export const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** A phase hook that kills the upgrade: the hook's parent is timeout(1), whose parent is the upgrade. */
export const killedIn = (phase: string): string =>
  `kill_in() { [ "$1" != ${phase} ] || kill -9 "$(ps -o ppid= -p $PPID | tr -d ' ')"; }; kill_in`

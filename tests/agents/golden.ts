/**
 * Shared by the tests of the golden generation: a scratch root with generations in a real store, an ESP, the
 * real installer of boot entries, and the agents as the host wraps them. It has no firmware, so the following
 * are modelled here and verified in a VM by `break-boot`: the boot loader's choice (one-shot, then `preferred` of
 * loader.conf, then the variable of the default entry, then `default` of loader.conf), systemctl, and bootctl,
 * which can write EFI variables only on the machine itself.
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { project } from '../../lib/settings.ts'
import { makeRoot, type ScratchRoot } from './root.ts'

const vendor = '4a67b082-0a4c-41cf-b6c7-440b29bb8c4f'
const agents = join(project, 'nix/agents')
const module = readFileSync(join(project, 'nix/modules/golden-generation.nix'), 'utf8')
const settings = {
  GOLDEN_ESP: '/boot',
  GOLDEN_BOOT: '/boot',
  GOLDEN_SERVICES: 'sshd.service tailscaled.service',
  GOLDEN_UNAVAILABLE: 'tailscaled.service Debian carries no tailscale',
  GOLDEN_TIMEOUT: '1',
  GOLDEN_SETTLE: '0',
  GOLDEN_AUTO_PIN: 'true',
  GOLDEN_PANIC: '10',
  GOLDEN_WATCHDOG: '30',
  GOLDEN_DEADLINE: '300',
}

export interface Status {
  booted: string
  running: string
  profile: string
  golden: string | null
  goldenEntry: string | null
  trial: string | null
  default: string | null
  oneshot: string | null
  lastFailed: string | null
}

export interface Made {
  /** Size of the kernel in KiB. */
  kernel?: number
  /** The kernel's first bytes; firmware requires `MZ`. */
  magic?: string
  /** The golden generation's module is turned off in it. */
  off?: boolean
}

export class GoldenHost {
  readonly root: ScratchRoot
  /** Wrapper for the commands in the root, as in `RootOptions`. */
  around: string[] = []
  private boots = 0

  private constructor(root: ScratchRoot) {
    this.root = root
  }

  static async make(): Promise<GoldenHost> {
    const host = new GoldenHost(await makeRoot())
    const write = (path: string, text: string): void => {
      mkdirSync(dirname(host.path(path)), { recursive: true })
      writeFileSync(host.path(path), text)
      chmodSync(host.path(path), 0o755)
    }
    for (const path of ['proc', 'sys', 'run'].map((dir) => `model/${dir}`)) {
      mkdirSync(host.path(path), { recursive: true })
    }
    mkdirSync(host.path('nix/var/nix/profiles'), { recursive: true })
    mkdirSync(host.path('nix/var/nix/gcroots'), { recursive: true })
    await host.root.sh('ln -sfn /nix/var/nix/profiles /nix/var/nix/gcroots/profiles')
    mkdirSync(host.path('sys/firmware/efi/efivars'), { recursive: true })
    write('model/panic', '0\n')
    write('model/cmdline', 'panic=0 systemd.watchdog_sec=0\n')
    write('model/bootctl', bootctl)
    write('model/systemctl', systemctl)
    write('model/busctl', '#!/bin/sh\necho "$*" >>/model/busctl.log\n')
    host.services({ 'sshd.service': 'active' })
    for (const name of readdirSync(agents).map((file) => file.replace(/\.sh$/, ''))) {
      if (/^golden-(lib|services)$/.test(name)) continue
      // the parts that the module joins
      const own = new RegExp(`"${name}" \\[ ([^\\]]*)\\]`).exec(module)?.[1]
      if (own === undefined) continue
      const parts = ['golden-lib', ...(own.match(/[\w-]+/g) ?? []), name]
      const text = parts.map((part) => readFileSync(join(agents, `${part}.sh`), 'utf8')).join('\n')
      write(`usr-local/bin/${name}`, `#!/bin/bash\nset -euo pipefail\nPATH=/usr/bin:$PATH\n${text}`)
    }
    return host
  }

  /** A host whose first generation has booted and is golden. @returns the host and that generation's toplevel */
  static async makeBooted(): Promise<[GoldenHost, string]> {
    const host = await GoldenHost.make()
    const one = await host.generation(1)
    await host.install(1)
    await host.boot()
    return [host, one]
  }

  /** A copy of this host in its present state: cheaper than making a new one. */
  async copy(): Promise<GoldenHost> {
    const other = new GoldenHost(await this.root.copy())
    other.boots = this.boots
    return other
  }

  path(path: string): string {
    return join(this.root.dir, path)
  }

  /** What systemctl says of units; a unit that is not named does not exist. */
  services(states: Record<string, string>): void {
    const lines = Object.entries(states).map(([unit, state]) => `${unit} ${state}\n`)
    writeFileSync(this.path('model/units'), lines.join(''))
  }

  /** Adds a generation to the store and to the profile. @returns its toplevel */
  async generation(
    number: number,
    { kernel = 64, magic = 'MZ', off = false }: Made = {},
  ): Promise<string> {
    const installer = readFileSync(join(project, 'nix/lab/guest/install-boot-entries.sh'), 'utf8')
    writeFileSync(this.path('root/install'), installer)
    const text = `${magic}kernel-${number}-`.padEnd(kernel * 1024, 'k')
    writeFileSync(this.path('root/kernel'), text)
    writeFileSync(this.path('root/extra'), `#!/bin/bash\n${off ? turnedOff : turnedOn}\n`)
    // builtins.toFile puts the files into the store, and the toplevel refers to them
    const expr = `let
      file = name: path: builtins.toFile name (builtins.readFile path);
      kernel = file "kernel" /root/kernel;
      initrd = builtins.toFile "initrd" "the first stage";
      installer = file "install" /root/install;
      extra = file "extra" /root/extra;
    in derivation {
      name = "nixos-system-sorrow-${number}";
      system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin";
      args = [ "-euc" ''
        mkdir -p $out/bin
        echo ${number} >$out/init
        ln -s \${kernel} $out/kernel; ln -s \${initrd} $out/initrd
        echo "loglevel=4 panic=5" >$out/kernel-params
        echo 0 >$out/configuration-limit
        cp \${installer} $out/bin/install-boot-entries
        cp \${extra} $out/extra-install-commands
        cat >$out/bin/switch-to-configuration <<'END'
      #!/bin/sh
      generation=$(cd -P "\${"$"}{0%/*}/.." && pwd -P)
      case $1 in switch | boot) "$generation/bin/install-boot-entries" || exit 1 ;; esac
      case $1 in switch | test) ln -sfn "$generation" /run/current-system ;; esac
      END
        chmod +x $out/init $out/bin/* $out/extra-install-commands
      '' ];
    }`
    writeFileSync(this.path('root/expr.nix'), expr)
    const link = `/nix/var/nix/profiles/system-${number}-link`
    return await this.root.sh(
      `nix build --out-link /root/result --impure --file /root/expr.nix && readlink /root/result && ln -sfn $(readlink /root/result) ${link} && rm /root/result`,
    )
  }

  /** `nixos-rebuild switch` or `boot` to a generation of the profile. */
  async rebuild(number: number, action: 'switch' | 'boot' = 'switch'): Promise<string> {
    return await this.sh(GoldenHost.rebuilding(number, action))
  }

  /** Bash that does the same. */
  static rebuilding(number: number, action: 'switch' | 'boot' = 'switch'): string {
    return `ln -sfn system-${number}-link /nix/var/nix/profiles/system
      /nix/var/nix/profiles/system/bin/switch-to-configuration ${action}`
  }

  /** The first boot of a disk, before any agent ran. */
  async install(number: number): Promise<void> {
    await this.sh(
      `ln -sfn system-${number}-link /nix/var/nix/profiles/system
      ESP=/boot /nix/var/nix/profiles/system/bin/install-boot-entries`,
    )
  }

  /**
   * Reboots by the boot loader's rules. A generation in `breaks` does not come up, and the machine is reset, up to
   * three times; a generation that comes up is validated.
   * @param meanwhile bash that runs before the validation ends
   * @returns every toplevel that was tried, and the validation's output with its exit code last
   */
  async boot(breaks: string[] = [], meanwhile = ':'): Promise<{ tried: string[]; said: string }> {
    const tried: string[] = []
    for (;;) {
      const toplevel = this.choose()
      tried.push(toplevel)
      this.boots++
      if (!breaks.includes(toplevel)) break
      if (tried.length === 3) return { tried, said: 'does not come up' }
    }
    const booted = tried.at(-1)!
    await this.root.sh(
      `ln -sfn ${booted} /run/booted-system; ln -sfn ${booted} /run/current-system; rm -f /run/golden*`,
    )
    rmSync(this.path('model/rebooting'), { force: true })
    const said = await this.sh(`${meanwhile}\ngolden-boot-validation 2>&1 || echo "exit $?"`)
    if (!this.rebooting) return { tried, said }
    const next = await this.boot(breaks)
    return { tried: [...tried, ...next.tried], said: `${said}\n${next.said}` }
  }

  get rebooting(): boolean {
    return existsSync(this.path('model/rebooting'))
  }

  /** The boot loader: which generation it starts. */
  choose(): string {
    const oneshot = this.variable('LoaderEntryOneShot')
    rmSync(this.variablePath('LoaderEntryOneShot'), { force: true })
    const conf = readFileSync(this.path('boot/loader/loader.conf'), 'utf8')
    // `preferred` beats the variable, and skips an entry without tries left (systemd-boot 260)
    const preferred = /^preferred (.*)$/m.exec(conf)?.[1] ?? ''
    const ids = [
      oneshot,
      preferred,
      this.variable('LoaderEntryDefault'),
      /^default (.*)$/m.exec(conf)?.[1] ?? '',
    ]
    for (const id of ids.filter(Boolean)) {
      const file = readdirSync(this.path('boot/loader/entries')).find(
        (name) => name.replace(/\+\d+(-\d+)?(?=\.conf$)/, '') === id,
      )
      if (!file) continue
      const text = readFileSync(this.path(`boot/loader/entries/${file}`), 'utf8')
      const kernel = /^linux (.*)$/m.exec(text)![1]!
      if (!readFileSync(this.path(`boot${kernel}`), 'utf8').startsWith('MZ')) {
        throw new Error(`ends in the firmware: ${kernel}`)
      }
      return /init=(\S+)\/init/.exec(text)![1]!
    }
    throw new Error('no boot entry')
  }

  private variablePath = (name: string): string =>
    this.path(`sys/firmware/efi/efivars/${name}-${vendor}`)
  variable(name: string): string {
    const path = this.variablePath(name)
    return existsSync(path)
      ? readFileSync(path).subarray(4).toString('utf16le').replace('\0', '')
      : ''
  }

  async status(): Promise<Status> {
    return JSON.parse(await this.sh('show-boot-status --json')) as Status
  }

  entries = (): string[] => readdirSync(this.path('boot/loader/entries')).toSorted()
  copies = (): string[] => readdirSync(this.path('boot/EFI/golden')).toSorted()

  /** Runs a bash script in the booted host. */
  async sh(script: string, env: Record<string, string> = {}): Promise<string> {
    const id = `00000000-0000-0000-0000-${String(this.boots).padStart(12, '0')}`
    writeFileSync(this.path('model/boot_id'), `${id}\n`)
    return await this.root.sh(`${prelude}\n${script}`, {
      env: { ...settings, PATH: '/usr-local/bin:/usr/sbin:/usr/bin', ...env },
      around: this.around,
    })
  }
}

/** The commands that end the installation of boot entries, taken from the module. */
const extra = module
  .match(/extraInstallCommands = ''\n[^]*?''/g)!
  .map((text) =>
    text
      .split('\n')
      .slice(1, -1)
      .join('\n')
      .replaceAll('${boot}', '/boot')
      .replace('${lib.getExe arm}', 'golden-arm-trial')
      .replace('${lib.getExe unpin}', 'unpin-golden'),
  )
const [turnedOn, turnedOff] = [extra.at(0), extra.at(-1)]

/** None of these mounts affects the machine: they end with the script. */
const prelude = `mount --bind /boot /boot
for name in bootctl systemctl busctl; do mount --bind /model/$name /usr/bin/$name; done
mount --bind /model/boot_id /proc/sys/kernel/random/boot_id
mount --bind /model/panic /proc/sys/kernel/panic
mount --bind /model/cmdline /proc/cmdline
: >/dev/watchdog
mount --bind /dev/null /dev/watchdog`

const bootctl = `#!/bin/bash
[ ! -e /watch/steps ] || echo "bootctl $*" >>/watch/steps
case $1 in
  set-default) name=LoaderEntryDefault ;;
  set-oneshot) name=LoaderEntryOneShot ;;
  *) exit 1 ;;
esac
[ ! -e /model/no-variables ] || { echo "Failed to update EFI variable" >&2; exit 1; }
file=/sys/firmware/efi/efivars/$name-${vendor}
[ -n "$2" ] || { rm -f "$file"; exit 0; }
{ printf '\\x07\\0\\0\\0'; printf '%s' "$2" | sed 's/./&\\n/g' | while read -r c; do printf '%s\\0' "$c"; done; printf '\\0\\0'; } >"$file"
`

const systemctl = `#!/bin/bash
case $* in
  *reboot) touch /model/rebooting; exit ;;
  *is-active*) exit 3 ;;
  *--value*) echo success; echo active; exit ;;
esac
while [[ $1 != -- ]]; do shift; done
shift
first=1
for unit; do
  [[ -n $first ]] || echo
  first=
  state=$(sed -n "s/^$unit //p" /model/units)
  load=loaded
  [[ -n $state ]] || { load=not-found state=inactive; }
  printf '%s\\n' "NRestarts=0" "Id=$unit" "LoadState=$load" "ActiveState=$state" "SubState=running"
done
`

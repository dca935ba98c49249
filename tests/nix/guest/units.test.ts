import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { run } from '../../../lib/run.ts'
import { project } from '../../../lib/settings.ts'
import { expression } from '../evaluate.ts'

interface Rendered {
  files: Record<string, string>
  links: Record<string, string>
  rows: Record<string, string[]>
}

/** Renders the units of a module, without those that every host has. */
async function rendered(module: string): Promise<Rendered> {
  const host = (modules: string): string =>
    `(lab.labSystem { hostname = "x"; host = { networking.hostName = "x"; }; modules = [ ${modules} ]; })`
  return await expression<Rendered>(
    `let
      host = ${host(module)};
      units = import ${project}/nix/lab/guest/units.nix { inherit (host) lib pkgs; hashText = builtins.hashString "md5"; };
      of = h: units.system h.config.systemd;
      plain = of ${host('')};
      new = of host;
      set = xs: builtins.listToAttrs xs;
      fresh = field: removeAttrs (set new.\${field}) (map (x: x.name) plain.\${field});
      row = r: let words = builtins.filter builtins.isString (builtins.split " " r); in { name = builtins.head words; value = builtins.tail words; };
    in {
      files = builtins.mapAttrs (_: builtins.unsafeDiscardStringContext) (fresh "files");
      links = fresh "links";
      rows = removeAttrs (set (map row new.rows)) (map (r: (row r).name) plain.rows);
    }`,
  )
}

const everyUnits = ['coreutils', 'findutils', 'grep', 'sed', 'systemd']
  .map((name) => `/lab/packages/${name}/bin`)
  .join(':')
const path = `Environment="PATH=${everyUnits}"`

test('A service is rendered as NixOS would', async () => {
  const { files, links, rows } = await rendered(`{
    systemd.services.web = {
      description = "A web";
      wantedBy = [ "multi-user.target" ]; requiredBy = [ "other.service" ];
      after = [ "network.target" "b.service" ]; requires = [ "b.service" ];
      startLimitIntervalSec = 0;
      environment.A = "b c";
      serviceConfig = { ExecStart = "/bin/web"; Restart = "always"; PrivateTmp = true; ExecStartPre = [ "/bin/a" "/bin/b" ]; };
    };
  }`)
  expect(files).toEqual({
    'web.service': `[Unit]
Description=A web
After=network.target b.service
Requires=b.service
StartLimitIntervalSec=0

[Service]
Environment="A=b c"
${path}
ExecStart=/bin/web
ExecStartPre=/bin/a
ExecStartPre=/bin/b
PrivateTmp=true
Restart=always
`,
  })
  expect(links).toEqual({
    'multi-user.target.wants/web.service': '../web.service',
    'other.service.requires/web.service': '../web.service',
  })
  expect(rows['web.service']?.slice(2)).toEqual(['stop-start', 'own'])
})

test('A script becomes a program in the store, and startAt a timer', async () => {
  const { files, links } = await rendered(
    '{ systemd.services.job = { script = "echo hi"; startAt = "hourly"; }; }',
  )
  expect(files['job.service']).toMatch(
    /ExecStart=\/nix\/store\/[a-z0-9]{32}-unit-script-job-start \n/,
  )
  expect(files['job.timer']).toBe('[Timer]\nOnCalendar=hourly\n')
  expect(links).toEqual({ 'timers.target.wants/job.timer': '../job.timer' })
})

test('A unit that Debian has is kept and gets a drop-in; a unit that it does not have is created', async () => {
  const { files, rows } = await rendered(`{
    systemd.services.systemd-logind.serviceConfig.KillUserProcesses = true;
    systemd.targets.multi-user.wants = [ "a.service" ];
    systemd.targets.mine.wants = [ "a.service" ];
    systemd.timers.fstrim.timerConfig.Persistent = true;
  }`)
  expect(Object.keys(files).toSorted()).toEqual([
    'fstrim.timer.d/overrides.conf',
    'mine.target',
    'multi-user.target.d/overrides.conf',
    'systemd-logind.service.d/overrides.conf',
  ])
  // PATH is not set for a service that is Debian's
  expect(files['systemd-logind.service.d/overrides.conf']).toBe(
    '[Service]\nKillUserProcesses=true\n',
  )
  expect(rows['fstrim.timer']?.at(-1)).toBe('dropin')
  expect(rows['mine.target']?.slice(2)).toEqual(['none', 'own'])
})

test('A unit that is not enabled is masked', async () => {
  const { files, links, rows } = await rendered(
    '{ systemd.services.off = { enable = false; wantedBy = [ "multi-user.target" ]; script = "true"; }; }',
  )
  expect([files, links]).toEqual([{}, { 'off.service': '/dev/null' }])
  expect(rows['off.service']?.[0]).toBe('masked')
})

test('A change of a description restarts nothing, and a trigger restarts or reloads', async () => {
  const hashes = async (more: string): Promise<string[]> => {
    const { rows } = await rendered(
      `{ systemd.services.a = { serviceConfig.ExecStart = "/bin/a"; ${more} }; }`,
    )
    return rows['a.service']!.slice(0, 2)
  }
  const [restart, reload] = await hashes('')
  expect(await hashes('description = "other"; wantedBy = [ "multi-user.target" ];')).toEqual([
    restart,
    reload,
  ])
  const restarted = await hashes('restartTriggers = [ "new" ];')
  expect(restarted[0]).not.toBe(restart)
  expect(restarted[1]).toBe(reload)
  const reloaded = await hashes('reloadTriggers = [ "new" ];')
  expect(reloaded[0]).toBe(restart)
  expect(reloaded[1]).not.toBe(reload)
})

test('The action on a change follows NixOS’s flags', async () => {
  const policy = async (flags: string, column = 2): Promise<string> => {
    const { rows } = await rendered(
      `{ systemd.services.a = { serviceConfig.ExecStart = "/bin/a"; ${flags} }; }`,
    )
    return rows['a.service']![column]!
  }
  expect(await policy('restartIfChanged = false;')).toBe('none')
  expect(await policy('reloadIfChanged = true;')).toBe('reload')
  expect(await policy('stopIfChanged = false;')).toBe('restart')
  expect(await policy('unitConfig.RefuseManualStop = true;')).toBe('none')
  // if the new system no longer has the unit
  expect(await policy('unitConfig.X-StopOnRemoval = false;', 3)).toBe('stays')
})

test('A mount is named by its path', async () => {
  const { files } = await rendered(
    '{ systemd.mounts = [ { what = "tmpfs"; where = "/srv/my-data"; type = "tmpfs"; wantedBy = [ "local-fs.target" ]; } ]; }',
  )
  expect(files['srv-my\\x2ddata.mount']).toBe(
    '[Mount]\nType=tmpfs\nWhat=tmpfs\nWhere=/srv/my-data\n',
  )
})

test("The guest's shell programs pass shellcheck", async () => {
  for (const dir of ['guest', 'image']) {
    const at = join(project, 'nix/lab', dir)
    const scripts = readdirSync(at).filter((name) => name.endsWith('.sh') || name === 'init')
    expect(scripts.length).toBeGreaterThan(1)
    await run(
      'shellcheck',
      scripts.map((name) => join(at, name)),
    )
  }
})

# The guest's system as one tree, shaped like NixOS's toplevel: kernel, initrd, kernel-params, init,
# activate, etc, sw, bin/switch-to-configuration. One derivation writes nearly all of it with shell
# built-ins, because a rebuild in an emulated guest pays for every process and every derivation.
{
  lib,
  pkgs,
  config,
}:
let
  inherit (lib)
    attrValues
    concatMap
    concatMapStringsSep
    concatStringsSep
    escapeShellArg
    filter
    filterAttrs
    mapAttrsToList
    optional
    optionalString
    unique
    ;
  inherit (builtins) baseNameOf dirOf readFile;

  hashText =
    text: lib.substring 0 16 (builtins.hashString "sha256" (builtins.unsafeDiscardStringContext text));
  units = import ./guest/units.nix { inherit lib pkgs hashText; };
  system = units.system config.systemd;
  user = units.user config.systemd.user;

  # The image's own kernel and first stage, copied from a fixed path at build time. In the guest they are
  # real files, on the host they are mounted into the sandbox, so the store path is the same on both and
  # evaluation is pure.
  bootFile =
    name:
    derivation {
      inherit name;
      inherit (pkgs) system;
      builder = "/bin/sh";
      allowSubstitutes = false;
      args = [
        "-euc"
        "cat /lab/boot/${name} > \"$out\""
      ];
      PATH = "/bin:/usr/bin";
    };
  kernel = if config.lab.guest.kernel != null then config.lab.guest.kernel else bootFile "kernel";
  initrd = if config.lab.guest.initrd != null then config.lab.guest.initrd else bootFile "initrd";

  etc = attrValues (filterAttrs (_: e: e.enable) config.environment.etc);
  inline = e: e.text != null;
  copied = filter (e: e.mode != "symlink") etc;

  # name -> content, all below $out
  texts =
    map (e: {
      name = "etc/${e.target}";
      value = e.text;
    }) (filter inline etc)
    ++ map (f: f // { name = "etc/systemd/system/${f.name}"; }) system.files
    ++ map (f: f // { name = "etc/systemd/user/${f.name}"; }) user.files
    ++ [
      {
        name = "kernel-params";
        value = toString (unique (config.boot.kernelParams ++ config.lab.guest.kernelParams)) + "\n";
      }
      {
        name = "nixos-version";
        value = "${config.system.nixos.label}\n";
      }
      {
        name = "configuration-limit";
        value = "${toString (if limit == null then 0 else limit)}\n";
      }
      # files to install in /etc: table/etc as links into the generation, table/copies as copies with owner and mode
      {
        name = "table/etc";
        value = lib.concatLines (
          map (e: e.target) (filter (e: e.mode == "symlink") etc)
          ++ [
            "systemd/system"
            "systemd/user"
          ]
        );
      }
      {
        name = "table/copies";
        value = lib.concatLines (map (e: "${e.mode} ${e.user} ${e.group} ${e.target}") copied);
      }
      # <unit> <hash> <hash of reload triggers> <action on a change> <own|dropin|stays>
      {
        name = "table/units";
        value = lib.concatLines system.rows;
      }
      # hash of everything that systemd reads: while it is unchanged, no daemon-reload is needed
      {
        name = "table/systemd";
        value =
          hashText (
            builtins.toJSON [
              system.files
              system.links
              config.environment.etc."systemd/system.conf".text
            ]
          )
          + "\n";
      }
      {
        name = "table/users";
        value = lib.concatLines (map userRow people);
      }
      {
        name = "table/groups";
        value = lib.concatLines groupRows;
      }
    ];
  installed = config.boot.loader.systemd-boot.extraInstallCommands;
  limit = config.boot.loader.systemd-boot.configurationLimit;
  scripts = [
    {
      name = "init";
      value = readFile ./guest/init.sh;
    }
    {
      name = "activate";
      value = readFile ./guest/activate.sh;
    }
    {
      name = "programs";
      value = readFile ./image/programs.sh;
    }
    {
      name = "bin/switch-to-configuration";
      value = readFile ./guest/switch-to-configuration.sh;
    }
    {
      name = "bin/install-boot-entries";
      value = readFile ./guest/install-boot-entries.sh;
    }
    {
      name = "sw/bin/nixos-rebuild";
      value = readFile ./guest/nixos-rebuild.sh;
    }
  ]
  ++ optional (config.system.activationScripts != { }) {
    name = "activation-snippets";
    value = snippets;
  }
  ++ optional (installed != "") {
    name = "extra-install-commands";
    value = "#!/usr/bin/bash\nset -euo pipefail\n${installed}";
  }
  ++ optional (config.system.preSwitchChecks != { }) {
    name = "pre-switch-checks";
    value = checks;
  };
  links =
    map (e: {
      name = "etc/${e.target}";
      value = "${e.source}";
    }) (filter (e: !inline e) etc)
    ++ map (l: l // { name = "etc/systemd/system/${l.name}"; }) system.links
    ++ map (l: l // { name = "etc/systemd/user/${l.name}"; }) user.links
    ++ [
      {
        name = "kernel";
        value = "${kernel}";
      }
      {
        name = "initrd";
        value = "${initrd}";
      }
    ];

  # one `ln` for all links of a directory that have the same name as their target
  link =
    place: group: "ln -s ${lib.escapeShellArgs (map (l: l.value) group)} ${escapeShellArg place}";

  people = filter (u: u.enable && (u.isNormalUser || u.isSystemUser)) (attrValues config.users.users);
  orDash = v: if v == null || v == "" then "-" else toString v;
  shell =
    u:
    if u.shell == null then
      "/usr/sbin/nologin"
    else if lib.isAttrs u.shell then
      "${if u.shell ? debian then "/usr" else u.shell}${u.shell.shellPath or "/bin/bash"}"
    else
      "${u.shell}";
  userRow =
    u:
    concatStringsSep " " [
      u.name
      (orDash u.uid)
      (if u.isSystemUser then "system" else "normal")
      (orDash u.group)
      (orDash (concatStringsSep "," u.extraGroups))
      u.home
      (if u.createHome then "home" else "nohome")
      (shell u)
      (orDash (if u.hashedPassword != null then u.hashedPassword else u.initialHashedPassword))
    ];
  groupRows =
    mapAttrsToList (name: g: "${name} ${orDash (g.gid or null)}") config.users.groups
    ++ map (name: "${name} -") (
      unique (concatMap (u: optional (u.group != "") u.group ++ u.extraGroups) people)
    );

  # As on NixOS, a failing snippet is reported by name and the others still run.
  snippetText = s: if lib.isString s then s else s.text;
  snippetDeps = s: if lib.isString s then [ ] else s.deps;
  ordered = lib.toposort (a: b: lib.elem a.name (snippetDeps b.snippet)) (
    mapAttrsToList (name: snippet: { inherit name snippet; }) config.system.activationScripts
  );
  snippets = ''
    #!/usr/bin/bash
    systemConfig=''${0%/*}
    failed=0
  ''
  + concatMapStringsSep "\n" (s: ''
    (
    ${snippetText s.snippet}
    ) || { echo "Activation script snippet '${s.name}' failed ($?)" >&2; failed=1; }
  '') (ordered.result or (throw "Activation scripts depend on each other in a circle"));
  checks = ''
    #!/usr/bin/bash
    # $1 is the generation to switch to, $2 the action
  ''
  + concatStringsSep "\n" (
    mapAttrsToList (name: text: ''
      ( set -e
      ${text}
      ) || { echo "Pre-switch check '${name}' failed" >&2; exit 1; }
    '') config.system.preSwitchChecks
  );

  commands = unique (
    map toString (
      filter (p: !(p ? meta.unavailable || p ? debian)) (
        config.environment.systemPackages ++ concatMap (u: u.packages) people
      )
    )
  );

  directories = unique (
    [
      "etc/systemd/system"
      "etc/systemd/user"
      "sw/bin"
    ]
    ++ map (f: dirOf f.name) (texts ++ scripts ++ links)
  );
  build = ''
    mkdir "$out"
    cd "$out"
    mkdir -p ${toString (map escapeShellArg directories)}
    ${concatMapStringsSep "\n" (f: "printf %s ${escapeShellArg f.value} > ${escapeShellArg f.name}") (
      texts ++ scripts
    )}
    chmod 755 ${toString (map (s: escapeShellArg s.name) scripts)}
    ${concatStringsSep "\n" (
      mapAttrsToList link (
        lib.groupBy (l: if baseNameOf l.name == baseNameOf l.value then dirOf l.name else l.name) links
      )
    )}
    for package in ${toString commands}; do
      for file in "$package"/bin/*; do
        # the first package with a name wins, as on PATH
        if [ -e "$file" ] && [ ! -e "sw/bin/''${file##*/}" ]; then ln -s "$file" sw/bin/; fi
      done
    done
  '';
in
derivation {
  name = "nixos-system-${config.system.name}-${config.system.nixos.label}";
  inherit (pkgs) system;
  builder = "/bin/sh";
  # as on NixOS: the guest builds it itself
  allowSubstitutes = false;
  # passed as a file, because an argument may not be longer than 128 KiB
  passAsFile = [ "build" ];
  inherit build;
  args = [
    "-euc"
    ". \"$buildPath\""
  ];
  PATH = "/bin:/usr/bin";
}

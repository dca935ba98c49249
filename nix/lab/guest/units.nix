# Turns NixOS unit options into files and links for /etc/systemd/{system,user}, and into the table that
# switch-to-configuration compares. Settings keep NixOS's meaning (nixos/lib/systemd-lib.nix).
{
  lib,
  pkgs,
  hashText,
}:
let
  inherit (lib)
    concatLists
    concatMap
    concatMapStringsSep
    concatStringsSep
    elem
    filterAttrs
    hasPrefix
    mapAttrsToList
    nameValuePair
    optional
    optionalAttrs
    optionalString
    toList
    unique
    ;

  show =
    v:
    if v == true then
      "true"
    else if v == false then
      "false"
    else
      "${toString v}";
  lines =
    set:
    concatLists (
      mapAttrsToList (key: v: map (v: "${key}=${show v}") (toList v)) (filterAttrs (_: v: v != null) set)
    );
  section =
    name: settings: optionalString (settings != [ ]) "[${name}]\n${concatStringsSep "\n" settings}\n";

  # Targets that systemd itself provides (systemd.special(7)): a host's settings for them become drop-ins.
  ownTargets = map (n: "${n}.target") [
    "basic"
    "bluetooth"
    "boot-complete"
    "cryptsetup"
    "ctrl-alt-del"
    "default"
    "emergency"
    "exit"
    "final"
    "first-boot-complete"
    "getty"
    "getty-pre"
    "graphical"
    "halt"
    "hibernate"
    "initrd"
    "integritysetup"
    "kexec"
    "local-fs"
    "local-fs-pre"
    "machines"
    "multi-user"
    "network"
    "network-online"
    "network-pre"
    "nss-lookup"
    "nss-user-lookup"
    "paths"
    "poweroff"
    "printer"
    "reboot"
    "remote-fs"
    "remote-fs-pre"
    "rescue"
    "rpcbind"
    "shutdown"
    "sigpwr"
    "sleep"
    "slices"
    "smartcard"
    "sockets"
    "sound"
    "suspend"
    "swap"
    "sysinit"
    "system-update"
    "time-set"
    "time-sync"
    "timers"
    "umount"
    "usb-gadget"
    "veritysetup"
  ];
  mainKeys = {
    socket = [ "Listen" ];
    timer = [ "On" ];
    path = [
      "Path"
      "Directory"
    ];
  };
  hasKey =
    settings: prefixes:
    lib.any (key: lib.any (p: hasPrefix p key) prefixes) (builtins.attrNames settings);

  # A unit that is incomplete by itself becomes a drop-in for Debian's own unit of that name.
  isDropin =
    kind: name: unit:
    unit.overrideStrategy or "" == "asDropin"
    || (
      if kind == "target" then
        elem name ownTargets
      else if kind == "service" then
        !hasKey unit.serviceConfig [
          "ExecStart"
          "SuccessAction"
        ]
        && unit.serviceConfig.Type or "" != "oneshot"
      else
        mainKeys ? ${kind} && !hasKey unit."${kind}Config" mainKeys.${kind}
    );

  dependencies = {
    requires = "Requires";
    wants = "Wants";
    upholds = "Upholds";
    after = "After";
    before = "Before";
    bindsTo = "BindsTo";
    partOf = "PartOf";
    conflicts = "Conflicts";
    requisite = "Requisite";
    onFailure = "OnFailure";
    onSuccess = "OnSuccess";
  };
  words =
    unit:
    optional (unit.description or "" != "") "Description=${unit.description}"
    ++ optional (unit.documentation or [ ] != [ ]) "Documentation=${toString unit.documentation}";
  unitLines =
    unit:
    concatLists (
      mapAttrsToList (
        name: key:
        optional (unit.${name} or [ ] != [ ]) "${key}=${concatStringsSep " " (unique unit.${name})}"
      ) dependencies
    )
    ++ optional (
      unit.startLimitBurst or null != null
    ) "StartLimitBurst=${toString unit.startLimitBurst}"
    ++ optional (
      unit.startLimitIntervalSec or null != null
    ) "StartLimitIntervalSec=${toString unit.startLimitIntervalSec}"
    ++ lines (unit.unitConfig or { });

  # As on NixOS, a unit's PATH holds its `path` and these packages. /run/current-system/sw stands for all of Debian.
  everyUnits = [
    pkgs.coreutils
    pkgs.findutils
    pkgs.gnugrep
    pkgs.gnused
    pkgs.systemd
  ];
  folder = p: if "${p}" == "/run/current-system/sw" then import ./path.nix else "${p}/bin";
  quote = s: builtins.toJSON (builtins.replaceStrings [ "%" ] [ "%%" ] s);
  serviceLines =
    unit: dropin:
    let
      path = concatStringsSep ":" (unique (map folder (unit.path ++ everyUnits)));
      # a drop-in without `path` must not change the PATH of Debian's own unit
      environment =
        optionalAttrs (!dropin || unit.path != [ ]) { PATH = path; }
        // filterAttrs (_: v: v != null) unit.environment;
    in
    mapAttrsToList (k: v: "Environment=${quote "${k}=${v}"}") environment ++ lines unit.serviceConfig;

  policy =
    kind: unit:
    let
      flag = unit.unitConfig.RefuseManualStop or false;
    in
    if
      elem kind [
        "target"
        "slice"
      ]
      || flag == true
      || flag == "true"
    then
      "none"
    else if kind != "service" then
      "restart"
    else if unit.reloadIfChanged then
      "reload"
    else if !unit.restartIfChanged then
      "none"
    else if !unit.stopIfChanged || unit.unitConfig.RefuseManualStart or false == true then
      "restart"
    else
      "stop-start";

  # True if a switch leaves the unit running even when the new system no longer has it.
  staysOnRemoval =
    unit:
    elem (unit.unitConfig.X-StopOnRemoval or true) [
      false
      "false"
      "no"
    ];

  # One unit -> { files; links; row; }.
  render =
    kind: id: unit:
    let
      name = "${id}.${kind}";
      dropin = isDropin kind name unit;
      config =
        if kind == "service" then serviceLines unit dropin else lines (unit."${kind}Config" or { });
      text =
        about:
        concatStringsSep "\n" (
          lib.remove "" [
            (section "Unit" (about ++ unitLines unit))
            (section (capital kind) config)
          ]
        );
      # hashed without description and documentation, so that changing those never restarts a service
      body = text [ ];
      triggers = concatMapStringsSep "\n" (
        t:
        "${if lib.isAttrs t || builtins.isPath t || builtins.isString t then "${t}" else builtins.toJSON t}"
      );
      restart = hashText (body + triggers (unit.restartTriggers or [ ]));
      reload = hashText (triggers (unit.reloadTriggers or [ ]));
      asks = folder: map (target: nameValuePair "${target}.${folder}/${name}" "../${name}");
      file = if dropin then "${name}.d/overrides.conf" else name;
      masked = !(unit.enable or true);
    in
    {
      files = optional (!masked) (nameValuePair file (text (words unit)));
      links =
        if masked then
          [ (nameValuePair name "/dev/null") ]
        else
          asks "wants" (unit.wantedBy or [ ])
          ++ asks "requires" (unit.requiredBy or [ ])
          ++ asks "upholds" (unit.upheldBy or [ ])
          ++ map (alias: nameValuePair alias name) (unit.aliases or [ ]);
      row = concatStringsSep " " (
        if masked then
          [
            name
            "masked"
            "-"
            "none"
            "own"
          ]
        else
          [
            name
            restart
            reload
            (policy kind unit)
            (if dropin then "dropin" else if staysOnRemoval unit then "stays" else "own")
          ]
      );
    };
  capital = kind: lib.toUpper (lib.substring 0 1 kind) + lib.substring 1 20 kind;

  # A mount unit is named by the path that it mounts on.
  escapePath =
    path:
    let
      trimmed = lib.removeSuffix "/" (lib.removePrefix "/" path);
      safe = c: builtins.match "[a-zA-Z0-9:_.]" c != null;
      char =
        c:
        if c == "/" then
          "-"
        else if safe c then
          c
        else if c == "-" then
          "\\x2d"
        else if c == " " then
          "\\x20"
        else
          c;
    in
    if trimmed == "" then "-" else lib.concatStrings (map char (lib.stringToCharacters trimmed));
  mount =
    m:
    nameValuePair (escapePath m.where) (
      m
      // {
        mountConfig = {
          What = m.what;
          Where = m.where;
        }
        // optionalAttrs (m ? type) { Type = m.type; }
        // optionalAttrs (m ? options) { Options = m.options; }
        // m.mountConfig or { };
      }
    );
in
{
  # The `systemd` option set -> { files; links; rows; }, with names relative to /etc/systemd/system.
  system =
    systemd:
    let
      all = concatLists (
        mapAttrsToList (kind: set: mapAttrsToList (render kind) set) {
          service = systemd.services;
          target = systemd.targets;
          socket = systemd.sockets;
          timer = systemd.timers;
          path = systemd.paths;
          slice = systemd.slices;
          mount = lib.listToAttrs (map mount systemd.mounts);
        }
      );
    in
    {
      files = concatMap (u: u.files) all;
      links = concatMap (u: u.links) all;
      rows = map (u: u.row) all;
    };

  user =
    user:
    let
      all = concatLists (
        mapAttrsToList (kind: set: mapAttrsToList (render kind) set) {
          service = user.services;
          timer = user.timers;
          socket = user.sockets;
        }
      );
    in
    {
      files = concatMap (u: u.files) all;
      links = concatMap (u: u.links) all;
    };
}

# The NixOS options that the lab's guest implements or that modules here read, declared with NixOS's names,
# types and defaults. An option that is not declared here is accepted too (see types.shape), but has no
# default: declare it here as soon as something reads it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    mkEnableOption
    mkIf
    mkMerge
    mkOption
    types
    ;

  opt = type: default: mkOption { inherit type default; };
  optNoDefault = type: mkOption { inherit type; };
  yes = opt types.bool true;
  no = opt types.bool false;
  list = opt (types.listOf types.str) [ ];
  text = opt types.lines "";
  # A list of names, or a set of booleans so that a name can be removed again; read as a sorted list.
  namesOrBools = types.coercedTo (types.listOf types.str) (names: lib.genAttrs names (_: true)) (
    types.attrsOf types.bool
  );
  nameSet = mkOption {
    type = namesOrBools;
    default = { };
    apply = set: lib.attrNames (lib.filterAttrs (_: on: on) set);
  };
  open =
    options:
    opt (types.submodule {
      freeformType = types.shape;
      inherit options;
    }) { };
  many = module: opt (types.attrsOf (types.submodule module)) { };
  openMany =
    options:
    many {
      freeformType = types.shape;
      inherit options;
    };

  # A unit setting: if any definition is a list, all are joined as lists; otherwise all must agree
  # (nixos/lib/systemd-unit-options.nix).
  unitSetting = lib.mkOptionType {
    name = "systemd option";
    merge =
      loc: defs:
      if lib.any (d: lib.isList d.value) defs then
        lib.concatMap (d: lib.toList d.value) defs
      else
        types.mergeEqual loc defs;
  };
  section = opt (types.attrsOf unitSetting) { };

  unit = {
    enable = yes;
    description = opt types.singleLineStr "";
    overrideStrategy = opt (types.enum [
      "asDropinIfExists"
      "asDropin"
    ]) "asDropinIfExists";
    # no default on NixOS; null here, so that all settings of a unit can be read
    startLimitBurst = opt (types.nullOr types.int) null;
    startLimitIntervalSec = opt (types.nullOr types.int) null;
    unitConfig = section;
  }
  // lib.genAttrs [
    "documentation"
    "requires"
    "wants"
    "upholds"
    "after"
    "before"
    "bindsTo"
    "partOf"
    "conflicts"
    "requisite"
    "onFailure"
    "onSuccess"
    "requiredBy"
    "upheldBy"
    "wantedBy"
    "aliases"
  ] (_: list)
  // {
    restartTriggers = opt (types.listOf types.unspecified) [ ];
    reloadTriggers = opt (types.listOf unitSetting) [ ];
  };
  units = sections: many { options = unit // lib.genAttrs sections (_: section); };

  # As on NixOS, `script`, `preStart` and so on become Exec settings, so that only serviceConfig is rendered.
  service =
    { name, config, ... }:
    let
      job = suffix: text: pkgs.writeShellScript "unit-script-${name}-${suffix}" "set -e\n\n${text}";
    in
    {
      options =
        unit
        // {
          environment = opt (types.attrsOf (
            types.nullOr (
              types.oneOf [
                types.str
                types.path
                types.package
              ]
            )
          )) { };
          path = opt (types.listOf (
            types.oneOf [
              types.package
              types.str
            ]
          )) [ ];
          enableDefaultPath = yes;
          serviceConfig = section;
          scriptArgs = opt types.str "";
          restartIfChanged = yes;
          reloadIfChanged = no;
          stopIfChanged = yes;
          notSocketActivated = no;
          startAt = opt (types.either types.str (types.listOf types.str)) [ ] // {
            apply = lib.toList;
          };
        }
        // lib.genAttrs [ "script" "preStart" "postStart" "reload" "preStop" "postStop" ] (_: text);

      config.serviceConfig = mkMerge [
        (mkIf (config.preStart != "") { ExecStartPre = [ "${job "pre-start" config.preStart}" ]; })
        (mkIf (config.script != "") {
          ExecStart = "${job "start" config.script} ${config.scriptArgs}";
        })
        (mkIf (config.postStart != "") { ExecStartPost = [ "${job "post-start" config.postStart}" ]; })
        (mkIf (config.reload != "") { ExecReload = "${job "reload" config.reload}"; })
        (mkIf (config.preStop != "") { ExecStop = "${job "pre-stop" config.preStop}"; })
        (mkIf (config.postStop != "") { ExecStopPost = "${job "post-stop" config.postStop}"; })
      ];
    };
  services = many service;

  user =
    { name, config, ... }:
    {
      freeformType = types.shape;
      options = {
        name = opt types.str name;
        enable = yes;
        isNormalUser = no;
        isSystemUser = no;
        uid = opt (types.nullOr types.int) null;
        group = opt types.str "";
        extraGroups = list;
        home = opt types.path "/var/empty";
        createHome = no;
        description = opt types.str "";
        shell = opt (types.nullOr (types.either types.shellPackage types.path)) pkgs.bash;
        linger = opt (types.nullOr types.bool) null;
        password = opt (types.nullOr types.str) null;
        hashedPassword = opt (types.nullOr types.str) null;
        hashedPasswordFile = opt (types.nullOr types.str) null;
        initialPassword = opt (types.nullOr types.str) null;
        initialHashedPassword = opt (types.nullOr types.str) null;
        packages = opt (types.listOf types.package) [ ];
        openssh.authorizedKeys.keys = list;
        openssh.authorizedKeys.keyFiles = opt (types.listOf types.path) [ ];
      };
      config = mkIf config.isNormalUser {
        group = lib.mkDefault "users";
        home = lib.mkDefault "/home/${config.name}";
        createHome = lib.mkDefault true;
      };
    };

  etc =
    { name, config, ... }:
    {
      options = {
        enable = yes;
        target = opt types.str name;
        text = opt (types.nullOr types.lines) null;
        source = optNoDefault types.path;
        mode = opt types.str "symlink";
        user = opt types.str "+${toString config.uid}";
        group = opt types.str "+${toString config.gid}";
        uid = opt types.int 0;
        gid = opt types.int 0;
      };
      config.source = mkIf (config.text != null) (
        lib.mkOverride 1500 (pkgs.writeText "etc-${baseNameOf name}" config.text)
      );
    };

  activationScript = types.coercedTo types.str lib.id (
    types.either types.lines (
      types.submodule {
        options = {
          deps = list;
          text = text;
          supportsDryActivation = no;
        };
      }
    )
  );
in
{
  options = {
    assertions = opt (types.listOf types.unspecified) [ ];
    warnings = list;
    meta = opt types.unspecified { };

    boot = {
      extraModulePackages = opt (types.listOf types.package) [ ];
      initrd = {
        availableKernelModules = nameSet;
        kernelModules = nameSet;
        systemd.enable = yes;
      };
      kernel.sysctl = opt (types.attrsOf (
        types.nullOr (
          types.oneOf [
            types.bool
            types.int
            types.str
          ]
        )
      )) { };
      kernelModules = nameSet;
      kernelParams = list;
      blacklistedKernelModules = nameSet;
      supportedFilesystems = opt namesOrBools { };
      loader = {
        timeout = opt (types.nullOr types.int) 5;
        efi.canTouchEfiVariables = no;
        efi.efiSysMountPoint = opt types.str "/boot";
        grub.enable = no;
        systemd-boot.enable = no;
        systemd-boot.configurationLimit = opt (types.nullOr types.int) null;
        systemd-boot.editor = yes;
        systemd-boot.extraInstallCommands = text;
      };
    };

    environment = {
      etc = many etc;
      pathsToLink = list;
      sessionVariables = opt (types.attrsOf types.anything) { };
      shellAliases = opt (types.attrsOf (types.nullOr types.str)) { };
      systemPackages = opt (types.listOf types.package) [ ];
      variables = opt (types.attrsOf types.anything) { };
    };

    fileSystems = openMany {
      device = opt (types.nullOr types.nonEmptyStr) null;
      fsType = opt types.nonEmptyStr "auto";
      options = opt (types.nonEmptyListOf types.str) [ "defaults" ];
      label = opt (types.nullOr types.nonEmptyStr) null;
      neededForBoot = no;
    };
    swapDevices = opt (types.listOf types.attrs) [ ];

    i18n.defaultLocale = opt types.str "en_US.UTF-8";
    time.timeZone = opt (types.nullOr types.str) null;

    networking = {
      hostName = opt (types.strMatching "^$|^[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?$") "nixos";
      hostId = opt (types.nullOr types.str) null;
      domain = opt (types.nullOr types.str) null;
      hosts = opt (types.attrsOf (types.listOf types.str)) { };
      extraHosts = text;
      nameservers = list;
      useDHCP = yes;
      useNetworkd = no;
      dhcpcd.enable = yes;
      networkmanager.enable = no;
      firewall.enable = yes;
      firewall.allowedTCPPorts = opt (types.listOf types.port) [ ];
      firewall.allowedUDPPorts = opt (types.listOf types.port) [ ];
      firewall.trustedInterfaces = list;
      firewall.interfaces = opt (types.attrsOf types.attrs) { };
      # a VM can reach no proxy, and everything that it fetches is on the lab's own networks
      proxy =
        lib.genAttrs [
          "allProxy"
          "default"
          "ftpProxy"
          "httpProxy"
          "httpsProxy"
          "noProxy"
          "rsyncProxy"
        ] (_: opt (types.nullOr types.str) null)
        // {
          envVars = opt (types.attrsOf types.str) { };
        };
    };

    nix = {
      enable = yes;
      envVars = opt (types.attrsOf types.str) { };
      extraOptions = text;
      settings = open { };
      gc.automatic = no;
      gc.dates = opt types.str "03:15";
      gc.options = opt types.str "";
    };
    nixpkgs = {
      config = opt types.attrs { };
      hostPlatform = opt (types.either types.str types.attrs) pkgs.system;
      overlays = opt (types.listOf types.raw) [ ];
    };

    programs = {
      atuin.enable = mkEnableOption "atuin";
      atuin.enableBashIntegration = yes;
      atuin.settings = opt (types.attrsOf types.anything) { };
      bash.interactiveShellInit = text;
      git.enable = mkEnableOption "git";
      git.config = opt (types.attrsOf types.anything) { };
      ssh.extraConfig = text;
      ssh.knownHosts = openMany { };
      ssh.startAgent = no;
    };

    security = {
      polkit.enable = no;
      sudo.enable = yes;
      sudo.wheelNeedsPassword = yes;
      sudo.extraConfig = text;
    };

    services = {
      openssh = {
        enable = no;
        ports = opt (types.listOf types.port) [ 22 ];
        openFirewall = yes;
        startWhenNeeded = no;
        authorizedKeysFiles = list;
        extraConfig = text;
        settings = open {
          PasswordAuthentication = yes;
          KbdInteractiveAuthentication = yes;
          PermitRootLogin = opt (types.nullOr (
            types.enum [
              "yes"
              "without-password"
              "prohibit-password"
              "forced-commands-only"
              "no"
            ]
          )) "prohibit-password";
        };
      };
      qemuGuest.enable = mkEnableOption "the qemu guest agent";
      spice-vdagentd.enable = mkEnableOption "Spice guest vdagent daemon";
      syncthing = {
        enable = mkEnableOption "Syncthing";
        user = opt types.str "syncthing";
        group = opt types.str "syncthing";
        guiAddress = opt types.str "127.0.0.1:8384";
        dataDir = opt types.path "/var/lib/syncthing";
        configDir = opt types.path "${config.services.syncthing.dataDir}/.config/syncthing";
        databaseDir = opt types.path config.services.syncthing.configDir;
        openDefaultPorts = no;
        systemService = yes;
        overrideDevices = yes;
        overrideFolders = yes;
        extraFlags = list;
        settings = open { };
      };
      tailscale.enable = mkEnableOption "Tailscale client daemon";
      tailscale.openFirewall = no;
      tailscale.useRoutingFeatures = opt (types.enum [
        "none"
        "client"
        "server"
        "both"
      ]) "none";
      xserver.enable = no;
      displayManager.enable = no;
      timesyncd.enable = yes;
    };

    system = {
      activationScripts = opt (types.attrsOf activationScript) { };
      build = opt (types.lazyAttrsOf types.unspecified) { };
      configurationRevision = opt (types.nullOr types.str) null;
      name = opt types.str config.networking.hostName;
      nixos.label = opt types.str "lab";
      nixos.tags = list;
      preSwitchChecks = opt (types.attrsOf types.str) { };
      stateVersion = opt types.str "26.05";
    };

    systemd = {
      inherit services;
      mounts = opt (types.listOf types.attrs) [ ];
      paths = units [ "pathConfig" ];
      sockets = units [ "socketConfig" ];
      targets = units [ ];
      timers = units [ "timerConfig" ];
      slices = units [ "sliceConfig" ];
      network = open {
        enable = no;
        links = openMany { };
        networks = openMany { };
        netdevs = openMany { };
      };
      settings.Manager = opt (types.attrsOf types.unspecified) { };
      tmpfiles.rules = list;
      tmpfiles.settings = opt (types.attrsOf (types.attrsOf types.attrs)) { };
      user = {
        inherit services;
        timers = units [ "timerConfig" ];
        sockets = units [ "socketConfig" ];
      };
    };

    users = {
      mutableUsers = yes;
      users = many user;
      groups = openMany {
        gid = opt (types.nullOr types.int) null;
        members = list;
      };
      defaultUserShell = opt (types.either types.path types.shellPackage) pkgs.bash;
    };
  };

  config = {
    # NixOS turns `startAt` into a timer of the same name
    systemd.timers = lib.mapAttrs (_: s: {
      wantedBy = [ "timers.target" ];
      timerConfig.OnCalendar = s.startAt;
    }) (lib.filterAttrs (_: s: s.enable && s.startAt != [ ]) config.systemd.services);
    users.users.root = {
      uid = 0;
      home = lib.mkDefault "/root";
      group = lib.mkDefault "root";
    };
  };
}

# The lab's `pkgs`: names for what the Debian image carries, and the few builders that modules use.
#
# A package here is a set that looks like a derivation. Its outPath is a directory of the image with links to
# its programs (image/programs.sh): "${pkgs.git}/bin/git" is /usr/bin/git, and a unit with only git on its
# PATH finds nothing else.
#
# Builders use only a POSIX shell and cp, mkdir, ln, chmod, cat and rm, because the host's sandbox holds only
# busybox; this gives a derivation the same store path on the host and in the guest.
{
  lib,
  system ? "x86_64-linux",
}:
let
  inherit (lib)
    concatMapStringsSep
    escapeShellArg
    filter
    genAttrs
    hasPrefix
    mapAttrs
    optionalString
    unique
    ;
  inherit (lib) types;

  # The packages in the image: its list, and those that are essential to any Debian.
  carried =
    filter (line: lib.isString line && !lib.hasPrefix "#" line) (
      builtins.split "\n" (builtins.readFile ./image/packages)
    )
    ++ [
      "bash"
      "coreutils"
      "dash"
      "diffutils"
      "findutils"
      "grep"
      "gzip"
      "hostname"
      "sed"
      "tar"
      "util-linux"
    ];

  debianPackage =
    pname:
    {
      debian ? pname,
      mainProgram ? pname,
    }:
    if !lib.elem debian carried then
      unavailable pname "the image does not carry Debian's `${debian}`"
    else
      {
        type = "derivation";
        name = pname;
        inherit pname debian system;
        outPath = "/lab/packages/${debian}";
        outputName = "out";
        meta = {
          inherit mainProgram;
          description = "Debian package ${debian}";
        };
      };

  # Throws only when its path is used, so that it can be listed as a package and reported as unavailable.
  unavailable = pname: reason: {
    type = "derivation";
    name = pname;
    inherit pname system;
    outPath = throw "Package `${pname}` cannot be used in the lab: ${reason}";
    outputName = "out";
    meta = {
      mainProgram = pname;
      unavailable = reason;
    };
  };

  # runCommand: the environment variables are as in nixpkgs, but `build` is POSIX sh.
  run =
    name: env: build:
    derivation (
      env
      // {
        inherit name system;
        builder = "/bin/sh";
        # building is faster than asking a cache
        allowSubstitutes = false;
        args = [
          "-euc"
          build
        ];
        PATH = "/bin:/usr/bin";
      }
    )
    // {
      meta = env.meta or { };
    };

  # `text` is passed as a file, because an environment variable may not be longer than 128 KiB.
  writeTextFile =
    {
      name,
      text,
      executable ? false,
      destination ? "",
      meta ? { },
      checkPhase ? "",
    }:
    run name
      {
        inherit text;
        passAsFile = [ "text" ];
      }
      ''
        file=$out${escapeShellArg destination}
        mkdir -p "''${file%/*}"
        cat "$textPath" > "$file"
        ${optionalString executable ''chmod 0755 "$file"''}
      ''
    // {
      inherit meta;
    };
  shebang = "#!${runtimeShell}";
  runtimeShell = "/usr/bin/bash";

  # Links every file of `paths`, except Debian's packages, which the host that builds this does not have.
  symlinkJoin =
    args@{
      name,
      paths,
      postBuild ? "",
      ...
    }:
    run name { paths = filter (p: !(p ? debian)) paths; } ''
      join() {
        mkdir -p "$2"
        for f in "$1"/* "$1"/.[!.]*; do
          if [ -d "$f" ] && [ ! -L "$f" ]; then join "$f" "$2/''${f##*/}"
          elif [ -e "$f" ] || [ -L "$f" ]; then ln -sf "$f" "$2/''${f##*/}"
          fi
        done
      }
      mkdir -p "$out"
      for p in $paths; do join "$p" "$out"; done
      ${postBuild}
    ''
    // {
      meta = args.meta or { };
    };

  # nixpkgs name -> Debian package and main program, where either differs from the name
  renamed = {
    busybox = {
      debian = "busybox-static";
    };
    coreutils = {
      mainProgram = "ls";
    };
    gnugrep = {
      debian = "grep";
      mainProgram = "grep";
    };
    gnused = {
      debian = "sed";
      mainProgram = "sed";
    };
    gnutar = {
      debian = "tar";
      mainProgram = "tar";
    };
    gnumake = {
      debian = "make";
      mainProgram = "make";
    };
    findutils = {
      mainProgram = "find";
    };
    diffutils = {
      mainProgram = "diff";
    };
    util-linux = {
      mainProgram = "mount";
    };
    procps = {
      mainProgram = "ps";
    };
    iproute2 = {
      mainProgram = "ip";
    };
    iputils = {
      debian = "iputils-ping";
      mainProgram = "ping";
    };
    openssh = {
      debian = "openssh-server";
      mainProgram = "ssh";
    };
    jujutsu = {
      mainProgram = "jj";
    };
    nix = {
      debian = "nix-bin";
    };
    systemd = {
      mainProgram = "systemctl";
    };
    dnsutils = {
      mainProgram = "dig";
    };
    e2fsprogs = {
      mainProgram = "mkfs.ext4";
    };
    dosfstools = {
      mainProgram = "mkfs.fat";
    };
    btrfs-progs = {
      mainProgram = "btrfs";
    };
    inetutils = {
      mainProgram = "telnet";
    };
    netcat = {
      debian = "netcat-openbsd";
      mainProgram = "nc";
    };
    ripgrep = {
      mainProgram = "rg";
    };
    fd = {
      debian = "fd-find";
      mainProgram = "fdfind";
    };
    gnupg = {
      mainProgram = "gpg";
    };
    xz = {
      debian = "xz-utils";
    };
    neovim = {
      mainProgram = "nvim";
    };
  };
  plain = [
    "age"
    "atuin"
    "bat"
    "chezmoi"
    "cpio"
    "curl"
    "dash"
    "direnv"
    "ethtool"
    "eza"
    "fish"
    "fzf"
    "gawk"
    "git"
    "gzip"
    "hostname"
    "htop"
    "iptables"
    "jq"
    "kmod"
    "less"
    "lsof"
    "nano"
    "nftables"
    "python3"
    "qemu-guest-agent"
    "rsync"
    "shellcheck"
    "socat"
    "strace"
    "sudo"
    "syncthing"
    "tcpdump"
    "tmux"
    "tree"
    "unzip"
    "vim"
    "wget"
    "yq"
    "zip"
    "zoxide"
    "zsh"
    "zstd"
  ];
  absent = {
    tailscale = "Debian carries no tailscale";
    sops = "Debian carries no sops";
    comma = "Debian carries no comma";
    nixos-rebuild = "the guest is not NixOS";
    nix-index = "Debian carries no nix-index";
  };

  pkgs =
    mapAttrs unavailable absent
    // genAttrs plain (name: debianPackage name { })
    // mapAttrs debianPackage renamed
    // {
      _type = "pkgs";
      config = { };
      inherit
        lib
        system
        symlinkJoin
        writeTextFile
        runtimeShell
        ;
      stdenv.hostPlatform = {
        inherit system;
        isLinux = true;
        isx86_64 = hasPrefix "x86_64" system;
        isAarch64 = hasPrefix "aarch64" system;
      };
      hostPlatform = pkgs.stdenv.hostPlatform;
      bashInteractive = pkgs.bash;
      bash = debianPackage "bash" { } // {
        shellPath = "/bin/bash";
      };
      buildEnv = symlinkJoin;

      runCommand = run;
      runCommandLocal = run;
      writeText = name: text: writeTextFile { inherit name text; };
      writeTextDir =
        path: text:
        writeTextFile {
          name = baseNameOf path;
          destination = "/${path}";
          inherit text;
        };
      writeScript =
        name: text:
        writeTextFile {
          inherit name text;
          executable = true;
        };
      writeScriptBin =
        name: text:
        writeTextFile {
          inherit name text;
          executable = true;
          destination = "/bin/${name}";
          meta.mainProgram = name;
        };
      writeShellScript = name: text: pkgs.writeScript name "${shebang}\n${text}\n";
      writeShellScriptBin = name: text: pkgs.writeScriptBin name "${shebang}\n${text}\n";
      writeShellApplication =
        {
          name,
          text,
          runtimeInputs ? [ ],
          runtimeEnv ? { },
          bashOptions ? [
            "errexit"
            "nounset"
            "pipefail"
          ],
          meta ? { },
          ...
        }:
        let
          inputs = unique (map (p: "${lib.getBin p}/bin") runtimeInputs);
          export = name: value: "${lib.toShellVar name value}\nexport ${name}";
        in
        # nixpkgs also runs shellcheck on the text, which the guest does not have
        pkgs.writeScriptBin name ''
          ${shebang}
          ${concatMapStringsSep "\n" (o: "set -o ${o}") bashOptions}
          ${lib.concatLines (lib.mapAttrsToList export runtimeEnv)}
          ${optionalString (inputs != [ ]) ''export PATH="${lib.concatStringsSep ":" inputs}:$PATH"''}

          ${text}
        ''
        // {
          meta = {
            mainProgram = name;
          }
          // meta;
        };
      linkFarm =
        name: entries:
        let
          list =
            if lib.isList entries then
              entries
            else
              lib.mapAttrsToList (name: path: { inherit name path; }) entries;
          link = e: ''mkdir -p "$out/${dirOf e.name}"; ln -s ${escapeShellArg "${e.path}"} "$out/${e.name}"'';
        in
        run name { } ''
          mkdir -p "$out"
          ${lib.concatLines (map link list)}
        '';
      callPackage =
        f: args:
        let
          fn = if lib.isFunction f then f else import f;
        in
        fn (builtins.intersectAttrs (lib.functionArgs fn) pkgs // args);

      formats =
        mapAttrs
          (_: f: args: {
            inherit (f) type;
            generate = name: value: pkgs.writeText name (f.text args value);
          })
          {
            json = {
              type = types.json;
              text = _: builtins.toJSON;
            };
            # JSON is YAML
            yaml = {
              type = types.json;
              text = _: builtins.toJSON;
            };
            keyValue = {
              type = types.attrs;
              text = lib.generators.toKeyValue;
            };
            ini = {
              type = types.attrsOf types.attrs;
              text = lib.generators.toINI;
            };
          };
    };
in
pkgs

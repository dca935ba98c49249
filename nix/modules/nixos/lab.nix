# What the lab needs of a NixOS guest, for hosts with the role vm, and an upgrade within such a guest: its
# uplink reaches a git remote and the cache of one machine, so what an evaluation and a small build ask for is there.
{
  config,
  inputs,
  lib,
  pkgs,
  ...
}:
let
  direct = removeAttrs inputs [ "self" ];
  # an input that is no flake has none of its own
  all = builtins.genericClosure {
    startSet = map entry (lib.attrValues direct);
    operator = { input, ... }: map entry (lib.attrValues (input.inputs or { }));
  };
  entry = input: {
    key = builtins.unsafeDiscardStringContext input.outPath;
    inherit input;
  };
in
{
  imports = [ ../../lab/vm.nix ];

  lab.vm = lib.mkDefault (lib.elem "vm" config.roles);

  nix.settings = lib.mkIf config.lab.vm { flake-registry = ""; };

  system.extraDependencies = lib.mkIf config.lab.vm (
    # the flake's inputs and theirs, which a locked flake finds in the store
    map ({ input, ... }: input.outPath) all
    ++ [
      # what units, /etc and the toplevel are put together with
      pkgs.stdenv
      pkgs.stdenvNoCC
      pkgs.bash
      pkgs.buildPackages.python3
      pkgs.jq.bin
      pkgs.lndir or pkgs.xorg.lndir
      pkgs.shellcheck-minimal
      pkgs.desktop-file-utils
      pkgs.texinfo
      # none of these is a part of what they make, and each would be built from nothing else than sources
      pkgs.makeWrapper
      pkgs.libxslt.bin
      pkgs.findXMLCatalogs
      pkgs.buildPackages.systemdMinimal.out
      pkgs.mdadm
      # the first stage
      pkgs.makeInitrdNGTool
      pkgs.cpio
      pkgs.zstd.bin
      pkgs.kmod.dev
      pkgs.nukeReferences
    ]
  );
}

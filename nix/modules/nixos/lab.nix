# What the lab needs of a NixOS guest, for hosts with the role vm, and an upgrade within such a guest: its
# uplink reaches a git remote and no cache, so what an evaluation and a small build ask for is there.
{
  config,
  inputs,
  lib,
  pkgs,
  ...
}:
{
  imports = [ ../../lab/vm.nix ];

  lab.vm = lib.mkDefault (lib.elem "vm" config.roles);

  nix.settings = lib.mkIf config.lab.vm {
    substituters = lib.mkForce [ ];
    flake-registry = "";
  };

  system.extraDependencies = lib.mkIf config.lab.vm (
    # the flake's inputs, which a locked flake finds in the store
    map (input: input.outPath) (lib.attrValues (removeAttrs inputs [ "self" ]))
    ++ [
      # what units, /etc and the toplevel are put together with
      pkgs.stdenv
      pkgs.stdenvNoCC
      pkgs.bash
      pkgs.buildPackages.python3
      pkgs.jq.bin
      pkgs.xorg.lndir or pkgs.lndir
      pkgs.shellcheck-minimal
      pkgs.desktop-file-utils
      pkgs.texinfo
    ]
  );
}

# What the lab needs in a NixOS guest (a host with the role vm), and what an upgrade inside it needs: its uplink
# reaches only a git remote and one machine's cache, so the inputs of an evaluation and a small build must be present.
{
  config,
  inputs,
  lib,
  pkgs,
  ...
}:
let
  direct = removeAttrs inputs [ "self" ];
  # an input that is not a flake has no inputs itself
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
    # the flake's inputs and their inputs, which a locked flake finds in the store
    map ({ input, ... }: input.outPath) all
    ++ [
      # builds units, /etc and the toplevel
      pkgs.stdenv
      pkgs.stdenvNoCC
      pkgs.bash
      pkgs.buildPackages.python3
      pkgs.jq.bin
      pkgs.lndir or pkgs.xorg.lndir
      pkgs.shellcheck-minimal
      pkgs.desktop-file-utils
      pkgs.texinfo
      # build tools that their outputs do not refer to: without these each would be built from source
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

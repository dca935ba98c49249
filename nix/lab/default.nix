# labSystem: a host evaluated for the lab's Debian guest, from the files that NixOS gets and with no input.
let
  lib = import ./lib;
in
{
  inherit lib;

  # `hostname` names a folder of hosts/. A flake of one's own passes its host (any module) as `host`, what
  # stands in for nix/modules and nix/roles as `base`, more modules as `modules`, and in `openNames` the
  # top-level names that modules of other inputs would declare.
  # Gives { config; options; pkgs; lib; extendModules; }. Throws on an unknown host, on definitions that
  # conflict and, when the toplevel is read, on a failed assertion.
  labSystem =
    {
      hostname,
      host ? ../../hosts + "/${hostname}",
      base ? [
        ../modules
        ../roles
      ],
      modules ? [ ],
      specialArgs ? { },
      openNames ? [ ],
      system ? "x86_64-linux",
      pkgs ? import ./pkgs.nix { inherit lib system; },
    }:
    let
      eval = lib.evalModules {
        specialArgs = {
          inherit lib openNames;
          # folder of stand-ins for the files of NixOS that hosts import by path
          modulesPath = toString ./stand-ins;
        }
        // specialArgs;
        modules = [
          host
        ]
        ++ base
        ++ modules
        # nix/lab/guest turns options into the units and files of Debian
        ++ [
          ./nixos.nix
          ./lab.nix
          ./guest
          { _module.args.pkgs = lib.mkDefault pkgs; }
        ];
      };
      result = eval: {
        inherit (eval) config options;
        inherit (eval._module.args) pkgs;
        inherit lib;
        extendModules = args: result (eval.extendModules args);
      };
    in
    result eval;
}

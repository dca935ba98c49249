# What the lab's cases change of a flake: its outputs, with what lies in hosts/ on top of each host that is named there.
# Copied into the remote that guests upgrade from, as `world`, together with one of debian.nix and nixos.nix as guest.nix.
outputs:
let
  own = name: ./hosts + "/${name}.nix";
  # a host gets there what `deploy` gave it
  prepare =
    name:
    import ./foreign.nix {
      vm = ./vm.nix;
      disk = import ./disk.nix;
      disko =
        if builtins.elem name (import ./by-disko.nix) then
          import ./disko.nix {
            imageSize = null;
            emulated = false;
          }
        else
          null;
    };
  changed =
    prepared: name: host:
    if builtins.pathExists (own name) then
      (prepared name host).extendModules {
        modules = [
          ./host.nix
          (own name)
        ];
      }
    else
      host;
  kinds = {
    labConfigurations = name: host: host;
    nixosConfigurations = if builtins.pathExists ./foreign.nix then prepare else name: host: host;
  };
in
outputs
// builtins.mapAttrs (kind: prepared: builtins.mapAttrs (changed prepared) outputs.${kind}) (
  builtins.intersectAttrs outputs kinds
)

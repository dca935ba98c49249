# The changes that the lab's cases make to a flake: its outputs, with hosts/<name>.nix applied on top of each host that
# has one. Copied into the remote that guests upgrade from, as `world`, with debian.nix or nixos.nix as guest.nix.
outputs:
let
  own = name: ./hosts + "/${name}.nix";
  # prepares a NixOS host in the same way as `deploy` did
  prepare =
    name:
    import ./foreign.nix {
      vm = ./vm.nix;
      # added below, for either kind of host
      remotes = _: [ ];
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
        ]
        ++ import ./remotes.nix host;
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

{ inputs, ... }:
{
  flake.lib.mkNixos = name: {
    ${name} = inputs.nixpkgs.lib.nixosSystem { modules = [ ./hosts/${name} ]; };
  };
}

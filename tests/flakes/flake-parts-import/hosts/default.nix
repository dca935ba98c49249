{ inputs, ... }:
let
  inherit (inputs.nixpkgs.lib) nixosSystem;
in
{
  flake.nixosConfigurations = {
    elm = nixosSystem { modules = [ ./elm ]; };
    fir = nixosSystem { modules = [ ./fir ]; };
  };
}

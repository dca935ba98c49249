{
  outputs =
    inputs:
    inputs.flake-parts.lib.mkFlake { inherit inputs; } (
      { withSystem, ... }:
      {
        imports = [ inputs.treefmt.flakeModule ];
        flake = {
          templates = { };
          nixosConfigurations =
            let
              mkHost = import ./mk-host.nix;
            in
            {
              cedar = mkHost inputs { name = "cedar"; };
              birch = mkHost inputs { name = "birch"; };
            };
        };
      }
    );
}

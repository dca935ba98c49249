{
  outputs =
    inputs:
    inputs.flake-parts.lib.mkFlake { inherit inputs; } {
      systems = [ "x86_64-linux" ];
      flake =
        let
          own = "turnstone";
        in
        {
          nixosModules.${own} = { };
        };
    };
}

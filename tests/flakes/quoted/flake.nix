{
  outputs =
    { nixpkgs, ... }:
    let
      system = hostname: nixpkgs.lib.nixosSystem { specialArgs = { inherit hostname; }; modules = [ ]; };
    in
    {
      nixosConfigurations = {
        "web-1" = system "web-1";
        "web-2" = system "web-2";
      };
    };
}

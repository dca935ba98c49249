{
  outputs =
    { nixpkgs, ... }:
    let
      name = "grebe";
      modules = [ ./machine/grebe.nix ];
    in
    {
      nixosConfigurations = {
        ${name} = nixpkgs.lib.nixosSystem { inherit modules; };
      };
    };
}

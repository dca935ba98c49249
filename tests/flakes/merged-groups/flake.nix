{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      mk = profile: name: lib.nixosSystem { modules = [ ./profiles/${profile}.nix ./hosts/${name} ]; };
    in
    {
      nixosConfigurations = lib.mergeAttrsList [
        (lib.genAttrs [ "marl" "opal" "onyx" ] (mk "server"))
        (lib.genAttrs [ "pearl" ] (mk "desktop"))
      ];
    };
}

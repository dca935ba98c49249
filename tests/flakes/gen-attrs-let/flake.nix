{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs.lib) genAttrs nixosSystem;
      servers = [
        "cove" # mail
        "dale" # "web" and git
      ];
      desktops = [ "fell" ];
    in
    {
      nixosConfigurations = genAttrs (servers ++ desktops) (name: nixosSystem { modules = [ ./${name} ]; });
    };
}

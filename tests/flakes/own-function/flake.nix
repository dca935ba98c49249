{
  outputs =
    { nixpkgs, ... }:
    let
      mkHosts =
        { names, modules ? [ ] }:
        nixpkgs.lib.genAttrs names (name: nixpkgs.lib.nixosSystem { modules = modules ++ [ ./${name} ]; });
    in
    {
      nixosConfigurations = mkHosts {
        names = [ "tarn" "vale" ];
      };
    };
}

{
  outputs =
    { self, nixpkgs, ... }:
    let
      lib = nixpkgs.lib.extend (final: prev: import ./lib self final "heath");
      inherit (lib.${lib.ours}) mkHost;
    in
    {
      nixosConfigurations = lib.listToAttrs [
        (mkHost "linnet" "mia" [ ])
        (mkHost "whinchat" "mia" [ { boot.isContainer = true; } ])
        # (mkHost "stonechat" "mia" [ ])
      ];
    };
}

{
  outputs =
    { nixpkgs, ... }:
    let
      mkHost = name: config: nixpkgs.lib.nixosSystem {
        modules = [ (import ./modules { }) config { networking.hostName = name; } ];
      };
      desktopConfig = { mine.desktop.enable = true; };
      laptopConfig = { mine.laptop.enable = true; };
    in
    {
      nixosConfigurations = {
        desktop = mkHost "desktop" desktopConfig;
        laptop = mkHost "laptop" laptopConfig;
        linnet = mkHost "linnet" (import ./machines/linnet.nix);
      };
    };
}

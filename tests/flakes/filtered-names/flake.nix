{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      machines = [
        { name = "ouzel"; system = "x86_64-linux"; files = ./ouzel; }
        { name = "ptarmigan"; system = "aarch64-darwin"; files = ./ptarmigan; }
        { name = "shrike"; system = "x86_64-linux"; isRetired = true; files = ./shrike; }
      ];
      isHost = machine: lib.hasSuffix "-linux" machine.system && builtins.elem machine.system [ "x86_64-linux" ] && !(machine ? isRetired || false);
    in
    {
      nixosConfigurations = builtins.listToAttrs (
        map (machine: lib.nameValuePair machine.name (lib.nixosSystem { modules = [ machine.files ]; })) (
          builtins.filter isHost machines
        )
      );
    };
}

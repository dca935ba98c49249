{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      machines = {
        redstart = "desktop";
        whinchat = "desktop";
      };
      make = index: { name, value }: lib.nameValuePair name (lib.nixosSystem {
        specialArgs = { inherit index; };
        modules = [ ./hosts/${name} ./roles/${value}.nix ];
      });
    in
    {
      nixosConfigurations = lib.listToAttrs (lib.imap1 make (lib.attrsToList machines));
    };
}

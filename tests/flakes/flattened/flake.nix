{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs.lib) flatten mapAttrsToList;
      machines = {
        marten = { };
        stoat = { };
      };
      pairs = name: machine: [
        { inherit name; value = { modules = [ ./hosts/${name} machine ]; }; }
        [ ]
      ];
    in
    {
      nixosConfigurations = builtins.listToAttrs (flatten [ (mapAttrsToList pairs machines) ]);
    };
}

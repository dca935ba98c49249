{
  outputs =
    { nixpkgs, fleet, ... }@inputs:
    let
      mine = import ./lib.nix inputs;
    in
    mine.mergeAll [
      {
        templates = { };
      }
      (fleet.lib.compose { })
    ];
}

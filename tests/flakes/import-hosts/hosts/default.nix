{ inputs }:
let
  common = import ./common.nix;
  host = name: inputs.nixpkgs.lib.nixosSystem { modules = [ common ./${name} ]; };
in
{
  wold = host "wold";
  yard = host "yard";
}

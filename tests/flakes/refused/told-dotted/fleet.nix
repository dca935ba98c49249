{ inputs, ... }:
let
  mkHost = name: class: arch: { inherit class arch; path = ./machines + "/${name}"; };
in
{
  imports = [ inputs.easy-hosts.flakeModule ];
  easy-hosts = {
    hosts.siskin = mkHost "siskin" "nixos" "x86_64";
    hosts.knot = mkHost "knot" "darwin" "aarch64";
    perClass = class: { modules = [ ]; };
  };
}

# How this project's Nix is laid out: `nix fmt`, and the check that it is.
{ pkgs, self }:
let
  # nixfmt, written anew: the same text byte for byte, without the Haskell to build it; where nixpkgs has it
  nixfmt = pkgs.nixfmt-rs or pkgs.nixfmt;
in
{
  formatter = pkgs.writeShellApplication {
    name = "format";
    runtimeInputs = [
      nixfmt
      pkgs.git
    ];
    # flakes in tests/flakes are as other people write them
    text = ''
      if [ $# -eq 0 ]; then
        readarray -d "" -t files < <(git ls-files -z -- '*.nix' ':!tests/flakes')
        set -- "''${files[@]}"
      fi
      exec nixfmt "$@"
    '';
  };

  check = pkgs.runCommand "nix-format" { nativeBuildInputs = [ nixfmt ]; } ''
    cd ${self}
    find . -name '*.nix' -not -path './tests/flakes/*' -exec nixfmt --check {} +
    touch $out
  '';
}

# Formatting of this project's Nix files: `nix fmt`, and the check that it was run.
{ pkgs, self }:
let
  # nixfmt-rs, where nixpkgs has it: the same output byte for byte, and no Haskell needed to build it
  nixfmt = pkgs.nixfmt-rs or pkgs.nixfmt;
in
{
  formatter = pkgs.writeShellApplication {
    name = "format";
    runtimeInputs = [
      nixfmt
      pkgs.git
    ];
    # the flakes in tests/flakes keep the style that other people write them in
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

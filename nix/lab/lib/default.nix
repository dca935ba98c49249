# The lab's `lib`: what host modules use of nixpkgs' `lib`, with the same names and results, on builtins
# alone. So a host evaluates with no nixpkgs and no network; tests/nix compares the two.
let
  lib =
    import ./base.nix
    // import ./properties.nix { inherit lib; }
    // import ./options.nix { inherit lib; }
    // import ./modules.nix { inherit lib; }
    // {
      types = import ./types.nix { inherit lib; };

      # nixpkgs' names for the parts, so that `lib.strings.…` and the like are found
      attrsets = lib;
      lists = lib;
      meta = lib;
      modules = lib;
      options = lib;
      strings = lib;
      trivial = lib;
    };
in
lib

# The lab's `lib`: the part of nixpkgs' `lib` that host modules use, with the same names and results, built on
# builtins alone. A host thus evaluates without nixpkgs and without network; tests/nix compares the two.
let
  lib =
    import ./base.nix
    // import ./properties.nix { inherit lib; }
    // import ./options.nix { inherit lib; }
    // import ./modules.nix { inherit lib; }
    // {
      types = import ./types.nix { inherit lib; };

      # nixpkgs' names for its parts, so that `lib.strings.…` and so on work
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

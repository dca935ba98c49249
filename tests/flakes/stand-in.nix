# What `import nixpkgs { … }` gives: a package set with the library
_: { inherit ((import ./inputs.nix).nixpkgs) lib; }

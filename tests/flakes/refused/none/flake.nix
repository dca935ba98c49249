{
  outputs =
    { nixpkgs, ... }:
    {
      packages.x86_64-linux = { };
    };
}

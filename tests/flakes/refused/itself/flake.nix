{
  outputs =
    { nixpkgs, ... }:
    let
      hosts = more // { };
      more = hosts // { };
    in
    {
      nixosConfigurations = hosts;
    };
}

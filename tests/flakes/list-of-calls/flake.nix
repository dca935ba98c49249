{
  outputs =
    inputs:
    let
      host = name: extra: {
        inherit name;
        value = inputs.nixpkgs.lib.nixosSystem { modules = [ { networking.hostName = "${name}"; } ] ++ extra; };
      };
    in
    {
      nixosConfigurations = inputs.nixpkgs.lib.listToAttrs [
        (host "peak" [ ])
        (host "reef" [ ./reef.nix ])
        (host "spit" [ ])
      ];
    };
}

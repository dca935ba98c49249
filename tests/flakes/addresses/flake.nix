{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = {
        lynx = nixpkgs.lib.nixosSystem {
          modules = [
            {
              networking.hostName = "lynx";
              mine.mac = "02:47:8b:d3:f1:02";
              mine.addresses = [ "192.0.2.5/24" "2001:db8::5" ];
              mine.listen = [ "127.0.0.1" "0.0.0.0" "::1" ];
            }
          ];
        };
      };
    };
}

{
  # Grüße 👋 from a flake that is not ASCII
  description = "Ein Rechner — 🖥️ und noch einer";

  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = {
        /* 💻 */ linde = nixpkgs.lib.nixosSystem { modules = [ { environment.etc.motd.text = "Grüß Gott, linde 🌳"; } ]; }; # 🌳
      };
    };
}

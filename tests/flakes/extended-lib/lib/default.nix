self: lib: ours:
let
  inherit (lib) nixosSystem;
in
{
  inherit ours;
  ${ours} = {
    mkHost = name: user: modules: {
      inherit name;
      value = nixosSystem {
        specialArgs = { inherit self user; };
        modules = [ ../hosts/${name} ] ++ modules;
      };
    };
  };
}

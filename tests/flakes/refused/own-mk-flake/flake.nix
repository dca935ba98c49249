{
  outputs =
    inputs:
    let
      lib = import ./lib inputs;
    in
    lib.mkFlake inputs {
      systems = [ "x86_64-linux" ];
      hosts = lib.mapHosts ./hosts;
    };
}

{
  outputs =
    inputs:
    inputs.unified.lib.mkFlake {
      inherit inputs;
      root = ./.;
    };
}

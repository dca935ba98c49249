{ }: { imports = [ ./config/curlew/boot.nix ]; }

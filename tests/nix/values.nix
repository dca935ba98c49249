# JSON of the values at `paths` of a host, so that two guests can be compared: a package by its name, a
# string without its store paths' context, what is not there as "<missing>". Text for `nix eval --apply`.
paths: host:
let
  get =
    v: path:
    if path == [ ] then
      v
    else if builtins.isAttrs v && v ? ${builtins.head path} then
      get v.${builtins.head path} (builtins.tail path)
    else
      "<missing>";
  plain =
    v:
    if builtins.isFunction v then
      "<function>"
    else if builtins.isString v then
      builtins.unsafeDiscardStringContext v
    else if builtins.isPath v then
      toString v
    else if builtins.isList v then
      map plain v
    else if !builtins.isAttrs v then
      v
    else if v.type or null == "derivation" then
      "package ${v.pname or v.name}"
    # NixOS elaborates a platform that was given by its name
    else if v ? system && v ? parsed then
      v.system
    else
      builtins.mapAttrs (_: plain) v;
in
map (path: plain (get host.config path)) paths

# JSON of the values at `paths` of a host, so that two guests can be compared: a package as its name, a string
# without context, a missing value as "<missing>". Passed as text to `nix eval --apply`.
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
    # NixOS expands a platform's name to a set
    else if v ? system && v ? parsed then
      v.system
    else
      builtins.mapAttrs (_: plain) v;
in
map (path: plain (get host.config path)) paths

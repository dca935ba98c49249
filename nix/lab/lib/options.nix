# Declaring and renaming options, and showing them in error messages.
{ lib }:
let
  inherit (lib)
    attrByPath
    concatMapStringsSep
    concatStringsSep
    getAttrFromPath
    hasInfix
    isAttrs
    isFunction
    isList
    isType
    last
    literalExpression
    mapAttrsToList
    mkIf
    mkMerge
    mkOverride
    optional
    optionalAttrs
    optionalString
    setAttrByPath
    toList
    types
    ;

  # A module that makes `from` an alias of `to`: reading it gives the value of `to`, setting it sets `to`.
  forward =
    {
      from,
      to,
      visible ? true,
      warn ? false,
      use ? lib.id,
      withPriority ? true,
      condition ? true,
    }:
    { config, options, ... }:
    let
      old = getAttrFromPath from options;
      wrap = mkOverride (if withPriority then old.highestPrio else 100);
      renamed =
        "The option `${showOption from}' defined in ${showFiles old.files}"
        + " has been renamed to `${showOption to}'.";
    in
    {
      options = setAttrByPath from (mkOption {
        inherit visible;
        type = (attrByPath to { } options).type or types.unspecified;
        description = "Alias of {option}`${showOption to}`.";
        apply = _: use (getAttrFromPath to config);
      });
      config = mkIf condition (mkMerge [
        (optionalAttrs (options ? warnings) { warnings = optional (warn && old.isDefined) renamed; })
        (mkIf old.isDefined (setAttrByPath to (mkMerge (map wrap old.definitions))))
      ]);
    };

  mkOption = attrs: attrs // { _type = "option"; };

  showOption = concatMapStringsSep "." (
    part:
    if builtins.match "[a-zA-Z_<*][a-zA-Z0-9_'<>*-]*" part != null then
      part
    else if hasInfix "definition " part then
      part
    else
      builtins.toJSON part
  );
  showFiles = concatMapStringsSep " and " (file: "`${file}'");

  # A value in one line, three levels deep. A nested value that cannot be evaluated shows as `<error>`, so
  # that the message itself does not fail.
  showValue =
    let
      attempt =
        f: v:
        let
          r = builtins.tryEval (f v);
        in
        if r.success then r.value else "<error>";
      show =
        depth: v:
        let
          deeper = attempt (show (depth - 1));
        in
        if isFunction v then
          "<function>"
        else if v.type or null == "derivation" then
          "<derivation ${v.name or "?"}>"
        else if isAttrs v && v ? _type then
          "<${v._type}>"
        else if (isAttrs v || isList v) && depth == 0 then
          "…"
        else if isAttrs v then
          "{ ${concatStringsSep "" (mapAttrsToList (n: x: "${n} = ${deeper x}; ") v)}}"
        else if isList v then
          "[ ${concatMapStringsSep "" (x: "${deeper x} ") v}]"
        else if builtins.isPath v then
          toString v
        else
          builtins.toJSON v;
    in
    attempt (show 3);
in
{
  inherit
    mkOption
    showFiles
    showOption
    showValue
    ;
  showDefs = concatMapStringsSep "" (def: "\n- In `${def.file}': ${showValue def.value}");

  isOption = isType "option";
  isOptionType = isType "option-type";

  mkEnableOption =
    name:
    mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether to enable ${name}.";
    };

  mkPackageOption =
    pkgs: name:
    {
      default ? name,
      nullable ? false,
      example ? null,
      extraDescription ? "",
      pkgsText ? "pkgs",
    }:
    let
      path = toList default;
      shown = "${pkgsText}.${concatStringsSep "." path}";
      missing = throw "${concatStringsSep "." path} cannot be found in ${pkgsText}";
    in
    mkOption (
      {
        type = if nullable then types.nullOr types.package else types.package;
        description =
          "The ${last (toList name)} package to use."
          + optionalString (extraDescription != "") " ${extraDescription}";
      }
      // optionalAttrs (default == null && nullable) { default = null; }
      // optionalAttrs (default != null) {
        default = attrByPath path missing pkgs;
        defaultText = literalExpression shown;
      }
    );

  mkOptionType =
    type:
    {
      _type = "option-type";
      check = _: true;
      merge = types.mergeDefault;
      emptyValue = { };
      description = type.name;
    }
    // type;

  mkRenamedOptionModule =
    from: to:
    forward {
      inherit from to;
      warn = true;
      visible = false;
    };
  mkAliasOptionModule = from: to: forward { inherit from to; };
  mkRemovedOptionModule =
    path: instead:
    { options, ... }:
    let
      option = getAttrFromPath path options;
    in
    {
      options = setAttrByPath path (mkOption {
        visible = false;
        apply =
          _:
          throw "The option `${showOption path}' can no longer be used since it's been removed. ${instead}";
      });
      config.assertions = [
        {
          assertion = !option.isDefined;
          message =
            "The option definition `${showOption path}' in ${showFiles option.files}"
            + " no longer has any effect; please remove it.\n${instead}";
        }
      ];
    };
}

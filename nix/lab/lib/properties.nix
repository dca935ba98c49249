# Properties, in which a definition may be wrapped (mkIf, mkForce, ...), and unwrapping them. The numbers are nixpkgs'.
{ lib }:
let
  inherit (lib)
    concatMap
    filter
    foldl'
    isAttrs
    isBool
    mapAttrs
    min
    showDefs
    showOption
    sort
    ;
  inherit (builtins) addErrorContext;

  defaultPriority = 100;
  defaultOrder = 1000;
  propertyOf = v: if isAttrs v then v._type or "" else "";

  # `def` without this property; the property's number (or the default) is stored in `field`
  unwrap =
    property: field: default: def:
    if propertyOf def.value == property then
      def
      // {
        value = def.value.content;
        ${field} = def.value.${field};
      }
    else
      def // { ${field} = default; };

  # One definition of an option -> its values after every mkIf and mkMerge is resolved
  discharge =
    v:
    {
      merge = concatMap discharge v.contents;
      "if" =
        if !isBool v.condition then
          throw "‘mkIf’ called with a non-Boolean condition"
        else if v.condition then
          discharge v.content
        else
          [ ];
    }
    .${propertyOf v} or [ v ];
in
rec {
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkOrder = priority: content: {
    _type = "order";
    inherit priority content;
  };

  mkVMOverride = mkOverride 10;
  mkForce = mkOverride 50;
  mkImageMediaOverride = mkOverride 60;
  mkDefault = mkOverride 1000;
  mkOptionDefault = mkOverride 1500;
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;

  mkAssert = ok: message: mkIf (if ok then true else throw "\nFailed assertion: ${message}");
  mkAliasDefinitions = option: mkIf option.isDefined (mkMerge option.definitions);

  # One definition -> the equivalent definitions without a property at the top. Conditions are pushed down to
  # the attributes unevaluated, so a mkIf may read the configuration that it is part of.
  pushDown =
    v:
    let
      inside = wrap: map (set: if isAttrs set then mapAttrs (_: wrap) set else set);
    in
    {
      merge = concatMap pushDown v.contents;
      "if" = inside (mkIf v.condition) (pushDown v.content);
      override = inside (mkOverride v.priority) (pushDown v.content);
    }
    .${propertyOf v} or [ v ];

  # [ { file; value; } ] of an option of `type` at `loc` -> { value; isDefined; files; highestPrio; … }.
  # Reading `value` throws if there is no definition, if one has another type, and if some conflict.
  mergeDefinitions =
    loc: type: raw:
    let
      decided = concatMap (
        def:
        let
          context = "while evaluating definitions from `${def.file}':";
        in
        map (value: {
          inherit (def) file;
          inherit value;
        }) (addErrorContext context (discharge def.value))
      ) raw;

      prioritized = map (unwrap "override" "priority" defaultPriority) decided;
      highestPrio = foldl' (low: def: min low def.priority) 9999 prioritized;
      winning = filter (def: def.priority == highestPrio) prioritized;

      ordered = sort (a: b: a.priority < b.priority) (
        map (unwrap "order" "priority" defaultOrder) winning
      );
      final = map (def: { inherit (def) file value; }) ordered;
      wrong = filter (def: !type.check def.value) final;
    in
    rec {
      inherit highestPrio;
      isDefined = final != [ ];
      definitionsWithLocations = final;
      files = map (def: def.file) final;
      value =
        if wrong != [ ] then
          throw (
            "A definition for option `${showOption loc}' is not of type `${type.description}'."
            + " Definition values:${showDefs wrong}"
          )
        else if isDefined then
          type.merge loc final
        else
          type.emptyValue.value
            or (throw "The option `${showOption loc}' was accessed but has no value defined. Try setting the option.");
    };
}

# The part of nixpkgs' `lib` that host modules use, built on builtins alone, so that `labConfigurations`
# evaluates without fetching an input. Names, argument order and results are those of nixpkgs.
let
  inherit (builtins)
    any
    attrNames
    concatLists
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    genList
    head
    isAttrs
    isList
    isString
    length
    listToAttrs
    mapAttrs
    match
    replaceStrings
    stringLength
    substring
    tail
    zipAttrsWith
    ;
in
rec {
  inherit (builtins)
    add
    all
    any
    attrNames
    attrValues
    baseNameOf
    bitAnd
    bitOr
    catAttrs
    ceil
    compareVersions
    concatLists
    concatMap
    concatStringsSep
    deepSeq
    dirOf
    div
    elem
    elemAt
    filter
    floor
    foldl'
    fromJSON
    functionArgs
    genericClosure
    genList
    getAttr
    groupBy
    hasAttr
    hashString
    head
    intersectAttrs
    isAttrs
    isBool
    isFloat
    isInt
    isList
    isPath
    isString
    length
    lessThan
    listToAttrs
    map
    mapAttrs
    match
    mul
    partition
    pathExists
    readDir
    readFile
    removeAttrs
    replaceStrings
    seq
    sort
    split
    splitVersion
    stringLength
    sub
    substring
    tail
    toJSON
    trace
    tryEval
    typeOf
    zipAttrsWith
    ;

  # functions
  id = x: x;
  const = x: _: x;
  flip =
    f: a: b:
    f b a;
  pipe = foldl' (x: f: f x);
  fix =
    f:
    let
      x = f x;
    in
    x;
  isFunction = f: builtins.isFunction f || (f ? __functor && builtins.isFunction (f.__functor f));
  toFunction = v: if isFunction v then v else _: v;
  setFunctionArgs = f: args: {
    __functor = _: f;
    __functionArgs = args;
  };
  min = a: b: if a < b then a else b;
  max = a: b: if a > b then a else b;
  mod = a: b: a - b * (a / b);
  boolToString = b: if b then "true" else "false";
  boolToYesNo = b: if b then "yes" else "no";
  isDerivation = v: v.type or null == "derivation";
  isStorePath = v: isStringLike v && dirOf (toString v) == builtins.storeDir;
  isStringLike = v: isString v || builtins.isPath v || v ? outPath || v ? __toString;
  isType = type: v: v._type or null == type;
  setType = type: v: v // { _type = type; };
  throwIf = cond: msg: if cond then throw msg else id;
  throwIfNot = cond: throwIf (!cond);
  assertMsg = cond: msg: cond || throw msg;
  assertOneOf =
    name: v: known:
    assertMsg (elem v known) "${name} must be one of ${
      concatMapStringsSep ", " toString known
    }, but is: ${toString v}";
  warn = msg: builtins.trace "evaluation warning: ${msg}";
  warnIf = cond: msg: if cond then warn msg else id;
  warnIfNot = cond: warnIf (!cond);
  info = msg: builtins.trace "INFO: ${msg}";
  importJSON = file: builtins.fromJSON (builtins.readFile file);
  importTOML = file: builtins.fromTOML (builtins.readFile file);
  versionOlder = a: b: builtins.compareVersions b a == 1;
  versionAtLeast = a: b: !versionOlder a b;
  makeOverridable =
    f: args:
    let
      r = f args;
    in
    if isAttrs r then r // { override = new: makeOverridable f (args // toFunction new args); } else r;

  # lists
  singleton = x: [ x ];
  toList = x: if isList x then x else [ x ];
  optional = cond: x: if cond then [ x ] else [ ];
  optionals = cond: xs: if cond then xs else [ ];
  last = xs: elemAt xs (length xs - 1);
  init = xs: take (length xs - 1) xs;
  take = n: sublist 0 n;
  drop = n: xs: sublist n (length xs) xs;
  sublist =
    start: count: xs:
    genList (i: elemAt xs (start + i)) (max 0 (min count (length xs - start)));
  range = first: end: genList (i: first + i) (max 0 (end - first + 1));
  replicate = n: x: genList (_: x) n;
  reverseList =
    xs:
    let
      n = length xs;
    in
    genList (i: elemAt xs (n - i - 1)) n;
  imap0 = f: xs: genList (i: f i (elemAt xs i)) (length xs);
  imap1 = f: imap0 (i: f (i + 1));
  forEach = xs: f: map f xs;
  foldr =
    f: nul: xs:
    let
      go = i: if i == length xs then nul else f (elemAt xs i) (go (i + 1));
    in
    go 0;
  fold = foldr;
  foldl = foldl';
  count = pred: xs: length (filter pred xs);
  remove = x: filter (y: y != x);
  unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
  allUnique = xs: unique xs == xs;
  subtractLists = out: filter (x: !elem x out);
  intersectLists = a: filter (x: elem x a);
  mutuallyExclusive = a: b: intersectLists a b == [ ];
  findFirst =
    pred: default: xs:
    let
      found = filter pred xs;
    in
    if found == [ ] then default else head found;
  findSingle =
    pred: none: many: xs:
    let
      found = filter pred xs;
    in
    if found == [ ] then
      none
    else if length found > 1 then
      many
    else
      head found;
  flatten = x: if isList x then concatMap flatten x else [ x ];
  zipListsWith =
    f: a: b:
    genList (i: f (elemAt a i) (elemAt b i)) (min (length a) (length b));
  zipLists = zipListsWith (fst: snd: { inherit fst snd; });
  sortOn = f: builtins.sort (a: b: f a < f b);
  naturalSort = builtins.sort builtins.lessThan;
  # { result; } that respects every `before a b`, or { cycle; loops; }. Like nixpkgs it descends from the first
  # element to one that nothing precedes, so where several orders are valid the result is nixpkgs'.
  toposort =
    before: xs:
    let
      descend =
        x: above: others:
        let
          earlier = builtins.partition (y: before y x) others;
          loops = filter (y: before y x) above;
        in
        if loops != [ ] then
          {
            cycle = reverseList ([ x ] ++ above);
            inherit loops;
          }
        else if earlier.right == [ ] then
          {
            first = x;
            left = above ++ others;
          }
        else
          descend (head earlier.right) ([ x ] ++ above) (tail earlier.right ++ earlier.wrong);
      step = descend (head xs) [ ] (tail xs);
      rest = toposort before step.left;
    in
    if length xs < 2 then
      { result = xs; }
    else if step ? cycle then
      step
    else if rest ? cycle then
      rest
    else
      { result = [ step.first ] ++ rest.result; };

  # attribute sets
  nameValuePair = name: value: { inherit name value; };
  optionalAttrs = cond: set: if cond then set else { };
  genAttrs = names: f: listToAttrs (map (n: nameValuePair n (f n)) names);
  genAttrs' = xs: f: listToAttrs (map f xs);
  mapAttrs' = f: set: listToAttrs (map (n: f n set.${n}) (attrNames set));
  mapAttrsToList = f: set: map (n: f n set.${n}) (attrNames set);
  attrsToList = mapAttrsToList nameValuePair;
  concatMapAttrs = f: set: foldl' (a: b: a // b) { } (mapAttrsToList f set);
  filterAttrs = pred: set: removeAttrs set (filter (n: !pred n set.${n}) (attrNames set));
  getAttrs = names: set: genAttrs names (n: set.${n});
  attrVals = names: set: map (n: set.${n}) names;
  mergeAttrs = a: b: a // b;
  mergeAttrsList = foldl' mergeAttrs { };
  foldAttrs =
    f: nul: sets:
    zipAttrsWith (_: foldr f nul) sets;
  foldlAttrs =
    f: nul: set:
    foldl' (acc: n: f acc n set.${n}) nul (attrNames set);
  zipAttrs = zipAttrsWith (_: vs: vs);
  setAttrByPath =
    path: value: if path == [ ] then value else { ${head path} = setAttrByPath (tail path) value; };
  hasAttrByPath =
    path: set:
    path == [ ] || (isAttrs set && set ? ${head path} && hasAttrByPath (tail path) set.${head path});
  attrByPath =
    path: default: set:
    if path == [ ] then
      set
    else if isAttrs set && set ? ${head path} then
      attrByPath (tail path) default set.${head path}
    else
      default;
  getAttrFromPath =
    path: attrByPath path (throw "cannot find attribute `${concatStringsSep "." path}'");
  recursiveUpdateUntil =
    stop: a: b:
    let
      go =
        path:
        zipAttrsWith (
          n: vs:
          let
            here = path ++ [ n ];
          in
          if length vs == 1 then
            head vs
          else if stop here (head vs) (elemAt vs 1) then
            elemAt vs 1
          else
            go here vs
        );
    in
    go [ ] [ a b ];
  recursiveUpdate = recursiveUpdateUntil (
    _: a: b:
    !(isAttrs a && isAttrs b)
  );
  mapAttrsRecursiveCond =
    cond: f:
    let
      go =
        path:
        mapAttrs (
          n: v:
          let
            here = path ++ [ n ];
          in
          if isAttrs v && cond v then go here v else f here v
        );
    in
    go [ ];
  mapAttrsRecursive = mapAttrsRecursiveCond (_: true);
  collect =
    pred: v:
    if pred v then
      [ v ]
    else if isAttrs v then
      concatMap (collect pred) (builtins.attrValues v)
    else
      [ ];
  getBin = getOutput "bin";
  getLib = getOutput "lib";
  getDev = getOutput "dev";
  getMan = getOutput "man";
  getOutput = output: pkg: pkg.${output} or pkg.out or pkg;
  getExe' = pkg: name: "${getBin pkg}/bin/${name}";
  getExe = pkg: getExe' pkg (pkg.meta.mainProgram or (getName pkg));
  makeBinPath = makeSearchPath "bin";
  makeSearchPath =
    sub: pkgs: concatMapStringsSep ":" (p: "${getBin p}/${sub}") (filter (p: p != null) pkgs);

  # strings
  concatStrings = concatStringsSep "";
  concatMapStrings = f: xs: concatStrings (map f xs);
  concatMapStringsSep =
    sep: f: xs:
    concatStringsSep sep (map f xs);
  concatImapStringsSep =
    sep: f: xs:
    concatStringsSep sep (imap1 f xs);
  concatMapAttrsStringSep =
    sep: f: set:
    concatStringsSep sep (mapAttrsToList f set);
  concatLines = concatMapStrings (s: s + "\n");
  join = concatStringsSep;
  intersperse =
    sep: xs:
    tail (
      concatMap (x: [
        sep
        x
      ]) xs
    );
  optionalString = cond: s: if cond then s else "";
  replaceString = from: to: replaceStrings [ from ] [ to ];
  stringToCharacters = s: genList (i: substring i 1 s) (stringLength s);
  stringAsChars = f: s: concatStrings (map f (stringToCharacters s));
  hasPrefix = pre: s: substring 0 (stringLength pre) s == pre;
  hasSuffix =
    suf: s:
    let
      n = stringLength s - stringLength suf;
    in
    n >= 0 && substring n (-1) s == suf;
  hasInfix = infix: s: replaceStrings [ infix ] [ "" ] s != s || infix == "";
  removePrefix = pre: s: if hasPrefix pre s then substring (stringLength pre) (-1) s else s;
  removeSuffix =
    suf: s: if hasSuffix suf s then substring 0 (stringLength s - stringLength suf) s else s;
  escape = chars: replaceStrings chars (map (c: "\\${c}") chars);
  escapeRegex = escape (stringToCharacters "\\[{()^$?*+|.");
  escapeShellArg =
    v:
    let
      s = toString v;
    in
    # plain words stay as they are, as in nixpkgs, so that generated units read the same
    if match "[[:alnum:],._+:@%/-]+" s != null then s else "'${replaceStrings [ "'" ] [ "'\\''" ] s}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  escapeNixString = s: escape [ "$" ] (builtins.toJSON s);
  escapeNixIdentifier =
    s: if match "[a-zA-Z_][a-zA-Z0-9_'-]*" s != null then s else escapeNixString s;
  escapeXML = replaceStrings [ "\"" "'" "<" ">" "&" ] [ "&quot;" "&apos;" "&lt;" "&gt;" "&amp;" ];
  toShellVar = name: value: "${name}=${escapeShellArg value}";
  splitString = sep: s: filter isString (builtins.split (escapeRegex sep) s);
  trim = trimWith {
    start = true;
    end = true;
  };
  trimWith =
    {
      start ? false,
      end ? false,
    }:
    s:
    let
      m = match "([ \t\r\n]*)(.*[^ \t\r\n])?([ \t\r\n]*)" s;
      body = if elemAt m 1 == null then "" else elemAt m 1;
    in
    (if start then "" else elemAt m 0) + body + (if end then "" else elemAt m 2);
  fixedWidthString =
    width: fill: s:
    let
      missing = width - stringLength s;
    in
    assert missing >= 0;
    concatStrings (replicate missing fill) + s;
  fixedWidthNumber = width: n: fixedWidthString width "0" (toString n);
  lowerChars = stringToCharacters "abcdefghijklmnopqrstuvwxyz";
  upperChars = stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  toLower = replaceStrings upperChars lowerChars;
  toUpper = replaceStrings lowerChars upperChars;
  toSentenceCase = s: toUpper (substring 0 1 s) + toLower (substring 1 (-1) s);
  toInt =
    s:
    let
      n = fromDecimal s;
    in
    if n == null then throw "toInt: Could not convert ${escapeNixString s} to int." else n;
  toIntBase10 = toInt;
  fromDecimal =
    s:
    let
      m = match "[ \t\n]*(-?)0*(0|[1-9][0-9]*)[ \t\n]*" s;
    in
    # the pattern drops leading zeros, which are not valid JSON
    if m == null then null else builtins.fromJSON (concatStrings m);
  fileContents = file: removeSuffix "\n" (builtins.readFile file);
  isConvertibleWithToString = v: isStringLike v || v == null || builtins.isBool v || builtins.isInt v;
  getName = x: x.pname or (builtins.parseDrvName (x.name or x)).name;
  getVersion = x: x.version or (builtins.parseDrvName (x.name or x)).version;
  literalExpression = text: {
    _type = "literalExpression";
    inherit text;
  };
  literalMD = text: {
    _type = "literalMD";
    inherit text;
  };
  mdDoc = s: s;
  maintainers = { };
  teams = { };

  # the serial formats that unit and config files are written in
  generators = {
    toJSON = _: builtins.toJSON;
    mkValueStringDefault =
      _: v:
      if builtins.isBool v then
        boolToString v
      else if v == null then
        "null"
      else
        toString v;
    mkKeyValueDefault =
      {
        mkValueString ? generators.mkValueStringDefault { },
      }:
      sep: k: v:
      "${escape [ sep ] k}${sep}${mkValueString v}";
    toKeyValue =
      {
        mkKeyValue ? generators.mkKeyValueDefault { } "=",
        listsAsDuplicateKeys ? false,
        indent ? "",
      }:
      let
        values = v: if listsAsDuplicateKeys then toList v else [ v ];
        lines = k: v: map (x: "${indent}${mkKeyValue k x}\n") (values v);
      in
      set: concatStrings (concatLists (mapAttrsToList lines set));
    toINI =
      {
        mkSectionName ? id,
        mkKeyValue ? generators.mkKeyValueDefault { } "=",
        listsAsDuplicateKeys ? false,
      }:
      let
        body = generators.toKeyValue { inherit mkKeyValue listsAsDuplicateKeys; };
      in
      sections:
      concatStringsSep "\n" (mapAttrsToList (name: set: "[${mkSectionName name}]\n${body set}") sections);
  };
}

rec {
  usual = "x86_64-linux";
  pipit = usual;
  wagtail = usual;
}

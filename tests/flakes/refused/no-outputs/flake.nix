{
  description = "Nothing here";
}

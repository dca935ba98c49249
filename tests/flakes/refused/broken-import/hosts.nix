inputs:
{
  puffin = ;
}

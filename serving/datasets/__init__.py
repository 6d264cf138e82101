"""Data sets as event histories: the UCI Online Retail years, and shirts that a script draws."""

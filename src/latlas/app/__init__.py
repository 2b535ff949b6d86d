"""The explorer: a local page on which people look at models; it computes nothing that the library does not offer."""

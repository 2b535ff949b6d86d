"""Models of others, made to answer to the protocols."""

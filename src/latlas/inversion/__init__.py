"""From image to code, for images whose code is not known."""

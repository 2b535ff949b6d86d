"""One verb per question. Importing this package imports no torch."""

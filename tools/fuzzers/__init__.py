"""What `tools/fuzz.py` is made of: chance, the judge, the engines, and the loaders with their well-formed files."""

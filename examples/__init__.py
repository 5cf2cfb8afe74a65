"""Things to run: each folder is one example, with a test under ``tests/examples/``."""

"""A sidecar in front of two versions of one service: ``python -m examples.quickstart``."""

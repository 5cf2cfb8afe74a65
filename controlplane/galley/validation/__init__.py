"""Validation of resources in files: with file and line, without a control plane."""

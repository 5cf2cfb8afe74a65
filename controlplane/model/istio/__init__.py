"""Istio's resources as models, one file for each kind. Names and meanings are those of Istio's reference."""

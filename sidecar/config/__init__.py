"""Envoy's protobuf configuration, checked and turned into frozen objects: one file for each resource type."""

"""Mizzen's sidecar beside real Envoy: the same bootstrap, the same bytes, and every difference accounted for."""

"""The data plane: a proxy that runs Envoy's v3 configuration."""

"""Real gRPC and HTTP/2 programs on both sides of the sidecar, and of real Envoy on the same configuration."""

"""Real attacks over HTTP/2 on the running sidecar, from clients and from upstreams, with real Envoy as the control."""

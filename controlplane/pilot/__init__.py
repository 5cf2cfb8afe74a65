"""From the snapshot of a mesh and a proxy to Envoy's resources."""

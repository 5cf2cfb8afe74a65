"""The administration interface: Envoy's endpoints in Envoy's formats, served over the proxy's own HTTP stack."""

"""The control plane's REST interface: resources as Kubernetes serves them, certificates, tokens, status."""

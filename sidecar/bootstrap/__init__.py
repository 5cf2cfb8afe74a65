"""Loading the bootstrap that the proxy starts from."""

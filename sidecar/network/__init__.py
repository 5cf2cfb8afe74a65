"""Network filters: those that decide on a connection, and the terminals tcp_proxy and direct_response."""

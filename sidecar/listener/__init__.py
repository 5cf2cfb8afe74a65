"""Accepting connections: sockets, listener filters, filter-chain match, connection limits, drain."""

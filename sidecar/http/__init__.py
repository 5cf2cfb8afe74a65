"""The HTTP connection manager: connections, streams, the filter chain, local replies."""

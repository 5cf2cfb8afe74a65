"""Envoy resources on their way to proxies: subscriptions, pushes, acknowledgements."""

"""The subscription layer, against a server of the tests, beside real Envoy."""

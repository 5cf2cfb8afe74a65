"""The groups of statistics, one module for each kind of owner. Every field is Envoy's own leaf name."""

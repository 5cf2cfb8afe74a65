"""What certificates cost: `python -m benchmarks citadel`."""

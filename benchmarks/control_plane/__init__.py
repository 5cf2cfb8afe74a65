"""How the control plane carries a large mesh: `python -m benchmarks control-plane`."""

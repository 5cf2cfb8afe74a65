"""Mizzen's control plane: Istio resources in, Envoy's v3 API out.

The folders stand in the order in which a configuration meets them: `api` and `galley` take resources in, `discovery` finds
services, `model` is what all of it means, `pilot` translates it for a proxy, `xds` brings it there. `assembly.py` wires them.
"""

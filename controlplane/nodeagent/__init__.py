"""The node agent: keys are made on the node and stay there; SDS and the SPIFFE Workload API for the node's workloads.

`agent.py` wires it: an identity directory (`identity_directory.py`) is a `Workload` (`workload.py`), which renews its
certificate (`renewal.py`, `control_plane.py`) and follows the trust bundle (`following.py`); what is good now is `Current`
(`current.py`), and goes out over the workload's socket (`listening.py`, `peers.py`) by SDS (`sds.py`) and the Workload API
(`workload_api.py`).
"""

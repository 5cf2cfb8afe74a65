"""How a sidecar comes and goes: its phases, drains, hand-overs between processes, and several workers as one."""

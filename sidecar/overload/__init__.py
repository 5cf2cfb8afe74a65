"""The overload manager: what is watched, when something is done about it, and what."""

"""Analysis: what is right by itself, resource by resource, and yet does not fit together."""

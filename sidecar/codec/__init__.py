"""Wire formats, strictly parsed: no I/O, no clock. Codecs call methods of a sink."""

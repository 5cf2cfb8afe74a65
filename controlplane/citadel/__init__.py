"""The certificate authority: its root, server certificates, tokens."""

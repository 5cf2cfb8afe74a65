"""The certificate authority: its roots, what it issues and to whom, tokens, the trust bundle, the audit log."""

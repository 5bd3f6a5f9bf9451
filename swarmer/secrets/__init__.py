"""What a cluster keeps secret: its CAs, tokens and keys."""

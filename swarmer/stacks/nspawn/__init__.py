"""Nodes as systemd-nspawn containers on this machine."""

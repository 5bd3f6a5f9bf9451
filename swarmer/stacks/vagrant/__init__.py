"""Nodes as virtual machines, made by Vagrant."""

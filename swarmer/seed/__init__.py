"""Seed data: the only configuration that a node receives."""

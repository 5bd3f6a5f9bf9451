"""Announces the containers of a node in consul: what runs, where it is reached, and whether it is healthy.

The registrator compares two states and applies the difference: the services that the containers of this node
should have (`services`, `swarm`: pure functions of docker's inspections) and those which the local consul agent
holds with our mark (`catalog`). Events of docker (`events`) only say when to look again, so a lost, doubled or
late event costs time, never truth.

Its options, and the variables and labels it obeys, are those of gliderlabs/registrator.
"""

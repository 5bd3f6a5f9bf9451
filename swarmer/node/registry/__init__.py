"""The private registry of a cluster: the program around Debian's `docker-registry` on each registry node.

README.md has the path of a push and one line for each module; docs/registry.md has the reasons.
"""

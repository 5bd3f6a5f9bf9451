"""The private registry of a cluster: what stands around Debian's `docker-registry` on each registry node.

`docker-registry` keeps content on the node's own disk, nginx does TLS and the transport of bodies. The program here
decides: who may do what (`access`), where a request goes (`gate`), what a tag means (`truth`, in consul), who may
change that (`leadership`), and that a majority has what is acknowledged (`copies`). docs/registry.md tells why.
"""

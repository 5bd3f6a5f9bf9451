# The registrator announces whatever runs on its node, and shares the labels of swarm services with its peers.
agent "{{node}}" { policy = "read" }
node "{{node}}" { policy = "write" }
service_prefix "" { policy = "write" }
key_prefix "registrator/swarm/" { policy = "read" }

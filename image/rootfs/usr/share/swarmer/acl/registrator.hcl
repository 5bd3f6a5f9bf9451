# The registrator announces the containers of its node, but not under the names of the cluster's own services; and reads
# the labels of swarm services.
agent "{{node}}" { policy = "read" }
node "{{node}}" { policy = "read" }
service_prefix "" { policy = "write" }
service "consul" { policy = "read" }
service "swarm" { policy = "read" }
service "registry" { policy = "read" }
key_prefix "registrator/swarm/" { policy = "read" }

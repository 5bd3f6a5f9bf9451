# A manager shares the labels of swarm services with the registrators of all nodes: tasks don't have them.
key_prefix "registrator/swarm/" { policy = "write" }

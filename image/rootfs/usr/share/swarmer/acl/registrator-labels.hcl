# A manager tells the registrators of all nodes how swarm services want to be announced: a task doesn't know it.
key_prefix "registrator/swarm/" { policy = "write" }

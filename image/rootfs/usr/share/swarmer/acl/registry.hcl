# Whoever holds the lock of the registry leads it.
agent "{{node}}" { policy = "read" }
session "{{node}}" { policy = "write" }
key_prefix "registry/" { policy = "write" }
service "registry" { policy = "write" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }

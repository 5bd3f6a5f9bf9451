# The agent of a node: hands itself this token, and lets everybody on the node look names up.
agent "{{node}}" { policy = "write" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
agent_prefix "" { policy = "read" }

# Whoever shows no token, as those who ask for names: they may look, and change nothing.
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
agent_prefix "" { policy = "read" }

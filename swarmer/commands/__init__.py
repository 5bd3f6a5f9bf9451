"""The work behind single commands, apart from the command line itself."""

"""What single commands do, apart from the command line itself."""

"""The Korean of what the command line, the demo and Click say."""

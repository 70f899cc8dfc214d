"""Korean translations for the command line, the demo and Click."""

"""What is run: the command line and nothing below it."""

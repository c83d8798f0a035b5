"""The agent: what runs next to the program, on every target."""

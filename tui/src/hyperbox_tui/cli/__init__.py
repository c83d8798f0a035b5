"""The ``hyperbox`` command: verbs in plain text and JSON. See README.md."""

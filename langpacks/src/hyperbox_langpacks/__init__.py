"""Language packs: what a language needs to be reloaded fast and right."""

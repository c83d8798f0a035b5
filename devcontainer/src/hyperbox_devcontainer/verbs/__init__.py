"""How the verbs reach a session: an owner-only unix socket. See ``protocol``."""

"""Pure functions from events and plain values to rows and words. No I/O, no terminal."""

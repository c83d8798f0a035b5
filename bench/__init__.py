"""Measures HyperBox beside the tools that people use today, on one machine in one run.

``./dev bench`` runs all of it; ``./dev bench reload --quick`` a part. Every subject is a driver
behind one small Protocol and is reached the way a user reaches it: its command line, its port, its
files.
"""

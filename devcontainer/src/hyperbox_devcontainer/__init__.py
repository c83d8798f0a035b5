"""The workstation side: sessions, targets, configuration, history."""

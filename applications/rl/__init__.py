"""Reinforcement learning across related environments. Empty until built."""

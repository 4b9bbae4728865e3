"""Personalised models for patients and hospitals. Empty until built."""

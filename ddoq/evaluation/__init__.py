"""Protocols, augmentation and statistics."""

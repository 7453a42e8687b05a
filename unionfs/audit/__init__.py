"""Layers compared and examined without a mount."""

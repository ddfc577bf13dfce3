"""Shipped recipes: data only."""

"""Measuring models: sets, figures with their intervals, and the reports that tell them."""

"""From a recipe to a student: what a run is built from, one step, one loop, and what it leaves on disk."""

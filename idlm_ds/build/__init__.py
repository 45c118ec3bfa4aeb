"""Recipes and saved files become objects: networks, processes, data, engines, judges."""

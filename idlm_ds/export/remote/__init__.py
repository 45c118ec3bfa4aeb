"""What exported folders hold beside copies of this package's modules.

These files run from those folders, with torch and transformers and nothing else.
"""

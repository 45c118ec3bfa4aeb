"""Published model layouts, read and written."""

"""Files in and out: safetensors and JSON, never a pickle."""

"""What happens beside training: metrics, console, preview, validation, checkpoints."""

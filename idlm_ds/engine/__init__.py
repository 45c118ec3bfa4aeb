"""The only folder that imports DeepSpeed or torch.distributed."""

"""The LightningModule, its runs and its checkpoints."""

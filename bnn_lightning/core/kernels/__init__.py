"""What exists for speed alone, each beside the plain formula that it replaces."""

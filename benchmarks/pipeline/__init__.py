"""The whole of ``score`` against its own stages, a plain script, and timm."""

"""Batched least squares on hands."""

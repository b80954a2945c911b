"""Motions: what is asked of one, what becomes of it, and streams of frames."""

"""Prediction files: the table `grasp/1`, reading and writing it, object folders, other people's formats."""

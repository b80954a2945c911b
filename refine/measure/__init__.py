"""Measures of a grasp and of files of them."""

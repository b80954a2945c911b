"""What is known besides the pose: forms of input, priors, points of graph estimators."""

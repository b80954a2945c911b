"""From noisy hands to refined ones: costs, solves, hypotheses, the score, how sure the result is."""

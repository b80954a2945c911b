"""From noisy hands to refined ones: costs, solves, samples, the score, how sure the result is."""

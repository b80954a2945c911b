"""Objects, contact fields and the network that predicts them."""

"""The commands of `regrasp`, one module each; `refine.cli` imports only the one that is asked for."""

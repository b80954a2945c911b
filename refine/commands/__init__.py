"""The commands of `regrasp`, one module each; `refine.commands.cli` imports only the one that is asked for."""

"""Networks: encoders, decoders, swappers."""

"""`reppose-serve jitter`: how calm and how late smoothed points are, with the real model in the loop."""

"""The HTTP edge: JSON and multipart to frames, predictions to JSON."""

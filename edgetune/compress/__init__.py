"""Making the model itself smaller, before it is quantised."""

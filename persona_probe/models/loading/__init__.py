"""Loading models from folders, from the Hub and with adapters, and how much memory they take."""

"""Where models come from: folders, the Hub, adapters, and how much memory they take."""

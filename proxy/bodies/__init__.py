"""Bodies and answers of the JSON API as values, which pages show too."""

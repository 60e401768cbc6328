"""What two packages need today, and that knows neither HTTP nor LLMs."""

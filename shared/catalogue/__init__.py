"""What runs carry of the catalogue, whoever starts them: a gateway, or a worker whose run calls an agent."""

"""Code templates: what they are, how they become files, how what they depend on gets into sandboxes."""

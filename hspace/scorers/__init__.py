"""Networks that read images: attributes, identity, regions, features."""

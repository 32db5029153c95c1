"""What an edit does to an image: effect, accuracy, identity preservation, image quality."""

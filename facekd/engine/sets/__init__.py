"""What the verbs of ``facekd data`` do to sets of images: look at them, check, convert, align, pack and draw."""

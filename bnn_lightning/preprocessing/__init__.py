"""What is done to an example before a network sees it: pictures to pixels, columns to features, normalisation."""

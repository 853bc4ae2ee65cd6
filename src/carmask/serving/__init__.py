"""A web page and an HTTP service that cut vehicles out of photos, on one `Segmenter`."""

"""The operator's pages: HTML over the same store and the same verbs as the admin API."""

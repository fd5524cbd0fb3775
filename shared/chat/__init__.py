"""The neutral middle: requests, events, replies. Sans-IO."""

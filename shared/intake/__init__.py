"""What operators bring in: accounts in many forms, read as a stream of lines. Sans-IO."""

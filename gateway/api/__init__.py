"""The admin API: JSON, one file per noun. Only the admin key may use it."""

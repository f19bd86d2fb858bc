"""The commands `check`, `status` and `verify`. Only `verify --cut` changes anything."""

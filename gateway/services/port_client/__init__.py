"""The torrent client that gets the forwarded port."""

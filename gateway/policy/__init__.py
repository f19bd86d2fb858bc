"""Pure decisions: what the firewall, the routes and the state should be. No I/O, no clock."""

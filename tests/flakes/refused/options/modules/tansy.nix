{ fleet.hosts.tansy = { }; }

"""From a request and a routing table to one backend, or to the reason why there is none. No I/O."""

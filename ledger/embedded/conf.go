package embedded

import (
	"fmt"
	"net"
	"strings"
)

// ServerConfig returns the configuration of servers of one's own that are to
// keep the log, instead of those in the ledgers' processes. It has the same
// accounts and permissions as theirs.
//
// What differs between the servers it takes from their environment.
func ServerConfig(members Members) string {
	var routes []string
	var hosts []string
	for _, m := range members {
		if m.Role == RoleLedger {
			routes = append(routes, fmt.Sprintf("    nats-route://%s", net.JoinHostPort(m.Hosts[0], "7604")))
			hosts = append(hosts, fmt.Sprintf("#   %-20s %s", m.Name, strings.Join(m.Hosts, ", ")))
		}
	}
	var pins []string
	for _, m := range members {
		if m.Role == RoleLedger {
			pins = append(pins, fmt.Sprintf("      %q # %s", m.Certificate, m.Name))
		}
	}
	return fmt.Sprintf(confText, strings.Join(hosts, "\n"), maxPayload, DefaultMaxStore, maxMemory,
		clusterName, strings.Join(pins, "\n"), strings.Join(routes, "\n"), accountsText(members.users()))
}

const confText = "" +
	"# Configuration of nats-server for a log of tokenledger that is kept outside of the ledgers' processes: the ledgers\n" +
	"# are started with --nats and not with --nats-cluster. Written by tokenledger nats init, and again whenever it adds a\n" +
	"# name: change it by way of the environment. nats-server -c nats.conf on each machine needs these variables:\n" +
	`#
#   NATS_NAME     the server's name, another one on each; it stays the same for the life of its store
#   NATS_CLIENT   host:port where ledgers and verifiers connect, as in 10.0.0.1:7603
#   NATS_CLUSTER  host:port where the other servers connect, as in 10.0.0.1:7604
` +
	"#   NATS_ROUTE    host:port by which the others reach it, with a host that its certificate is good for, as in l1.example:7604\n" +
	`#   NATS_STORE    folder of the streams; on a disk of its own, closed to other users
#   NATS_CERT     tls.crt, from the folder nodes/<name> of the ledger that has the server's host
#   NATS_CERT_KEY tls.key, from there
#   NATS_CA       ca.crt
#
# The hosts that the certificates are good for:
%s

server_name: $NATS_NAME
listen: $NATS_CLIENT
max_payload: %d

tls: {
  cert_file: $NATS_CERT
  key_file: $NATS_CERT_KEY
  ca_file: $NATS_CA
  verify: true
  min_version: "1.3"
}

jetstream: {
  store_dir: $NATS_STORE
  # What was acknowledged is on disk. The default is to sync every two minutes, and a power cut loses it.
  sync_interval: always
  max_file_store: %d
  max_memory_store: %d
}

cluster: {
  name: %s
  listen: $NATS_CLUSTER
  # Servers tell each other where they are, and by default that is an address, for which no certificate may be good.
  advertise: $NATS_ROUTE
  no_advertise: true
  tls: {
    cert_file: $NATS_CERT
    key_file: $NATS_CERT_KEY
    ca_file: $NATS_CA
    verify: true
    min_version: "1.3"
    # Only these are servers. Without this, a verifier's certificate would do, and permissions do not bind a server.
    pinned_certs: [
%s
    ]
  }
  # All servers, this one included. Change them where the hosts or ports are others.
  routes: [
%s
  ]
}

# Who may do what. The accounts are apart because permissions alone would not hold: an answer goes to the subject that a
# request names, without asking whether whoever asked may publish there.
%s`

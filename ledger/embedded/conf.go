package embedded

import (
	"fmt"
	"net"
	"strings"
)

// ServerConfig returns a configuration file for external nats-server processes that
// store the log in place of the servers in the ledgers' processes. It has the same
// accounts and permissions. Settings that differ between the servers come from
// environment variables.
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
	"# Configuration of external nats-server processes that store the log of tokenledger. Start the ledgers with --nats,\n" +
	"# not with --nats-cluster. tokenledger nats init wrote this file, and overwrites it when it adds a name, so set what\n" +
	"# differs in the environment. Run nats-server -c nats.conf on each machine with these variables:\n" +
	`#
#   NATS_NAME     unique name of the server; it must not change while the server has its store
#   NATS_CLIENT   host:port for connections of ledgers and verifiers, for example 10.0.0.1:7603
#   NATS_CLUSTER  host:port for connections of the other servers, for example 10.0.0.1:7604
#   NATS_ROUTE    host:port at which the others reach this server, for example l1.example:7604; its certificate
#                 must be valid for the host
#   NATS_STORE    folder for the streams, on a disk of its own and not accessible to other users
#   NATS_CERT     tls.crt from the folder nodes/<name> of the ledger with this server's host
#   NATS_CERT_KEY tls.key from the same folder
#   NATS_CA       ca.crt
#
# Hosts that the certificates are valid for:
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
  # Sync each message before it is acknowledged. By default the server syncs every two minutes, and a power cut loses
  # acknowledged messages.
  sync_interval: always
  max_file_store: %d
  max_memory_store: %d
}

cluster: {
  name: %s
  listen: $NATS_CLUSTER
  # By default servers announce IP addresses, for which their certificates may not be valid.
  advertise: $NATS_ROUTE
  no_advertise: true
  tls: {
    cert_file: $NATS_CERT
    key_file: $NATS_CERT_KEY
    ca_file: $NATS_CA
    verify: true
    min_version: "1.3"
    # Accept only the ledgers' certificates. Otherwise a verifier could connect as a server, and permissions do not
    # apply to servers.
    pinned_certs: [
%s
    ]
  }
  # All servers, including this one. If hosts or ports differ, correct them after each nats init.
  routes: [
%s
  ]
}

# Accounts and permissions. Ledgers and verifiers have separate accounts because permissions alone are not enough: the
# server sends an answer to the subject that a request names, without checking that the client may publish there.
%s`

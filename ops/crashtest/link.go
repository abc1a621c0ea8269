package crashtest

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/netfault"
)

// link is how verifiers reach the log: an address that stays the same while the
// ledger listens on another port after each start. The ledger itself cannot
// keep a port, because another process may take it in between.
type link struct {
	ledger *machine
	addr   string
}

func newLink(t testing.TB, ledger *machine) *link {
	t.Helper()
	l := &link{ledger: ledger}
	_, l.addr = netfault.Start(t, l.dial)
	return l
}

// url returns the URL that verifiers connect to.
func (l *link) url() string { return "nats://" + l.addr }

// dial connects to the log. If the ledger has a fixed address, dial does not
// wait for the ledger to report it.
func (l *link) dial() (net.Conn, error) {
	to := l.ledger.cfg.NATSListen
	if strings.HasSuffix(to, ":0") {
		a, ok := l.ledger.addresses()
		if !ok {
			return nil, errors.New("the ledger does not listen")
		}
		u, err := url.Parse(a.NATS)
		if err != nil {
			return nil, err
		}
		to = u.Host
	}
	return net.Dial("tcp", to)
}

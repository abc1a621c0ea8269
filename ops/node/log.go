package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/events/disk"
	"github.com/tokenledger/tokenledger/ledger"
	"github.com/tokenledger/tokenledger/ledger/barrier"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ledger/genesis"
	"github.com/tokenledger/tokenledger/ops/connlimit"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/projector/replica"
)

// validateLog reports problems with the settings of the log.
func (c Config) validateLog(bad func(format string, args ...any)) {
	ledger, cluster, own := c.has(RoleLedger), len(c.NATSCluster) > 0, c.NATS == ""
	switch {
	case cluster && !ledger:
		bad("nats-cluster: only ledgers keep the log together; a verifier names their addresses for clients, as in --nats tls://10.0.0.1:7603,tls://10.0.0.2:7603")
	case cluster && !own:
		bad("nats: with --nats-cluster the ledgers keep the log themselves; leave out one of the two")
	case !ledger && own:
		bad("nats: a verifier without a ledger needs the URL of the log, as in --nats nats://127.0.0.1:7603")
	case !own && c.NATSKey == "" && c.NATSCredentials == "":
		if ledger {
			bad("nats: a ledger whose log is on servers of your own needs --nats-credentials: name the folder that tokenledger nats init made for this ledger; a node that only checks tokens runs with --roles verifier")
		} else {
			bad("nats-key: name the file of the key to connect with; a ledger that listens writes it to verifier.nk in its data folder")
		}
	case !own && c.NATSListen != "":
		bad("nats-listen: other nodes can reach a log only on a ledger that keeps it; leave out --nats or --nats-listen")
	}
	if cluster {
		if err := embedded.CheckRoutes(c.NATSCluster); err != nil {
			bad("nats-cluster: %w", err)
		}
		if c.NATSClusterListen == "" {
			bad("nats-cluster-listen: name the address on which the other ledgers reach this one: host:port of its URL in --nats-cluster")
		}
		if c.NATSCredentials == "" {
			bad("nats-credentials: a cluster needs keys and certificates; tokenledger nats init creates them for all nodes")
		}
	} else if c.NATSClusterListen != "" {
		bad("nats-cluster-listen: it is for ledgers that keep the log together; name their URLs with --nats-cluster")
	}
	if c.NATSCredentials != "" && c.NATSKey != "" {
		bad("nats-key: the credentials in --nats-credentials have the key; leave --nats-key out")
	}
	if own && c.NATSKey != "" && ledger {
		bad("nats-key: a ledger that keeps the log has its own key")
	}
	switch {
	case c.NATSReplicas != 0 && (own || !ledger):
		bad("nats-replicas: it is for a ledger that creates a log on servers of your own; name them with --nats")
	case c.NATSReplicas != 0 && !slices.Contains([]int{1, 3, 5}, c.NATSReplicas):
		bad("nats-replicas: %d is not 1, 3 or 5", c.NATSReplicas)
	}
}

// secretRule returns the rule for key files that other users can read.
func (c Config) secretRule() disk.SecretRule {
	return disk.SecretRule{AnyMode: c.AnyFileMode, Warn: func(path string, exposed *disk.ExposedError) {
		if c.Logger != nil {
			c.Logger.Warn("a key file is exposed and was read all the same", "file", path, "why", exposed.Error())
		}
	}}
}

// credentials reads the folder that nats init created for this node. It returns
// nil if the configuration names none.
func (c Config) credentials() (*embedded.Credentials, error) {
	if c.NATSCredentials == "" {
		return nil, nil
	}
	creds, err := embedded.LoadCredentials(c.NATSCredentials, c.secretRule())
	if err != nil {
		return nil, err
	}
	want := embedded.RoleVerifier
	if c.has(RoleLedger) {
		want = embedded.RoleLedger
	}
	switch ledgers := creds.Members.Ledgers(); {
	case creds.Role != want:
		return nil, fmt.Errorf("nats-credentials: %s holds those of a %s, and this node is a %s",
			c.NATSCredentials, creds.Role, want)
	case c.Name != "" && c.Name != creds.Name:
		return nil, fmt.Errorf(
			"nats-credentials: %s holds those of %s, and this node is called %s: leave --name out, or name the folder of %[3]s",
			c.NATSCredentials, creds.Name, c.Name)
	case len(c.NATSCluster) > 0 && len(ledgers) != len(c.NATSCluster):
		return nil, fmt.Errorf(
			"nats-cluster: it has %d URLs, and the credentials know %d ledgers (%s): name one URL for each",
			len(c.NATSCluster), len(ledgers), strings.Join(ledgers, ", "))
	}
	return creds, nil
}

// replicated reports whether other processes keep the log too, so that it can be
// unavailable while this node works.
func (c Config) replicated() bool { return len(c.NATSCluster) > 0 || c.NATS != "" }

// openLog starts the log or connects to it. It does not wait for other processes
// that keep the log: see awaitStream.
func (n *Node) openLog(ctx context.Context) error {
	if n.cfg.NATS != "" {
		return n.connectLog()
	}
	if err := n.startServer(ctx); err != nil {
		return err
	}
	var err error
	if n.conn, err = n.server.connect(n.connectionLog()...); err == nil && !n.cfg.replicated() {
		err = n.openStream(ctx)
	}
	if err != nil {
		return errors.Join(err, n.closeLog())
	}
	return nil
}

// connectLog connects to a log in other processes.
func (n *Node) connectLog() error {
	var opts []nats.Option
	if n.creds != nil {
		opts = n.creds.Options()
	} else {
		key, err := embedded.LoadKey(n.cfg.NATSKey, n.cfg.secretRule())
		if err != nil {
			return fmt.Errorf("key for the log: %w", err)
		}
		opts = embedded.VerifierOptions(key)
		if n.cfg.has(RoleLedger) {
			opts = embedded.LedgerOptions(key)
		}
	}
	opts = append(opts,
		nats.RetryOnFailedConnect(true),
		nats.Timeout(n.cfg.connectTimeout()),
		// The servers are the ones in --nats. The library shuffles them once, so
		// that the nodes spread over them, and tries them in turn. A server may
		// announce addresses of others that are in no certificate.
		nats.IgnoreDiscoveredServers(),
	)
	opts = append(opts, n.connectionLog()...)
	var err error
	if n.conn, err = nats.Connect(n.cfg.NATS, opts...); err != nil {
		return fmt.Errorf("connect to the log at %s: %w", n.cfg.NATS, err)
	}
	return nil
}

// startServer starts the log's server in this process.
func (n *Node) startServer(ctx context.Context) error {
	cfg := embedded.Config{
		Dir: n.dir.File(datadir.Log), Listen: n.cfg.NATSListen, Credentials: n.creds, Logger: n.log,
		MaxConnections: max(64, n.connectionLimits()[connlimit.Log]),
	}
	if len(n.cfg.NATSCluster) > 0 {
		// The store must not take part in elections before it is known to be
		// whole, or why it is empty.
		cfg.Cluster = &embedded.Cluster{Listen: n.cfg.NATSClusterListen, Routes: n.cfg.NATSCluster, Hold: true}
	}
	if n.creds == nil {
		var err error
		if cfg.LedgerKey, err = embedded.LoadOrCreateKey(n.dir.File(datadir.LedgerKey)); err != nil {
			return err
		}
		verifier, err := embedded.LoadOrCreateKey(n.dir.File(datadir.VerifierKey))
		if err != nil {
			return err
		}
		cfg.VerifierKey = verifier.Public()
		if err := n.dir.WriteChanged(datadir.Signer, []byte(cfg.LedgerKey.Public()+"\n")); err != nil {
			return err
		}
		n.signer = cfg.LedgerKey
	}
	var err error
	n.server, err = startLogServer(ctx, cfg)
	if err == nil && cfg.Cluster == nil {
		n.copy.set(ledger.CopyWhole, embedded.Copy{}, "") // the start has read all of it
	}
	if err == nil && n.creds != nil {
		watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.server.watchMembers(watch, n.creds, n.log)
		}()
		n.stop = func() {
			cancel()
			<-done
		}
	}
	var address *net.OpError
	if errors.As(err, &address) {
		flag := "--nats-listen"
		if n.cfg.NATSClusterListen != "" && strings.Contains(err.Error(), n.cfg.NATSClusterListen) {
			flag = "--nats-cluster-listen"
		}
		return fmt.Errorf("%w; name another address with %s", err, flag)
	}
	return err
}

// logParts are the parts of a node for its log.
type logParts struct {
	creds  *embedded.Credentials // nil if keys are used without certificates
	server *logServer            // nil if other processes keep the log
	conn   *nats.Conn
	copy   logCopy
	leases embedded.LeasesInfo // set by openLog or awaitStream, for a ledger

	leasesMissing time.Duration // when the lease stream was first found missing; 0 if it was not
	signer        embedded.Key  // a ledger's own, for snapshots

	answering *nats.Subscription // tells other ledgers what this one knows of the log
	stop      func()             // stops watching the list of members; may be nil
}

// connectionLog logs changes of the connection to the log, once each instead of
// at every try.
func (n *Node) connectionLog() []nats.Option {
	var mu sync.Mutex
	last := ""
	say := func(level slog.Level, text string, attrs ...any) {
		mu.Lock()
		defer mu.Unlock()
		now := fmt.Sprint(text, attrs)
		if now != last {
			n.log.Log(context.Background(), level, text, append([]any{"url", n.cfg.NATS}, attrs...)...)
		}
		last = now
	}
	return []nats.Option{
		nats.ReconnectErrHandler(
			func(_ *nats.Conn, err error) { say(slog.LevelWarn, "cannot connect to the log", "err", err) },
		),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrSlowConsumer) {
				return // dropped messages are fetched
			}
			say(slog.LevelWarn, "the log's server reported an error", "err", err)
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			switch {
			case n.quiet.Swap(false): // after a move that was not logged
			case n.server != nil: // in this process, without a URL
				say(slog.LevelInfo, "connected to the log again")
			default:
				say(slog.LevelInfo, "connected to the log again", "server", conn.ConnectedUrlRedacted())
			}
		}),
	}
}

// openStream opens the stream. It creates the stream if this folder never had one.
func (n *Node) openStream(ctx context.Context) error {
	js, err := jetstream.New(n.conn)
	if err != nil {
		return err
	}
	note, err := n.dir.ReadNote()
	if err != nil {
		return err
	}
	info, err := embedded.OpenStream(ctx, js)
	switch {
	case err == nil && note.Known() && info.Epoch != note.Epoch:
		return n.otherLog(info.Epoch, note.Epoch)
	case err == nil:
		err := n.openLeases(ctx, js, info)
		for errors.Is(err, errLeaseStreamMissing) {
			if !clock.Sleep(ctx, askEvery) {
				return ctx.Err()
			}
			err = n.openLeases(ctx, js, info)
		}
		return err
	case !errors.Is(err, embedded.ErrNoStream):
		return err
	case note.Known(), replica.Exists(n.dir.File(datadir.Index)):
		return n.logGone()
	}
	return n.createStream(ctx, js, newEpoch())
}

func newEpoch() string { return strings.ToLower(ulid.Make().String()) }

func (n *Node) otherLog(have, want string) error {
	return fmt.Errorf("%w: the log in %s is another one (epoch %s, not %s); restore the folder from a backup",
		genesis.ErrLogGone, n.dir.Path(), have, want)
}

func (n *Node) logGone() error {
	return fmt.Errorf(
		"%w: %s had one, and a new one would forget every revocation; restore it from a backup, or start with another --data",
		genesis.ErrLogGone, n.dir.Path())
}

// createStream creates the log and the lease stream.
func (n *Node) createStream(ctx context.Context, js jetstream.JetStream, epoch string) error {
	maxBytes := int64(embedded.DefaultMaxBytes)
	if n.server != nil {
		_, total, err := disk.Space(n.dir.Path())
		if err != nil {
			return err
		}
		// This limit is for a disk that other programs fill too. The node also
		// watches the free space.
		maxBytes = min(int64(total/5*4), maxBytes)
	}
	_, err := embedded.CreateStream(
		ctx,
		js,
		embedded.StreamLimits{MaxBytes: maxBytes, Replicas: n.cfg.replicas(), Epoch: epoch, Lease: n.cfg.Lease},
	)
	if err != nil {
		return err
	}
	return n.openLeases(ctx, js, embedded.StreamInfo{Epoch: epoch})
}

// errLeaseStreamMissing reports that the lease stream is missing, and that it is too early
// to create another one.
var errLeaseStreamMissing = errors.New("the lease stream is missing; it is created again when every earlier lease has expired")

// openLeases opens the lease stream, or creates it if it is missing. A node that
// renewed its lease in a lost stream may answer until that lease expires, and a
// ledger that reads the new stream does not know of it. So if the log holds
// events, openLeases waits for a lease and a margin first.
func (n *Node) openLeases(ctx context.Context, js jetstream.JetStream, log embedded.StreamInfo) error {
	if _, err := embedded.OpenLeases(ctx, js); errors.Is(err, embedded.ErrNoLeases) && log.Last > 0 {
		if n.leasesMissing == 0 {
			n.leasesMissing = clock.Boottime()
			n.log.Warn("the lease stream is missing; it is created again when every earlier lease has expired",
				"wait", n.cfg.Lease)
		}
		if clock.Boottime() < n.leasesMissing+n.cfg.Lease+barrier.Margin(n.cfg.Lease) {
			return errLeaseStreamMissing
		}
	}
	var err error
	n.leases, err = embedded.EnsureLeases(
		ctx,
		js,
		embedded.LeaseLimits{Epoch: log.Epoch, Lease: n.cfg.Lease, Replicas: n.cfg.replicas()},
	)
	return err
}

// replicas is the number of copies of the log that this ledger creates.
func (c Config) replicas() int {
	switch {
	case len(c.NATSCluster) > 0:
		return len(c.NATSCluster)
	case c.NATS == "":
		return 1
	case c.NATSReplicas == 0:
		return DefaultNATSReplicas
	}
	return c.NATSReplicas
}

// closeLog closes the connection to the log, and stops the log's server if it is
// in this process.
func (n *Node) closeLog() error {
	if n.stop != nil {
		n.stop()
	}
	if n.conn != nil {
		// Messages that have arrived are still handled. No caller waits for an
		// answer any more.
		drained := n.conn.StatusChanged(nats.CLOSED)
		if err := n.conn.Drain(); err == nil {
			select {
			case <-drained:
			case <-time.After(shutdownTimeout / 2):
			}
		}
		n.conn.Close()
	}
	if n.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	return n.server.shutdown(ctx)
}

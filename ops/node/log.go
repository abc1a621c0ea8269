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
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/projector/replica"
)

// validateLog reports what is wrong with where the log is kept.
func (c Config) validateLog(bad func(format string, args ...any)) {
	ledger, cluster, own := c.has(RoleLedger), len(c.NATSCluster) > 0, c.NATS == ""
	switch {
	case cluster && !ledger:
		bad(
			"nats-cluster: only ledgers keep the log together; a verifier names their addresses for clients, as in --nats tls://10.0.0.1:7603,tls://10.0.0.2:7603",
		)
	case cluster && !own:
		bad("nats: with --nats-cluster the ledgers keep the log themselves; leave out one of the two")
	case !ledger && own:
		bad("nats: a verifier without a ledger needs the URL of the log, as in --nats nats://127.0.0.1:7603")
	case !own && c.NATSKey == "" && c.NATSCredentials == "":
		if ledger {
			bad(
				"nats: a ledger whose log is on servers of your own needs --nats-credentials: name the folder that tokenledger nats init made for this ledger; a node that only checks tokens runs with --roles verifier",
			)
		} else {
			bad("nats-key: name the file of the key to connect with; a ledger that listens writes it to verifier.nk in its data folder")
		}
	case !own && c.NATSListen != "":
		bad("nats-listen: only a ledger that keeps the log has one that others could reach")
	}
	if cluster {
		if err := embedded.CheckRoutes(c.NATSCluster); err != nil {
			bad("nats-cluster: %w", err)
		}
		if c.NATSClusterListen == "" {
			bad(
				"nats-cluster-listen: name where the other ledgers reach this one: host:port of its URL in --nats-cluster",
			)
		}
		if c.NATSCredentials == "" {
			bad(
				"nats-credentials: a cluster needs keys and certificates; tokenledger nats init makes them for all nodes",
			)
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
		bad("nats-replicas: it is for a ledger that begins a log on servers of your own; name them with --nats")
	case c.NATSReplicas != 0 && !slices.Contains([]int{1, 3, 5}, c.NATSReplicas):
		bad("nats-replicas: %d is not 1, 3 or 5", c.NATSReplicas)
	}
}

// secretRule says which key files are read.
func (c Config) secretRule() disk.SecretRule {
	return disk.SecretRule{AnyMode: c.AnyFileMode, Warn: func(path string, exposed *disk.ExposedError) {
		if c.Logger != nil {
			c.Logger.Warn("a key file is exposed and was read all the same", "file", path, "why", exposed.Error())
		}
	}}
}

// credentials reads the folder that nats init made for this node, nil where
// none is named.
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
		return nil, fmt.Errorf(
			"nats-credentials: %s holds those of a %s, and this node is a %s",
			c.NATSCredentials,
			creds.Role,
			want,
		)
	case c.Name != "" && c.Name != creds.Name:
		return nil, fmt.Errorf(
			"nats-credentials: %s holds those of %s, and this node is called %s: leave --name out, or name the folder of %[3]s",
			c.NATSCredentials,
			creds.Name,
			c.Name,
		)
	case len(c.NATSCluster) > 0 && len(ledgers) != len(c.NATSCluster):
		return nil, fmt.Errorf(
			"nats-cluster: it has %d URLs, and the credentials know %d ledgers (%s): name one URL for each",
			len(c.NATSCluster),
			len(ledgers),
			strings.Join(ledgers, ", "),
		)
	}
	return creds, nil
}

// replicated reports whether the log is kept by others too, so that it can be
// away while this node is well.
func (c Config) replicated() bool { return len(c.NATSCluster) > 0 || c.NATS != "" }

// openLog starts the log or connects to it. Where the log is kept by others too
// it does not wait for them: see awaitStream.
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

// connectLog connects to a log that other processes keep.
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
		// The servers are those that --nats names, in one order that is random
		// at first: the nodes spread over them, and each tries one after the
		// other. What a server says of others could be an address that no
		// certificate is good for.
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
	cfg := embedded.Config{Dir: n.dir.File(datadir.Log), Listen: n.cfg.NATSListen, Credentials: n.creds, Logger: n.log}
	if len(n.cfg.NATSCluster) > 0 {
		// A disk must not have a say before it is known that what it holds is
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
		n.copy.set(ledger.CopyWhole, embedded.Copy{}, "") // the start has read it through
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

// logParts are what a node holds for its log.
type logParts struct {
	creds  *embedded.Credentials // nil where keys are used without certificates
	server *logServer            // nil where the log is kept by other processes
	conn   *nats.Conn
	copy   logCopy
	leases embedded.LeasesInfo // set by openLog or awaitStream, for a ledger

	leasesGone time.Duration // since when the stream of leases was found missing; 0 while it was not
	signer     embedded.Key  // a ledger's own, for snapshots

	answering *nats.Subscription // tells other ledgers what was begun here
	stop      func()             // ends what follows the list of members; nil where nothing does
}

// connectionLog says what becomes of the connection to the log: once each, not
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
				return // what was dropped is fetched
			}
			say(slog.LevelWarn, "the log's server refused something", "err", err)
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			switch {
			case n.quiet.Swap(false): // a move that was not logged
			case n.server != nil: // in this process, where there is no URL
				say(slog.LevelInfo, "connected to the log again")
			default:
				say(slog.LevelInfo, "connected to the log again", "server", conn.ConnectedUrlRedacted())
			}
		}),
	}
}

// openStream opens the stream, or creates it where this folder never had one.
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
		for errors.Is(err, errLeasesGone) {
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
	return fmt.Errorf(
		"%w: the log in %s is another one (epoch %s, not %s); restore the folder from a backup",
		genesis.ErrLogGone,
		n.dir.Path(),
		have,
		want,
	)
}

func (n *Node) logGone() error {
	return fmt.Errorf(
		"%w: %s had one, and beginning anew would forget every revocation; restore it from a backup, or begin elsewhere with another --data",
		genesis.ErrLogGone,
		n.dir.Path(),
	)
}

// createStream begins the log and its leases.
func (n *Node) createStream(ctx context.Context, js jetstream.JetStream, epoch string) error {
	most := int64(embedded.DefaultMaxBytes)
	if n.server != nil {
		_, total, err := disk.Space(n.dir.Path())
		if err != nil {
			return err
		}
		// The hard stop is for a disk that others fill too; what is left of it is
		// watched besides.
		most = min(int64(total/5*4), most)
	}
	_, err := embedded.CreateStream(
		ctx,
		js,
		embedded.StreamLimits{MaxBytes: most, Replicas: n.cfg.replicas(), Epoch: epoch, Lease: n.cfg.Lease},
	)
	if err != nil {
		return err
	}
	return n.openLeases(ctx, js, embedded.StreamInfo{Epoch: epoch})
}

// errLeasesGone reports that the stream of leases is missing, and that it is too
// early to make it anew.
var errLeasesGone = errors.New("the stream of leases is gone; it is made anew when every lease from before is over")

// openLeases opens the stream of leases, or makes it where it is missing. Whoever
// has renewed in one that is gone may answer until its lease is over, and a
// ledger that reads the new one would not know of it. So while the log holds
// events, a lease and a margin pass first.
func (n *Node) openLeases(ctx context.Context, js jetstream.JetStream, log embedded.StreamInfo) error {
	if _, err := embedded.OpenLeases(ctx, js); errors.Is(err, embedded.ErrNoLeases) && log.Last > 0 {
		if n.leasesGone == 0 {
			n.leasesGone = clock.Boottime()
			n.log.Warn(
				"the stream of leases is gone; it is made anew when every lease from before is over",
				"wait",
				n.cfg.Lease,
			)
		}
		if clock.Boottime() < n.leasesGone+n.cfg.Lease+barrier.Margin(n.cfg.Lease) {
			return errLeasesGone
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

// replicas is how many copies of the log a ledger that begins it asks for.
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

// closeLog ends the connection to the log, and the log's server where it is
// this process's.
func (n *Node) closeLog() error {
	if n.stop != nil {
		n.stop()
	}
	if n.conn != nil {
		// What was received is dealt with; what was sent has been answered, or
		// nobody waits for it any more.
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

package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/datadir"
	"github.com/tokenledger/tokenledger/projector/snapshot"
)

// errNoSigner reports that the keys that may sign a snapshot are unknown.
var errNoSigner = errors.New(
	"cannot verify a snapshot without a ledger's public key: copy ledger.pub with verifier.nk, or use the credentials of nats init",
)

// signers returns the public keys that may sign snapshots.
func (n *Node) signers() ([]string, error) {
	if n.creds != nil {
		var keys []string
		for _, m := range n.creds.Members {
			if m.Role == embedded.RoleLedger {
				keys = append(keys, m.Key)
			}
		}
		return keys, nil
	}
	path := n.dir.File(datadir.Signer)
	if n.cfg.NATSKey != "" {
		path = filepath.Join(filepath.Dir(n.cfg.NATSKey), datadir.Signer)
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoSigner
	}
	if err != nil {
		return nil, err
	}
	key := strings.TrimSpace(string(raw))
	if !nkeys.IsValidPublicUserKey(key) {
		return nil, errNoSigner
	}
	return []string{key}, nil
}

// fetchSnapshot fills the folder of a new index from the latest snapshot, so that
// only later events are read from the log.
func (n *Node) fetchSnapshot(ctx context.Context, dir string) error {
	keys, err := n.signers()
	if err != nil {
		return err
	}
	said := time.Now()
	_, err = snapshot.InstallLatest(ctx, &snapshot.Store{Conn: n.conn}, dir, snapshot.Options{
		Wanted: snapshot.Wanted{Keys: keys}, Reserve: datadir.IndexReserve, Logger: n.log,
		Progress: func(done, total int64) {
			n.fetched.Store(done)
			if time.Since(said) > time.Second {
				said = time.Now()
				n.log.Info("reading a snapshot of the index", "bytes", done, "of", total)
			}
		},
	})
	return err
}

// publishSnapshots writes snapshots of this ledger's index. It writes none on
// external servers without credentials, because no node could verify the
// signature.
func (n *Node) publishSnapshots() error {
	p, err := n.publisher(0)
	if err != nil || p == nil {
		return err
	}
	n.parts.run("publish snapshots", p.Run)
	return nil
}

// publisher returns a publisher that writes a snapshot after a number of events,
// or nil if this ledger has no key to sign with.
func (n *Node) publisher(every events.Position) (*snapshot.Publisher, error) {
	key := n.signer
	if n.creds != nil {
		key = n.creds.Key
	}
	if key.Public() == "" {
		return nil, nil
	}
	return snapshot.NewPublisher(snapshot.PublisherConfig{
		Conn: n.conn, Index: n.index.Projector, Sign: key.Sign,
		Replicas: n.cfg.replicas(), Events: every, Logger: n.log,
	})
}

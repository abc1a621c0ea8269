package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/disk"
)

// ErrFolder reports a folder that is not safe for secrets, because another user can
// write to it.
var ErrFolder = errors.New("folder is not safe for secrets")

// takeDir prepares dir for a server and locks it until release is called. Two
// servers on the same files would destroy them.
func takeDir(dir string) (release func(), err error) {
	defer func() {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: give the folder to the user that runs the ledger, or choose another", err)
		}
	}()
	// dir itself may be a mount, or hold other files, so its mode stays. Only the
	// server's own folder is closed to other users.
	store := filepath.Join(dir, server.JetStreamStoreDir)
	if err := os.MkdirAll(store, 0o700); err != nil {
		return nil, fmt.Errorf("create the store folder: %w", err)
	}
	if err := os.Chmod(store, 0o700); err != nil {
		return nil, fmt.Errorf("close the store folder to other users: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|disk.NoFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store folder: %w", err)
	}
	if err := disk.Lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another server: stop it, or choose another folder: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// checkKind refuses to start a clustered server on a single server's folder, and a
// single server on a clustered server's folder. A cluster deletes streams that it
// did not create. A single server would treat one copy as the whole log.
func checkKind(dir string, clustered bool) error {
	store := filepath.Join(dir, server.JetStreamStoreDir)
	has := func(elem ...string) (bool, error) {
		_, err := os.Stat(filepath.Join(append([]string{store}, elem...)...))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	meta, err := has(systemAccount, "_js_", "_meta_")
	if err != nil {
		return err
	}
	stream, err := has(ledgerAccount, "streams", events.StreamName)
	if err != nil {
		return err
	}
	switch {
	case clustered && stream && !meta:
		return fmt.Errorf(
			"%s holds the log of a single ledger, which a cluster would delete: start the ledger as before, without a cluster, or restore a backup into the cluster",
			dir,
		)
	case !clustered && meta:
		return fmt.Errorf("%s holds a cluster's copy of a log: start the ledger as a member of the cluster, as before", dir)
	}
	return nil
}

// systemAccount is the server's own account. Its folder holds the Raft groups of a
// cluster.
const systemAccount = "$SYS"

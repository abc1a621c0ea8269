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

// ErrFolder reports a folder that is no place for secrets, because another user may
// write it.
var ErrFolder = errors.New("folder is not safe for secrets")

// takeDir makes dir ready for a server, and keeps others out of it until
// release is called. Two servers on the same files would ruin them.
func takeDir(dir string) (release func(), err error) {
	defer func() {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: give the folder to the user that runs the ledger, or choose another", err)
		}
	}()
	// dir itself may be a mount or a folder that holds other things too, so
	// only what is the server's own is closed to others where it exists.
	store := filepath.Join(dir, server.JetStreamStoreDir)
	if err := os.MkdirAll(store, 0o700); err != nil {
		return nil, fmt.Errorf("make the store folder: %w", err)
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
		return nil, fmt.Errorf("another server uses %s: stop it, or choose another folder: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// checkKind refuses a folder whose streams a server of the other kind keeps. To
// a cluster, streams that it did not make are left over from something, and it
// deletes them; a server alone would take one copy for the whole.
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
			"%s has a log that one ledger kept alone, and a cluster would delete it: start it as before, without a cluster, or restore its backup into one",
			dir,
		)
	case !clustered && meta:
		return fmt.Errorf("%s has a cluster's copy of a log: start it as a member of the cluster, as before", dir)
	}
	return nil
}

// systemAccount is the server's own; its folder holds what the servers of a
// cluster agree on.
const systemAccount = "$SYS"

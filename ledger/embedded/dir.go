package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"
)

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
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store folder: %w", err)
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("another server uses %s: stop it, or choose another folder: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

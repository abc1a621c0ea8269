package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tokenledger/tokenledger/events/disk"
)

// The seal is a list of files with size and checksum. It is written after a clean
// stop of the server, and removed before the next server opens the store. It
// detects truncated files, and damage to files without checksums of their own.

const sealFile = "sealed.json"

// sealed is the entry of one file in a seal.
type sealed struct {
	Size int64  `json:"size"`
	Sum  string `json:"sum"`
}

// sealedTail is the number of bytes at a file's end that its checksum covers. Block
// files have checksums of their own and are too large to be read twice.
const sealedTail = 64 << 10

// sealable reports whether the seal lists a file of the store.
func sealable(path string) bool {
	switch name := filepath.Base(path); {
	case strings.HasSuffix(name, ".blk"), strings.HasPrefix(name, "snap."):
		return !strings.HasSuffix(name, ".tmp")
	default:
		return name == "tav.idx" || name == "peers.idx" || name == server.JetStreamMetaFile ||
			name == server.JetStreamMetaFileSum
	}
}

// discarded reports whether the server deletes a folder of the store. It renames
// the folder and deletes it in a goroutine that its shutdown does not wait for,
// so files in it disappear after the server has stopped. A purge leaves
// "__msgs__" (and "__new_msgs__" while it runs), a deleted stream or Raft group a
// name with a dot.
func discarded(folder string) bool {
	return folder == "__msgs__" || folder == "__new_msgs__" || strings.HasPrefix(folder, ".")
}

// sealOf returns the entry of a file.
func sealOf(path string) (sealed, error) {
	f, err := os.Open(path)
	if err != nil {
		return sealed{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return sealed{}, err
	}
	hash := sha256.New()
	if _, err := f.Seek(max(0, info.Size()-sealedTail), io.SeekStart); err != nil {
		return sealed{}, err
	}
	if _, err := io.Copy(hash, f); err != nil {
		return sealed{}, err
	}
	return sealed{info.Size(), hex.EncodeToString(hash.Sum(nil))}, nil
}

// writeSeal writes the seal of a stopped server's store.
func writeSeal(dir string) error {
	store := filepath.Join(dir, server.JetStreamStoreDir)
	files := map[string]sealed{}
	err := filepath.WalkDir(store, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err == nil && e.IsDir() && discarded(e.Name()):
			return fs.SkipDir
		case err != nil || e.IsDir() || !sealable(path):
			return err
		}
		name, err := filepath.Rel(store, path)
		if err == nil {
			files[filepath.ToSlash(name)], err = sealOf(path)
		}
		return err
	})
	if err != nil {
		return err
	}
	b, err := json.Marshal(files)
	if err != nil {
		return err
	}
	return disk.ReplaceExclusive(filepath.Join(dir, sealFile), b)
}

// checkSeal compares the store with its seal, and reports whether it has one.
func checkSeal(dir string) (bool, error) {
	raw, err := os.ReadFile(filepath.Join(dir, sealFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	files := map[string]sealed{}
	if json.Unmarshal(raw, &files) != nil {
		return false, nil // the seal itself is damaged; treat it as missing
	}
	for name, want := range files {
		path := filepath.Join(dir, server.JetStreamStoreDir, filepath.FromSlash(name))
		switch got, err := sealOf(path); {
		case errors.Is(err, fs.ErrNotExist):
			return true, &storeFault{file: path, why: "missing since the last clean stop"}
		case err != nil:
			return true, err
		case got.Size != want.Size:
			return true, &storeFault{
				file: path,
				why:  fmt.Sprintf("has %d bytes, but had %d at the last clean stop", got.Size, want.Size),
			}
		case got != want:
			return true, &storeFault{file: path, why: "changed since the last clean stop"}
		}
	}
	return true, nil
}

// breakSeal removes the seal. Call it before a server opens the store.
func breakSeal(dir string) error {
	if err := os.Remove(filepath.Join(dir, sealFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return disk.SyncDir(dir)
}

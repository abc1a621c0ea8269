package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server"
)

// The folder of a Raft group holds the group's log in block files, its last
// snapshot, its term and vote, and its members. The first two have checksums. The
// others have none: this file checks that they fit the rest, and after a clean stop
// the seal has their checksums.

// raftGroup is the content of a Raft group's folder.
type raftGroup struct {
	stream string // the stream that the group replicates, empty for another group
	// snapshot is the stream's last position in the last snapshot. Messages up to
	// there are in the stream's blocks and synced.
	snapshot uint64
}

// digest64 returns the checksum that the server adds to a file.
func digest64(name string, parts ...[]byte) []byte {
	key := sha256.Sum256([]byte(name))
	hash, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	for _, p := range parts {
		_, _ = hash.Write(p)
	}
	return hash.Sum(nil)
}

// storeMeta is the part of a store's meta.inf that matters here.
type storeMeta struct {
	Name     string            `json:"name"`
	Metadata map[string]string `json:"metadata"`
}

// readMeta reads a store's metadata file and verifies its checksum. The file may be
// missing if the process crashed while the server created the store.
func readMeta(store string) (storeMeta, error) {
	var meta storeMeta
	name := filepath.Join(store, server.JetStreamMetaFile)
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(raw) == 0 {
		return meta, nil
	}
	if err != nil {
		return meta, err
	}
	sum, err := os.ReadFile(filepath.Join(store, server.JetStreamMetaFileSum))
	if errors.Is(err, fs.ErrNotExist) {
		return meta, nil
	}
	if err != nil {
		return meta, err
	}
	if want := hex.EncodeToString(digest64(filepath.Base(store), raw)); want != string(sum) {
		return meta, &storeFault{file: name, why: "wrong checksum"}
	}
	if err := json.Unmarshal(raw, &meta); err != nil {
		return meta, &storeFault{file: name, why: err.Error()}
	}
	return meta, nil
}

// checkGroup checks the folder of a Raft group.
func checkGroup(ctx context.Context, dir string, members int) (raftGroup, error) {
	var g raftGroup
	meta, err := readMeta(dir)
	if err != nil {
		return g, err
	}
	if meta.Metadata["type"] == "stream" {
		g.stream = meta.Metadata["stream"]
	}
	name := filepath.Base(dir)
	index, data, err := lastSnapshot(dir, name)
	if err != nil {
		return g, err
	}
	if g.stream != "" && data != nil {
		state, err := server.DecodeStreamState(data)
		if err != nil {
			return g, &storeFault{file: filepath.Join(dir, "snapshots"), why: err.Error()}
		}
		g.snapshot = state.LastSeq
	}
	// Entries up to the snapshot may have been removed.
	last, term := index, uint64(0)
	err = readBlocks(ctx, dir, name, func(r record) error {
		switch {
		case r.removed, r.sequence <= index:
			return nil
		case r.sequence > last+1:
			return fmt.Errorf("entry %d follows entry %d", r.sequence, last)
		case len(r.message) < 16:
			return errors.New("an entry is too short")
		}
		// If an entry was replaced, its replacement comes later, with a lower or equal
		// sequence.
		last, term = r.sequence, binary.LittleEndian.Uint64(r.message[8:])
		return nil
	})
	var fault *storeFault
	if errors.As(err, &fault) && fault.torn {
		err = nil // the server truncates it; ops/design/0014 explains why that is safe
	}
	if err != nil {
		return g, err
	}
	return g, errors.Join(checkVote(dir, term), checkPeers(dir, members))
}

// lastSnapshot returns the index and the data of the last snapshot, zero and nil
// if there is none.
func lastSnapshot(dir, group string) (uint64, []byte, error) {
	snapshots := filepath.Join(dir, "snapshots")
	entries, err := os.ReadDir(snapshots)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	var term, index uint64
	file := ""
	for _, e := range entries {
		var t, i uint64
		if _, err := fmt.Sscanf(e.Name(), "snap.%d.%d", &t, &i); err != nil ||
			e.Name() != fmt.Sprintf("snap.%d.%d", t, i) {
			continue
		}
		if file == "" || t > term || t == term && i > index {
			term, index, file = t, i, filepath.Join(snapshots, e.Name())
		}
	}
	if file == "" {
		return 0, nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, nil, err
	}
	const header = 20 // term, index, length of the members
	le := binary.LittleEndian
	bad := &storeFault{file: file, why: "wrong checksum"}
	if len(b) < header+recordChecksum {
		return 0, nil, bad
	}
	end := len(b) - recordChecksum
	peers := int(le.Uint32(b[16:]))
	switch {
	case !bytes.Equal(b[end:], digest64(group, b[:end])), peers > end-header:
		return 0, nil, bad
	case le.Uint64(b) != term || le.Uint64(b[8:]) != index:
		bad.why = "holds another snapshot than its name says"
		return 0, nil, bad
	}
	return index, b[header+peers : end], nil
}

// peerID is the length of a server's id within Raft.
const peerID = 8

// checkVote checks the file of the term and vote. Its term must not be below the
// term of the last entry: a server that has forgotten its vote could vote twice.
func checkVote(dir string, term uint64) error {
	file := filepath.Join(dir, "tav.idx")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && term == 0 {
		return nil
	}
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case len(b) != 8 && len(b) != 8+peerID:
		return &storeFault{file: file, why: fmt.Sprintf("has %d bytes; want 8 or %d", len(b), 8+peerID)}
	case binary.LittleEndian.Uint64(b) < term:
		have := binary.LittleEndian.Uint64(b)
		return &storeFault{file: file, why: fmt.Sprintf("has term %d, but the log has term %d", have, term)}
	case !plainID(b[8:]):
		return &storeFault{file: file, why: "does not hold a server's id"}
	}
	return nil
}

// checkPeers checks the file of the members.
func checkPeers(dir string, members int) error {
	file := filepath.Join(dir, "peers.idx")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	bad := &storeFault{file: file, why: "does not list the members of the cluster"}
	if len(b) < 10 {
		return bad
	}
	size, count := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if size > uint32(members) || count > uint32(members) || len(b) != 10+int(count)*peerID || !plainID(b[8:len(b)-2]) {
		return bad
	}
	return nil
}

// plainID reports whether b holds only letters and digits, as servers' ids do.
func plainID(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

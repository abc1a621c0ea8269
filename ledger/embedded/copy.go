package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/clock"
	"github.com/tokenledger/tokenledger/events/disk"
)

// ErrCopyDamaged reports that this server's own copy of the log is damaged: a file
// of its store is missing, changed or truncated.
var ErrCopyDamaged = errors.New("this ledger's own copy of the log is damaged")

// Copy is the range of positions that a server's own copy of the log holds.
type Copy struct {
	First, Last events.Position // zero if it is empty
}

// markFile marks a copy that was found damaged while it was in use.
const markFile = "damaged"

// MarkDamaged marks the copy in dir as damaged. The next CheckCopy then reports it
// as damaged even if it finds no damage itself.
func MarkDamaged(dir, why string) error {
	return disk.ReplaceExclusive(filepath.Join(dir, markFile), []byte(why+"\n"))
}

// CheckCopy checks the store in dir before a server opens it, because a server
// truncates a block that it cannot read and continues. No server may have the store
// open. CheckCopy verifies the checksum of every record and that LEDGER has every
// position from 1 to its last. In a cluster, it also verifies the Raft files of the
// server; members is the number of members. The error is an ErrCopyDamaged that
// names the file.
//
// The last block may end in a write that a crash interrupted. A clustered server
// restores it from its Raft log; CheckCopy removes the index that would hide the
// gap. A single server has not acknowledged that write.
func CheckCopy(ctx context.Context, dir string, members int) (Copy, error) {
	c, err := checkCopy(ctx, dir, members)
	var fault *storeFault
	if errors.As(err, &fault) {
		err = fmt.Errorf("%w: %w", ErrCopyDamaged, err)
	}
	if err != nil {
		return c, fmt.Errorf("check the copy of the log in %s: %w", dir, err)
	}
	return c, nil
}

func checkCopy(ctx context.Context, dir string, members int) (Copy, error) {
	clustered := members > 1
	store := filepath.Join(dir, server.JetStreamStoreDir)
	if why, err := os.ReadFile(filepath.Join(dir, markFile)); err == nil {
		return Copy{}, &storeFault{file: store, why: "damage found while in use: " + strings.TrimSpace(string(why))}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Copy{}, err
	}
	cleanStop, err := checkSeal(dir)
	if err != nil {
		return Copy{}, err
	}
	durable := uint64(0) // position up to which the blocks of LEDGER must be complete
	if clustered {
		groups, err := folders(filepath.Join(store, systemAccount, "_js_"))
		if err != nil {
			return Copy{}, err
		}
		for _, group := range groups {
			g, err := checkGroup(ctx, group, members)
			if err != nil {
				return Copy{}, err
			}
			if g.stream == events.StreamName {
				durable = max(durable, g.snapshot)
			}
		}
	}
	streams, err := folders(filepath.Join(store, ledgerAccount, "streams"))
	if err != nil {
		return Copy{}, err
	}
	var log contiguous
	for _, stream := range streams {
		name := filepath.Base(stream)
		each := func(record) error { return nil }
		if name == events.StreamName {
			each = log.next
		}
		if err := checkStream(ctx, stream, clustered, cleanStop, each); err != nil {
			return Copy{}, err
		}
	}
	if log.last < durable {
		return Copy{}, &storeFault{
			file: filepath.Join(store, ledgerAccount, "streams", events.StreamName),
			why:  fmt.Sprintf("ends at position %d, but a Raft snapshot covers position %d", log.last, durable),
		}
	}
	return Copy{First: events.Position(min(1, log.last)), Last: events.Position(log.last)}, nil
}

// checkStream checks the store of a stream.
func checkStream(ctx context.Context, dir string, clustered, cleanStop bool, each func(record) error) error {
	name, last := filepath.Base(dir), uint64(0)
	if clustered { // a single server refuses a stream that it cannot load
		if _, err := readMeta(dir); err != nil {
			return err
		}
	}
	err := readBlocks(ctx, dir, name, func(r record) error {
		last = max(last, r.sequence)
		return each(r)
	})
	var fault *storeFault
	if errors.As(err, &fault) && fault.torn && !cleanStop {
		err = nil
	}
	if err != nil || !clustered {
		return err
	}
	index := filepath.Join(dir, "msgs", "index.db")
	claimed, err := indexEnd(index, name)
	if info, stat := os.Stat(index); err == nil && cleanStop && stat == nil && info.Size() == 0 {
		err = &storeFault{file: index, why: "became empty after the last clean stop"}
	}
	switch {
	case err == nil && claimed <= last && fault == nil:
		return nil
	case err != nil && !errors.As(err, new(*storeFault)):
		return err
	case name == events.StreamName:
		// If the index is ahead of the blocks, the server would take the end of the
		// log from the index and never fill the gap. Without an index it reads the
		// blocks.
		if err := os.Remove(index); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	case err != nil && cleanStop:
		return err // only the index knows which messages were removed
	}
	return nil
}

// indexEnd returns the last position that the index of a stream's blocks names,
// zero if there is none.
func indexEnd(file, stream string) (uint64, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	bad := &storeFault{file: file, why: "wrong checksum"}
	end := len(b) - recordChecksum
	if end < 2 || !bytes.Equal(b[end:], digest64(stream, b[:end])) {
		return 0, bad
	}
	rest := b[2:end] // after the version
	// The fields are messages, bytes, first position, its time, last position. Signed
	// and unsigned varints have the same length.
	var last uint64
	for range 5 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return 0, bad
		}
		last, rest = v, rest[n:]
	}
	return last, nil
}

// folders lists the folders in dir, none if dir does not exist. It skips folders
// that the server is deleting, whose names begin with a dot.
func folders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list, err
}

// ScrubCopy verifies the blocks of LEDGER while the server uses them. It calls pace
// after each record to limit its speed. The error is an ErrCopyDamaged that names
// the file. A record that is being written is checked by the next run.
func ScrubCopy(ctx context.Context, dir string, pace func(bytes int)) error {
	store := filepath.Join(dir, server.JetStreamStoreDir, ledgerAccount, "streams", events.StreamName)
	var seen storeFault
	for try := 0; ; try++ {
		var log contiguous
		err := readBlocks(ctx, store, events.StreamName, func(r record) error {
			pace(r.length)
			return log.next(r)
		})
		var fault *storeFault
		if !errors.As(err, &fault) {
			return err
		}
		if fault.torn {
			return nil // the server may be writing the record
		}
		// A block that was being written during the read is whole at the second try,
		// because records are written once.
		if try > 0 && *fault == seen {
			return fmt.Errorf("%w: %w", ErrCopyDamaged, fault)
		}
		seen = *fault
		if !clock.Sleep(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

// Quarantine moves the store in dir to a new folder beside it, and returns that
// folder. It deletes nothing. No server may have the store open. Afterwards the
// ledger has an empty store.
func Quarantine(dir string, now time.Time) (string, error) {
	store := filepath.Join(dir, server.JetStreamStoreDir)
	to := filepath.Join(dir, "damaged-"+now.UTC().Format("20060102T150405.000Z"))
	if err := os.Rename(store, to); err != nil {
		return "", fmt.Errorf("quarantine a damaged copy of the log: %w", err)
	}
	if err := os.Mkdir(store, 0o700); err != nil {
		return "", fmt.Errorf("quarantine a damaged copy of the log: %w", err)
	}
	// Remove the mark last. If this fails, the next start runs Quarantine again.
	for _, name := range []string{sealFile, markFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("quarantine a damaged copy of the log: %w", err)
		}
	}
	return to, disk.SyncDir(dir)
}

// Held returns the range of LEDGER that this server holds, as the server reports
// it, and an ErrCopyDamaged if positions are missing. It does not read the disk.
func (s *Server) Held() (Copy, error) {
	detail, err := s.ns.JszAccount(&server.JSzOptions{Account: ledgerAccount, Streams: true})
	if err != nil {
		return Copy{}, fmt.Errorf("read the state of this ledger's copy of the log: %w", err)
	}
	for _, stream := range detail.Streams {
		if stream.Name != events.StreamName {
			continue
		}
		st := stream.State
		c := Copy{First: events.Position(st.FirstSeq), Last: events.Position(st.LastSeq)}
		if st.LastSeq == 0 {
			c.First = 0
		}
		if st.LastSeq > 0 && st.FirstSeq != 1 || st.NumDeleted > 0 || st.Lost != nil || st.Msgs != st.LastSeq {
			return c, fmt.Errorf(
				"%w: it has only %d of the positions %d to %d",
				ErrCopyDamaged,
				st.Msgs,
				st.FirstSeq,
				st.LastSeq,
			)
		}
		return c, nil
	}
	return Copy{}, nil
}

// RaftState is the state of one server in one of the cluster's Raft groups.
type RaftState struct {
	ID      string `json:"id"`      // the server's id within Raft
	Leader  string `json:"leader"`  // the leader's id, empty if unknown
	Term    uint64 `json:"term"`    // term of the last election
	Last    uint64 `json:"last"`    // last entry in the server's Raft log
	Applied uint64 `json:"applied"` // last entry that is committed and applied
}

// RaftStates returns the state of this server in each Raft group, by the group's
// name. It is empty while the server keeps its streams closed.
func (s *Server) RaftStates() map[string]RaftState {
	states := map[string]RaftState{}
	for _, account := range []string{"", ledgerAccount} {
		all := s.ns.Raftz(&server.RaftzOptions{AccountFilter: account})
		if all == nil {
			continue
		}
		for _, groups := range *all {
			for name, g := range groups {
				states[name] = RaftState{
					ID: g.ID, Leader: g.Leader, Term: g.Term,
					Last: g.PIndex, Applied: min(g.Committed, g.Applied),
				}
			}
		}
	}
	return states
}

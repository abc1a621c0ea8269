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

// ErrCopyDamaged reports that this server's own copy of the log is not whole:
// a file of its store is missing, changed or cut.
var ErrCopyDamaged = errors.New("this ledger's own copy of the log is damaged")

// Copy is the range of positions that a server's own copy of the log holds.
type Copy struct {
	First, Last events.Position // zero if it is empty
}

// markFile says that a copy was found damaged while it was in use.
const markFile = "damaged"

// MarkDamaged notes that the copy in dir is damaged, so that the next CheckCopy
// says so, whatever it finds itself.
func MarkDamaged(dir, why string) error {
	return disk.ReplaceExclusive(filepath.Join(dir, markFile), []byte(why+"\n"))
}

// CheckCopy reads the store in dir, which no server may have open, before one
// does: a server cuts off what it cannot read, and goes on with the rest. It
// checks the checksum of every record, that LEDGER has every position from 1 to
// its last, and in a cluster of so many members what the server keeps of its
// votes. It returns an ErrCopyDamaged that names the file.
//
// The end of the last block may be a write that a crash interrupted. A server of
// a cluster restores such an end from its raft log, and CheckCopy removes the
// index that would hide the gap. A server alone has acknowledged nothing there.
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
		return Copy{}, &storeFault{file: store, why: "found while it was in use: " + strings.TrimSpace(string(why))}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Copy{}, err
	}
	peaceful, err := checkSeal(dir)
	if err != nil {
		return Copy{}, err
	}
	durable := uint64(0) // what the blocks of LEDGER hold in any case
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
		if err := checkStream(ctx, stream, clustered, peaceful, each); err != nil {
			return Copy{}, err
		}
	}
	if log.last < durable {
		return Copy{}, &storeFault{
			file: filepath.Join(store, ledgerAccount, "streams", events.StreamName),
			why:  fmt.Sprintf("it ends at position %d, and has held position %d", log.last, durable),
		}
	}
	return Copy{First: events.Position(min(1, log.last)), Last: events.Position(log.last)}, nil
}

// checkStream checks the store of a stream.
func checkStream(ctx context.Context, dir string, clustered, peaceful bool, each func(record) error) error {
	name, last := filepath.Base(dir), uint64(0)
	if clustered { // a server alone refuses what it cannot load
		if _, err := readMeta(dir); err != nil {
			return err
		}
	}
	err := readBlocks(ctx, dir, name, func(r record) error {
		last = max(last, r.sequence)
		return each(r)
	})
	var fault *storeFault
	if errors.As(err, &fault) && fault.torn && !peaceful {
		err = nil
	}
	if err != nil || !clustered {
		return err
	}
	index := filepath.Join(dir, "msgs", "index.db")
	claimed, err := indexEnd(index, name)
	if info, stat := os.Stat(index); err == nil && peaceful && stat == nil && info.Size() == 0 {
		err = &storeFault{file: index, why: "it is empty since the last stop"}
	}
	switch {
	case err == nil && claimed <= last && fault == nil:
		return nil
	case err != nil && !errors.As(err, new(*storeFault)):
		return err
	case name == events.StreamName:
		// From an index that knows more than the blocks the server would take
		// the end of the log, and never fill the positions between. Without one
		// it reads the blocks.
		if err := os.Remove(index); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	case err != nil && peaceful:
		return err // what was removed from such a stream is known by its index
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
	bad := &storeFault{file: file, why: "it has a wrong checksum"}
	end := len(b) - recordChecksum
	if end < 2 || !bytes.Equal(b[end:], digest64(stream, b[:end])) {
		return 0, bad
	}
	rest := b[2:end] // version
	// Messages, bytes, the first position and its time, the last position. All
	// numbers have the same length, whether signed or not.
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

// folders lists the folders in a folder, none if it does not exist. The server
// marks what it is deleting with a dot.
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

// ScrubCopy reads the blocks of LEDGER while the server uses them, with a pause
// after each record that pace makes. It returns an ErrCopyDamaged that names the
// file. What the server is writing just then is left to the next time.
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
			return nil // or it has begun to write, and not ended
		}
		// A block that was being written while it was read is whole the next
		// time, because records are written once.
		if try > 0 && *fault == seen {
			return fmt.Errorf("%w: %w", ErrCopyDamaged, fault)
		}
		seen = *fault
		if !clock.Sleep(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

// Quarantine moves the store in dir, which no server may have open, to a folder
// beside it, and returns that folder. Nothing is deleted. The ledger then has an
// empty disk.
func Quarantine(dir string, now time.Time) (string, error) {
	store := filepath.Join(dir, server.JetStreamStoreDir)
	to := filepath.Join(dir, "damaged-"+now.UTC().Format("20060102T150405.000Z"))
	if err := os.Rename(store, to); err != nil {
		return "", fmt.Errorf("quarantine a damaged copy of the log: %w", err)
	}
	if err := os.Mkdir(store, 0o700); err != nil {
		return "", fmt.Errorf("quarantine a damaged copy of the log: %w", err)
	}
	// The mark goes last: until then the next start does this again.
	for _, name := range []string{sealFile, markFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("quarantine a damaged copy of the log: %w", err)
		}
	}
	return to, disk.SyncDir(dir)
}

// Held returns what this server itself holds of LEDGER, and an ErrCopyDamaged if
// it lacks positions. It says nothing of what is on the disk.
func (s *Server) Held() (Copy, error) {
	detail, err := s.ns.JszAccount(&server.JSzOptions{Account: ledgerAccount, Streams: true})
	if err != nil {
		return Copy{}, fmt.Errorf("look at this ledger's copy of the log: %w", err)
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
				"%w: it has %d of the positions %d to %d",
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

// RaftState is how far one server is in one of the cluster's raft groups.
type RaftState struct {
	ID      string `json:"id"`      // of the server, within raft
	Leader  string `json:"leader"`  // its id, empty if the server knows of none
	Term    uint64 `json:"term"`    // of the last election that it knows of
	Last    uint64 `json:"last"`    // entry in its log
	Applied uint64 `json:"applied"` // last entry that is committed, and in its streams
}

// RaftStates returns how far this server is in each raft group: name -> state.
// It is empty while the server holds its streams closed.
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

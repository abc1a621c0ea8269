package clustertest

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/api"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"
)

// storeFiles returns the files of one kind in a ledger's copy of the log. The
// ledger must be stopped.
func storeFiles(t *testing.T, n *Node, kind string) []string {
	t.Helper()
	log := filepath.Join("LEDGER", "streams", events.StreamName)
	group := raftGroup(t, n, events.StreamName)
	meta := filepath.Join("$SYS", "_js_", "_meta_")
	pattern := map[string]string{
		"block":          filepath.Join(log, "msgs", "*.blk"),
		"index":          filepath.Join(log, "msgs", "index.db"),
		"settings":       filepath.Join(log, "meta.inf"),
		"settings' sum":  filepath.Join(log, "meta.sum"),
		"raft log":       filepath.Join(group, "msgs", "*.blk"),
		"raft snapshot":  filepath.Join(group, "snapshots", "snap.*"),
		"raft vote":      filepath.Join(group, "tav.idx"),
		"raft members":   filepath.Join(group, "peers.idx"),
		"cluster's vote": filepath.Join(meta, "tav.idx"),
		"cluster's log":  filepath.Join(meta, "msgs", "*.blk"),
		"leases":         filepath.Join("LEDGER", "streams", events.LeaseStreamName, "msgs", "*.blk"),
	}[kind]
	files, err := filepath.Glob(filepath.Join(n.Data, "log", "jetstream", pattern))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(name string) bool {
		info, err := os.Stat(name)
		return err != nil || info.Size() == 0
	})
}

// raftGroup returns the folder of the Raft group of a stream.
func raftGroup(t *testing.T, n *Node, stream string) string {
	t.Helper()
	store := filepath.Join(n.Data, "log", "jetstream")
	metas, err := filepath.Glob(filepath.Join(store, "$SYS", "_js_", "S-*", "meta.inf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, meta := range metas {
		var m struct {
			Metadata map[string]string `json:"metadata"`
		}
		if b, err := os.ReadFile(meta); err == nil && json.Unmarshal(b, &m) == nil && m.Metadata["stream"] == stream && m.Metadata["type"] == "stream" {
			dir, err := filepath.Rel(store, filepath.Dir(meta))
			if err != nil {
				t.Fatal(err)
			}
			return dir
		}
	}
	t.Fatalf("%s has no raft group of %s", n.Name, stream)
	return ""
}

// damaging is a way to damage a file.
type damaging func(b []byte, rng *rand.Rand) []byte

func flipped(b []byte, rng *rand.Rand) []byte {
	b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
	return b
}

// flippedEarly flips a bit before intact records, so that the damage does not
// look like an interrupted write.
func flippedEarly(b []byte, rng *rand.Rand) []byte {
	b[rng.IntN(len(b)/2)] ^= 1 << rng.IntN(8)
	return b
}

func truncated(b []byte, rng *rand.Rand) []byte { return b[:rng.IntN(len(b))] }

// flippedFirst flips a bit in the body of the first record. The log's server
// reads no bodies when it starts after a clean stop, so it keeps such a copy.
func flippedFirst(b []byte, _ *rand.Rand) []byte {
	b[inFirstRecord] ^= 1
	return b
}

// inFirstRecord is the place of a byte in the body of a block's first record.
const inFirstRecord = 200

func halved(b []byte, _ *rand.Rand) []byte { return b[:len(b)/2] }

// damage damages a file of one kind.
func damage(t *testing.T, n *Node, kind string, how damaging, rng *rand.Rand) {
	t.Helper()
	files := storeFiles(t, n, kind)
	if len(files) == 0 {
		t.Fatalf("%s has no file of the kind %s", n.Name, kind)
	}
	file := files[rng.IntN(len(files))]
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, how(b, rng), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("damaged %s of %s", strings.TrimPrefix(file, n.Data), n.Name)
}

const damageSaid = "this ledger's copy of the log is damaged"

// blames checks which copies the nodes have reported as damaged since the lines
// from.
func (c *harness) blames(t *testing.T, from int, damaged *Node) {
	t.Helper()
	for _, n := range c.Ledgers() {
		if n != damaged && c.Journal.has(n.Name, from, damageSaid) {
			t.Errorf("%s reports its copy as damaged, but the copy of %s is", n.Name, damaged.Name)
		}
		for _, whole := range c.Ledgers() {
			if whole != damaged && c.Journal.has(n.Name, from, "the copy of ledger "+whole.Name) {
				t.Errorf("%s says that the copy of %s is damaged, and it is that of %s", n.Name, whole.Name, damaged.Name)
			}
		}
	}
}

// copies returns the copies of all ledgers as one ledger shows them, by name.
func copies(t *testing.T, from *Node, root string) map[string]api.LogCopy {
	t.Helper()
	var list struct {
		Items []api.Node `json:"items"`
	}
	got := map[string]api.LogCopy{}
	if a, err := Send(t.Context(), Request{Method: http.MethodGet, URL: from.API + "/v1/nodes", Secret: root, Into: &list}); err != nil || a.Status != http.StatusOK {
		return got
	}
	for _, n := range list.Items {
		if n.Copy != nil && n.State != "gone" && n.State != "retired" && n.State != "late" {
			got[n.Name] = *n.Copy
		}
	}
	return got
}

// allWhole waits until each ledger lists every copy as complete, up to a
// position that the log had before.
func (c *harness) allWhole(t *testing.T) {
	t.Helper()
	root, last := c.Root(t), c.Last(t, events.StreamName)
	for _, l := range c.Ledgers() {
		wait.Until(t, l.Name+" lists all copies as whole", func() bool {
			got := copies(t, l, root)
			for _, n := range c.Ledgers() {
				if c := got[n.Name]; c.State != "whole" || c.First != 1 || c.Last < last {
					return false
				}
			}
			return true
		})
	}
}

// copyFault is damage to the copy of one ledger while it is down.
type copyFault struct {
	ledger string // empty: the leader
	killed bool   // else stopped gracefully
	kind   string
	how    damaging
	// silent: the ledger reports nothing, because it restores the file from
	// another one.
	silent bool
}

// TestDamagedCopies damages each kind of file of a ledger's copy, in each
// ledger in turn and in the leader, while clients run (I1, I7, I8). The other
// ledgers go on. The damaged one does not take part until it has copied the log
// from them.
func TestDamagedCopies(t *testing.T) {
	together(t)
	c := newHarness(t, Options{Lease: shortLease, Verifiers: 1, Env: []string{"TOKENLEDGER_SCRUB=1s"}})
	c.load.Commands(t, 300)
	faults := []copyFault{
		{ledger: "l1", kind: "block", how: flipped},
		{kind: "block", how: flippedEarly, killed: true},
		{ledger: "l3", kind: "block", how: halved},
		{ledger: "l2", kind: "index", how: flipped, silent: true},
		{ledger: "l1", kind: "raft vote", how: flipped},
		{kind: "raft snapshot", how: flipped},
	}
	if *chaosFlag {
		for i, kind := range []string{
			"block", "index", "settings", "settings' sum", "raft log", "raft snapshot", "raft vote", "raft members", "cluster's vote", "cluster's log", "leases",
		} {
			for _, how := range []damaging{flipped, truncated} {
				for _, ledger := range []string{fmt.Sprintf("l%d", 1+i%3), ""} {
					faults = append(faults, copyFault{ledger: ledger, kind: kind, how: how, silent: kind == "index"})
				}
			}
		}
	}
	for i, f := range faults {
		who := f.ledger
		if who == "" {
			who = "the leader"
		}
		c.fault(t, fmt.Sprintf("%d %s of %s", i, f.kind, who), func(t *testing.T) { c.damaged(t, f) })
	}
	c.fault(t, "while it runs", func(t *testing.T) { c.damagedRunning(t) })
	c.fault(t, "an old copy", func(t *testing.T) { c.oldCopy(t) })
	c.finish(t)
	for _, wrong := range c.unwhole(t) {
		t.Error(wrong)
	}
}

func (c *harness) damaged(t *testing.T, f copyFault) {
	n := c.Leader(t, events.StreamName)
	if f.ledger != "" {
		n = c.Node(f.ledger)
	}
	from := c.Journal.len()
	if f.killed {
		n.Kill(t)
	} else {
		n.Stop(t)
	}
	damage(t, n, f.kind, f.how, c.rng)
	began := c.load.Now()
	c.load.Commands(t, 20) // the others go on
	t.Logf("20 commands after %s", c.load.Now()-began)
	n.Start(t)
	n.WaitReady(t)
	if said := c.Journal.has(n.Name, from, damageSaid); said == f.silent {
		t.Errorf("%s says that its copy is damaged: %v, want %v", n.Name, said, !f.silent)
	}
	c.blames(t, from, n)
	c.allWhole(t)
	if f.silent {
		return
	}
	if len(quarantined(t, n)) == 0 {
		t.Errorf("%s keeps nothing in quarantine", n.Name)
	}
}

// quarantined returns the damaged copies of the log that a ledger keeps.
func quarantined(t *testing.T, n *Node) []string {
	t.Helper()
	kept, err := filepath.Glob(filepath.Join(n.Data, "log", "damaged-*"))
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// damagedRunning changes a block of the log while the leader has the file open.
func (c *harness) damagedRunning(t *testing.T) {
	n := c.Leader(t, events.StreamName)
	from, before := c.Journal.len(), len(quarantined(t, n))
	files := storeFiles(t, n, "block")
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], inFirstRecord) // the server writes only the last records
	if err == nil {
		b[0] ^= 1
		_, err = f.WriteAt(b[:], inFirstRecord)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the damaged copy is in quarantine", func() bool { return len(quarantined(t, n)) > before })
	n.WaitReady(t)
	c.blames(t, from, n)
	c.allWhole(t)
}

// oldCopy restores an old backup of a ledger's copy. The copy looks intact.
func (c *harness) oldCopy(t *testing.T) {
	n := c.Node("l2")
	n.Stop(t)
	log, old := filepath.Join(n.Data, "log"), filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(log)); err != nil {
		t.Fatal(err)
	}
	n.Start(t)
	n.WaitReady(t)
	c.load.Commands(t, 100)
	from := c.Journal.len()
	n.Stop(t)
	if err := os.RemoveAll(log); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(log, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(log, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			err = os.Chmod(path, 0o600)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Start(t)
	n.WaitReady(t)
	c.blames(t, from, &Node{})
	c.allWhole(t)
}

// unwhole reads the copies of stopped ledgers, and returns their faults: a
// missing position, or a different last position.
func (c *harness) unwhole(t *testing.T) []string {
	t.Helper()
	var wrong []string
	ends := map[events.Position]bool{}
	for _, n := range c.Ledgers() {
		have, err := embedded.CheckCopy(t.Context(), filepath.Join(n.Data, "log"), len(c.Ledgers()))
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", n.Name, err))
		}
		ends[have.Last] = true
	}
	if len(ends) != 1 {
		wrong = append(wrong, fmt.Sprintf("the copies end at different positions: %v", ends))
	}
	return wrong
}

// uncheckedCopy makes a ledger that does not check its own copy of the log.
var uncheckedCopy = []Edit{
	{"ledger/embedded/copy.go", "	c, err := checkCopy(ctx, dir, members)\n", "	c, err := Copy{}, error(nil)\n"},
	{"ledger/embedded/copy.go", "		if st.LastSeq > 0 && st.FirstSeq != 1 || st.NumDeleted > 0", "		if false && st.NumDeleted > 0"},
	{"ledger/embedded/copy.go", " || st.Lost != nil || st.Msgs != st.LastSeq {", " {"},
}

// TestDamagedCopyTakesPart tests TestDamagedCopies itself. With a program that
// does not check its own copy, a damaged copy takes part, and the test must find
// that. The damage is one that the log's server does not notice: of a shorter
// file it does, and at times replaces the copy by a whole one.
func TestDamagedCopyTakesPart(t *testing.T) {
	together(t)
	c := newHarness(t, Options{Lease: shortLease, Program: Build(t, uncheckedCopy...)})
	c.load.Commands(t, 100)
	n := c.Node("l2")
	n.Stop(t)
	damage(t, n, "block", flippedFirst, c.rng)
	n.Start(t)
	wait.Until(t, "the ledger with the damaged copy takes part or gives up", func() bool {
		ready, _ := n.Ready(t.Context())
		return ready || n.Process().Exited()
	})
	c.load.End()
	for _, n := range slices.Backward(c.Nodes) {
		if !n.Process().Exited() {
			n.Process().Terminate(t)
		}
	}
	wrong := c.unwhole(t)
	t.Log(wrong)
	if len(wrong) == 0 {
		t.Error("a damaged copy took part, and the suite did not find it")
	}
}

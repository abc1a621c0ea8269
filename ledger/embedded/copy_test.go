package embedded

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// copied copies a folder and returns where the copy is.
func copied(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// filesOf lists the files of a store that are not empty, relative to its
// folder.
func filesOf(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(filepath.Join(dir, "jetstream"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if info, err := e.Info(); err != nil || info.Size() == 0 {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files = append(files, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// flipBit changes a bit of a file.
func flipBit(t *testing.T, file string, rng *rand.Rand) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// cutOff removes the end of a file.
func cutOff(t *testing.T, file string, rng *rand.Rand) {
	t.Helper()
	info, err := os.Stat(file)
	if err == nil {
		err = os.Truncate(file, rng.Int64N(info.Size()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ignored are files on which nothing depends: the server restores them, or uses
// them as a hint.
func ignored(file string) bool {
	base := filepath.Base(file)
	return base == "commit.idx" || base == "sources.db" || strings.Contains(file, "/obs/") ||
		base == "index.db" && (strings.Contains(file, "LEDGER/streams/LEDGER/") || strings.Contains(file, "_js_"))
}

// TestDamageIsFound damages each file of a sealed copy.
func TestDamageIsFound(t *testing.T) {
	k := startCluster(t)
	js := k.begin()
	for range 50 {
		mustPublish(t, js, "ledger.token.aa.created", strings.Repeat("event ", 20))
	}
	for _, s := range k.servers {
		if err := s.Shutdown(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	for i, cfg := range k.configs {
		c, err := CheckCopy(t.Context(), cfg.Dir, 3)
		if err != nil || c.Last > 50 || i == 0 && c.Last != 50 {
			t.Errorf("a whole copy of server %d: %+v, %v", i, c, err)
		}
	}
	dir := k.configs[0].Dir
	rng := rand.New(rand.NewPCG(1, 2))
	for _, file := range filesOf(t, dir) {
		for how, damage := range map[string]func(*testing.T, string, *rand.Rand){"flipped": flipBit, "cut": cutOff} {
			for range 4 {
				of := copied(t, dir)
				damage(t, filepath.Join(of, file), rng)
				_, err := CheckCopy(t.Context(), of, 3)
				if found := errors.Is(err, ErrCopyDamaged); found == ignored(file) || found && !strings.Contains(err.Error(), filepath.Base(of)) {
					t.Errorf("%s, %s: %v", file, how, err)
				}
			}
		}
	}
}

// TestDamageAfterACrash damages each file of a copy without a seal. Damage
// without a checksum that is consistent with the rest cannot be found.
func TestDamageAfterACrash(t *testing.T) {
	k := startCluster(t)
	js := k.begin()
	for range 50 {
		mustPublish(t, js, "ledger.token.aa.created", strings.Repeat("event ", 20))
	}
	dir := k.configs[0].Dir
	if err := k.servers[0].Shutdown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := breakSeal(dir); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for _, file := range filesOf(t, dir) {
		base := filepath.Base(file)
		of := copied(t, dir)
		path := filepath.Join(of, file)
		switch {
		case base == "index.db", base == "tav.idx", base == "peers.idx", base == "o.dat", ignored(file):
			continue
		case strings.HasSuffix(base, ".blk"):
			// Damage at the end looks like an interrupted write.
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[rng.IntN(len(b)/2)] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if len(b) < 1000 {
				continue // one record, and nothing behind it
			}
		default:
			flipBit(t, path, rng)
		}
		if _, err := CheckCopy(t.Context(), of, 3); !errors.Is(err, ErrCopyDamaged) {
			t.Errorf("%s: %v, want it to be found", file, err)
		}
	}
	// The blocks end before the position in the raft snapshot.
	of := copied(t, dir)
	if err := os.Truncate(filepath.Join(of, "jetstream/LEDGER/streams/LEDGER/msgs/1.blk"), 100); err != nil {
		t.Fatal(err)
	}
	if _, err := CheckCopy(t.Context(), of, 3); !errors.Is(err, ErrCopyDamaged) || !strings.Contains(err.Error(), "covers position 50") {
		t.Errorf("a log that ends early: %v", err)
	}
	// A missing folder is like a log that ends early.
	of = copied(t, dir)
	if err := os.RemoveAll(filepath.Join(of, "jetstream/LEDGER/streams/LEDGER")); err != nil {
		t.Fatal(err)
	}
	if _, err := CheckCopy(t.Context(), of, 3); !errors.Is(err, ErrCopyDamaged) {
		t.Errorf("a log that is gone: %v", err)
	}
}

// TestAloneRefusesDamage damages the only copy. The server refuses to start,
// because no other copy can replace it.
func TestAloneRefusesDamage(t *testing.T) {
	k := startKit(t)
	js := k.asLedger()
	mustCreateStream(t, js)
	for range 20 {
		mustPublish(t, js, "ledger.token.aa.created", "event")
	}
	k.stop()
	block := filepath.Join(k.cfg.Dir, "jetstream/LEDGER/streams/LEDGER/msgs/1.blk")
	whole, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"a bit in the middle": func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"a bit at the end":    func(b []byte) []byte { b[len(b)-1] ^= 4; return b },
		"cut":                 func(b []byte) []byte { return b[:len(b)-60] },
	} {
		if err := os.WriteFile(block, damage(slices.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Start(testContext(t), k.cfg)
		if !errors.Is(err, ErrCopyDamaged) || !strings.Contains(err.Error(), "1.blk") || !strings.Contains(err.Error(), "backup") {
			t.Errorf("%s: %v, want a refusal that names the file", name, err)
		}
	}
	if err := os.WriteFile(block, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	if info, err := OpenStream(testContext(t), k.asLedger()); err != nil || info.Last != 20 {
		t.Errorf("the copy that was put right: %+v, %v", info, err)
	}
}

// TestScrubFindsDamage changes a block while the server has it open.
func TestScrubFindsDamage(t *testing.T) {
	k := startKit(t)
	js := k.asLedger()
	mustCreateStream(t, js)
	for range 20 {
		mustPublish(t, js, "ledger.token.aa.created", "event")
	}
	scrub := func() error { return ScrubCopy(testContext(t), k.cfg.Dir, func(int) {}) }
	if err := scrub(); err != nil {
		t.Fatal(err)
	}
	if c, err := k.Held(); err != nil || c != (Copy{1, 20}) {
		t.Errorf("Held = %+v, %v", c, err)
	}
	flipBit(t, filepath.Join(k.cfg.Dir, "jetstream/LEDGER/streams/LEDGER/msgs/1.blk"), rand.New(rand.NewPCG(5, 6)))
	if err := scrub(); !errors.Is(err, ErrCopyDamaged) {
		t.Errorf("scrub = %v, want the damage", err)
	}
}

// TestQuarantine moves a copy aside, and deletes nothing.
func TestQuarantine(t *testing.T) {
	k := startKit(t)
	mustCreateStream(t, k.asLedger())
	mustPublish(t, k.asLedger(), "ledger.token.aa.created", "event")
	k.stop()
	before := filesOf(t, k.cfg.Dir)
	if err := MarkDamaged(k.cfg.Dir, "a test"); err != nil {
		t.Fatal(err)
	}
	if _, err := CheckCopy(context.Background(), k.cfg.Dir, 3); !errors.Is(err, ErrCopyDamaged) || !strings.Contains(err.Error(), "a test") {
		t.Errorf("a copy that was marked: %v", err)
	}
	to, err := Quarantine(k.cfg.Dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := CheckCopy(context.Background(), k.cfg.Dir, 3); err != nil || c != (Copy{}) {
		t.Errorf("after the quarantine: %+v, %v", c, err)
	}
	if err := os.RemoveAll(filepath.Join(k.cfg.Dir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to, filepath.Join(k.cfg.Dir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	if after := filesOf(t, k.cfg.Dir); !slices.Equal(after, before) {
		t.Errorf("in quarantine are %v, want %v", after, before)
	}
}

// TestLeaderWithADamagedCopy checks that the error names the leader's own copy.
func TestLeaderWithADamagedCopy(t *testing.T) {
	info := jetstream.StreamInfo{
		State:   jetstream.StreamState{FirstSeq: 1, LastSeq: 3, Msgs: 2, NumDeleted: 1},
		Cluster: &jetstream.ClusterInfo{Leader: "l2", Replicas: []*jetstream.PeerInfo{{Name: "l1"}, {Name: "l3"}}},
	}
	err := damageOf(&info)
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "the copy of ledger l2") || !strings.Contains(err.Error(), "wipe none") {
		t.Errorf("%v, want an ErrDamaged that names l2", err)
	}
	info.Cluster = nil
	if err := damageOf(&info); !errors.Is(err, ErrDamaged) || strings.Contains(err.Error(), "copy of ledger") {
		t.Errorf("of a server alone: %v", err)
	}
	info.State = jetstream.StreamState{FirstSeq: 1, LastSeq: 3, Msgs: 3}
	if err := damageOf(&info); err != nil {
		t.Errorf("of a whole copy: %v", err)
	}
}

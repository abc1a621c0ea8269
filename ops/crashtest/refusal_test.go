package crashtest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ops/node"

	"github.com/tokenledger/tokenledger/ops/testkit/disk"
)

// TestLogGone removes the log of a stopped ledger. The ledger does not create a
// new log, which would lack every revocation.
func TestLogGone(t *testing.T) {
	t.Parallel()
	for _, gone := range [][]string{
		{"log/jetstream"},
		{"log"},
		{"log/jetstream/LEDGER/streams/LEDGER"},
		{"log/jetstream", "ledger.json"}, // the index still shows that there was a log
		{"log/jetstream", "index"},
	} {
		t.Run(strings.ReplaceAll(strings.Join(gone, " and "), "/", "-"), func(t *testing.T) {
			ledger := newLedger(t, node.Config{})
			root := rootSecret(t, ledger.run())
			ledger.process().stop(t)
			data, away := ledger.cfg.Data, t.TempDir()
			for i, name := range gone {
				if err := os.Rename(filepath.Join(data, name), filepath.Join(away, string(rune('a'+i)))); err != nil {
					t.Fatal(err)
				}
			}
			before := sums(t, data)
			p := ledger.start()
			// The seal of the clean stop shows missing files, and the notes in the
			// folder show that there was a log.
			refused := func() bool {
				return p.out.has("the log of this data folder is gone") || p.out.has("missing since the last clean stop")
			}
			if code := p.Wait(t); code != 1 || !refused() {
				t.Errorf("the node ended with exit status %d; its output:\n%s", code, p.out.tail())
			}
			after := sums(t, data)
			for name := range before {
				if before[name] != after[name] {
					t.Errorf("%s was changed", name)
				}
			}
			for name := range after {
				if _, ok := before[name]; !ok && !strings.HasPrefix(name, "log") {
					t.Errorf("%s was created", name)
				}
			}

			// After the log is restored, the ledger works again.
			for i, name := range gone {
				if err := os.RemoveAll(filepath.Join(data, name)); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(filepath.Join(away, string(rune('a'+i))), filepath.Join(data, name)); err != nil {
					t.Fatal(err)
				}
			}
			p = ledger.run()
			p.WaitReady(t)
			if r, err := ask(t.Context(), p.WaitListening(t).Verify, root, "superuser"); err != nil || !r.Allowed {
				t.Errorf("the root token is not accepted: %v, %s", err, r)
			}
			p.stop(t)
		})
	}
}

// sums returns a checksum of each file in a folder.
func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if err := disk.VisitData(f, func(at int64, b []byte) error {
			_, err := fmt.Fprintf(sum, "%d %x\n", at, b)
			return err
		}); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out[rel] = hex.EncodeToString(sum.Sum(nil))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFolderInUse starts a second process on the data folder of a running one.
// The second process fails, and the first one keeps running.
func TestFolderInUse(t *testing.T) {
	ledger := newLedger(t, node.Config{})
	first := ledger.run()
	root := rootSecret(t, first)
	link := newLink(t, ledger)
	verifier := newVerifier(t, "verifier", link, node.Config{})
	verifier.run()
	for _, m := range []*machine{ledger, verifier} {
		second := newMachine(t, m.cfg)
		p := second.start()
		if code := p.Wait(t); code != 1 || !p.out.has("data folder is in use by another process") {
			t.Errorf("%s: a second process ended with exit status %d; its output:\n%s", m.cfg.Name, code, p.out.tail())
		}
		m.process().WaitReady(t)
		r, err := ask(t.Context(), m.process().WaitListening(t).Verify, root, "superuser")
		if err != nil || !r.Allowed {
			t.Errorf("%s: the root token is not accepted: %v, %s", m.cfg.Name, err, r)
		}
	}
}

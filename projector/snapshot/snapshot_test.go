package snapshot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ops/testkit/seed"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
	"github.com/tokenledger/tokenledger/projector/snapshot"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	key := newSigner(t)
	for range 4 {
		run := eventstest.History(rng.Uint64(), 100+rng.IntN(700))
		at := 1 + rng.IntN(len(run.Messages))
		p := newIndex(t, run.Messages[:at])
		raw := snapshotOf(t, p, key)
		got := installIndex(t, raw, snapshot.Wanted{Keys: []string{newSigner(t).public, key.public}, Epoch: run.Epoch, AtLeast: events.Position(at)})
		gotAt, gotDigest := got.ComparePoint()
		if wantAt, want := p.ComparePoint(); gotAt != wantAt || gotDigest != want {
			t.Errorf("ComparePoint() = %d, %s; want %d, %s", gotAt, gotDigest, wantAt, want)
		}
		checkSameIndex(t, p, got, run)
		if t.Failed() {
			t.Fatalf("seed %d, %s, cut at %d", seed, run, at)
		}
	}
}

// TestBig installs an index of several Badger tables.
func TestBig(t *testing.T) {
	t.Parallel()
	n := 20_000
	if testing.Short() {
		n = 15_000
	}
	run := bigLog(81, n)
	key := newSigner(t)
	p := newIndex(t, run.Messages)
	raw := snapshotOf(t, p, key)
	calls, done, total := 0, int64(0), int64(0)
	dir := filepath.Join(t.TempDir(), "index")
	h, err := snapshot.Install(t.Context(), dir, bytes.NewReader(raw), snapshot.Options{
		Wanted: signedBy(key), Size: int64(len(raw)), Progress: func(d, of int64) {
			if d < done {
				t.Errorf("progress went from %d back to %d", done, d)
			}
			calls, done, total = calls+1, d, of
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if h.Position != p.Position() || h.Epoch != run.Epoch {
		t.Errorf("Install = position %d of epoch %s, want %d of %s", h.Position, h.Epoch, p.Position(), run.Epoch)
	}
	if calls < 3 || done != int64(len(raw)) || total != done {
		t.Errorf("%d calls of Progress, the last with %d of %d; want at least 3, and %d", calls, done, total, len(raw))
	}
	got := open(t, dir)
	defer projectortest.Close(t, got)
	if !bytes.Equal(projectortest.Dump(t, p), projectortest.Dump(t, got)) {
		t.Error("the dump differs")
	}
	if err := got.Scrub(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestWriteWhileApplying writes snapshots while events are applied. Each must
// be of one position.
func TestWriteWhileApplying(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	run := eventstest.History(rng.Uint64(), 600)
	key := newSigner(t)
	p := newIndex(t, run.Messages[:1])
	done := make(chan error)
	go func() {
		for from := 1; from < len(run.Messages); from += 5 {
			if err := p.Apply(t.Context(), run.Messages[from:min(from+5, len(run.Messages))]); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for ended := false; !ended; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			ended = true
		default:
		}
		got := installIndex(t, snapshotOf(t, p, key), signedBy(key))
		checkSameIndex(t, newIndex(t, run.Messages[:got.Position()]), got, run)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	key := newSigner(t)
	if err := snapshot.Write(t.Context(), newIndex(t, nil), io.Discard, key.sign); !errors.Is(err, snapshot.ErrUnwanted) {
		t.Errorf("Write of an empty index = %v, want ErrUnwanted", err)
	}
	run := eventstest.History(82, 50)
	p := newIndex(t, run.Messages)
	broken := errors.New("the disk is full")
	for what, w := range map[string]io.Writer{
		"at once": &limitedWriter{0, broken}, "in the records": &limitedWriter{2000, broken},
		"in the trailer": &limitedWriter{len(snapshotOf(t, p, key)) - 5, broken},
	} {
		if err := snapshot.Write(t.Context(), p, w, key.sign); !errors.Is(err, broken) {
			t.Errorf("%s: Write = %v, want the writer's error", what, err)
		}
	}
	if err := snapshot.Write(t.Context(), p, io.Discard, func([]byte) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("Write = %v, want the signer's error", err)
	}
	if err := snapshot.Write(t.Context(), p, io.Discard, func([]byte) ([]byte, error) { return []byte("short"), nil }); err == nil {
		t.Error("Write with a signature of 5 bytes = nil")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := snapshot.Write(ctx, p, io.Discard, key.sign); !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v, want context.Canceled", err)
	}
	p.Stop(errors.New("stopped for the test"))
	if err := snapshot.Write(t.Context(), p, io.Discard, key.sign); err == nil {
		t.Error("Write of a stopped index = nil")
	}
}

// limitedWriter returns an error after a number of bytes.
type limitedWriter struct {
	left int
	err  error
}

func (l *limitedWriter) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, l.err
	}
	return len(b), nil
}

// parts are the parts of a snapshot that is signed again.
type parts struct {
	header  map[string]any
	records []byte
}

func splitParts(t testing.TB, raw []byte) parts {
	t.Helper()
	line, rest, ok := bytes.Cut(raw, []byte("\n"))
	var p parts
	if err := json.Unmarshal(line, &p.header); err != nil || !ok {
		t.Fatal(err)
	}
	p.records = bytes.Clone(rest[:len(rest)-96])
	return p
}

// signed returns the snapshot with a new hash and signature.
func (p parts) signed(t testing.TB, s signer) []byte {
	t.Helper()
	line, err := json.Marshal(p.header)
	if err != nil {
		t.Fatal(err)
	}
	raw := append(append(line, '\n'), p.records...)
	sum := sha256.Sum256(raw)
	signature, err := s.sign(snapshot.Message(sum[:]))
	if err != nil {
		t.Fatal(err)
	}
	return append(append(raw, sum[:]...), signature...)
}

// badSnapshot is a snapshot that Install must refuse with an error.
type badSnapshot struct {
	name string
	raw  []byte
	want error
}

// badHeaders returns variants of raw with other headers.
func badHeaders(t *testing.T, raw []byte, key signer, records uint64) (list []badSnapshot) {
	list = []badSnapshot{
		{"empty file", nil, snapshot.ErrMalformed},
		{"empty line", []byte("\n"), snapshot.ErrMalformed},
		{"long line", bytes.Repeat([]byte("x"), 1<<16), snapshot.ErrMalformed},
		{"no header", []byte("hello\n"), snapshot.ErrMalformed},
	}
	for _, tt := range []struct {
		name, field string
		value       any
		want        error
	}{
		{"later form", "form", 2, snapshot.ErrUnknown},
		{"no form", "form", nil, snapshot.ErrUnknown},
		{"other form of the index", "index", projector.Form + 1, snapshot.ErrUnknown},
		{"position 0", "position", 0, snapshot.ErrMalformed},
		{"no epoch", "epoch", "", snapshot.ErrMalformed},
		{"other epoch", "epoch", eventstest.NewLog(1).Epoch(), snapshot.ErrUnwanted},
		{"old position", "position", 299, snapshot.ErrUnwanted},
		{"short anchor", "anchor", "abcd", snapshot.ErrMalformed},
		{"wrong digest", "digest", "0123456789abcdef", projector.ErrCorrupt},
		{"one record too many in the header", "records", records + 1, snapshot.ErrMalformed},
		{"one record too few in the header", "records", records - 1, snapshot.ErrMalformed},
	} {
		p := splitParts(t, raw)
		p.header[tt.field] = tt.value
		if tt.value == nil {
			delete(p.header, tt.field)
		}
		list = append(list, badSnapshot{tt.name, p.signed(t, key), tt.want})
	}
	return list
}

// badRecords returns variants of raw with other records.
func badRecords(t *testing.T, raw []byte, key signer, records uint64) (list []badSnapshot) {
	// one returns the stored form of a record.
	one := func(key, value string) []byte {
		return append([]byte{byte(len(key)), byte(len(value))}, key+value...)
	}
	extra := append(splitParts(t, raw).records, one("zz", "v")...)
	for _, tt := range []struct {
		name  string
		count uint64
		data  []byte
		want  error
	}{
		{"no records", 0, nil, projector.ErrCorrupt},
		{"extra record", records + 1, extra, projector.ErrCorrupt},
		{"cursor", 1, one("c", "v"), projector.ErrCorrupt},
		{"empty key", 1, one("", "v"), projector.ErrCorrupt},
		{"key twice", 2, append(one("a", "v"), one("a", "v")...), snapshot.ErrMalformed},
		{"out of order", 2, append(one("b", "v"), one("a", "v")...), snapshot.ErrMalformed},
		{"huge length", 1, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1}, snapshot.ErrMalformed},
		{"endless length", 1, bytes.Repeat([]byte{0xff}, 20), snapshot.ErrMalformed},
	} {
		p := splitParts(t, raw)
		p.header["records"], p.records = tt.count, tt.data
		list = append(list, badSnapshot{tt.name, p.signed(t, key), tt.want})
	}
	return list
}

// badSignatures returns variants of raw with other signatures.
func badSignatures(t *testing.T, raw []byte, key signer) []badSnapshot {
	signed := raw[:len(raw)-64]
	bare, err := key.sign(signed[len(signed)-sha256.Size:])
	if err != nil {
		t.Fatal(err)
	}
	return []badSnapshot{
		{"bytes behind the end", append(bytes.Clone(raw), 0), snapshot.ErrMalformed},
		{"signed by an unknown key", splitParts(t, raw).signed(t, newSigner(t)), snapshot.ErrUnsigned},
		{"no signature", append(bytes.Clone(signed), make([]byte, 64)...), snapshot.ErrUnsigned},
		{"signed for another purpose", append(bytes.Clone(signed), bare...), snapshot.ErrUnsigned},
	}
}

// TestRefused installs snapshots that Install must refuse. It must not leave
// any files.
func TestRefused(t *testing.T) {
	t.Parallel()
	key := newSigner(t)
	run := eventstest.History(83, 300)
	p := newIndex(t, run.Messages)
	raw := snapshotOf(t, p, key)
	wanted := snapshot.Wanted{Keys: []string{key.public}, Epoch: run.Epoch, AtLeast: 300}
	for _, tt := range slices.Concat(
		badHeaders(t, raw, key, p.Records()), badRecords(t, raw, key, p.Records()), badSignatures(t, raw, key),
	) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, tt.raw, tt.want, wanted)
		})
	}
	t.Run("no accepted keys", func(t *testing.T) {
		t.Parallel()
		checkRefused(t, raw, snapshot.ErrUnsigned, snapshot.Wanted{})
	})
	t.Run("invalid accepted key", func(t *testing.T) {
		t.Parallel()
		checkRefused(t, raw, nil, snapshot.Wanted{Keys: []string{"key"}})
	})
}

// checkRefused checks that Install refuses a snapshot, and leaves no files.
func checkRefused(t *testing.T, raw []byte, why error, want snapshot.Wanted) {
	t.Helper()
	parent := t.TempDir()
	_, err := snapshot.Install(t.Context(), filepath.Join(parent, "index"), bytes.NewReader(raw), snapshot.Options{Wanted: want})
	if err == nil || why != nil && !errors.Is(err, why) {
		t.Errorf("Install = %v, want %v", err, why)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("Install left %v, %v", left, err)
	}
}

// TestTruncatedAndFlipped truncates a snapshot and flips bits, at random
// places.
func TestTruncatedAndFlipped(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	key := newSigner(t)
	raw := snapshotOf(t, newIndex(t, eventstest.History(84, 120).Messages), key)
	read := func(raw []byte) error {
		return snapshot.Read(bytes.NewReader(raw), signedBy(key), func(snapshot.Header) error { return nil }, func(_, _ []byte) error { return nil })
	}
	if err := read(raw); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		at := rng.IntN(len(raw))
		if read(raw[:at]) == nil {
			t.Fatalf("seed %d: Read accepts %d of %d bytes", seed, at, len(raw))
		}
		bit := byte(1) << rng.IntN(8)
		raw[at] ^= bit
		if read(raw) == nil {
			t.Fatalf("seed %d: Read accepts a flip of bit %d of byte %d", seed, bit, at)
		}
		raw[at] ^= bit
	}
	for range 15 {
		at := rng.IntN(len(raw))
		checkRefused(t, raw[:at], snapshot.ErrMalformed, signedBy(key))
		flipped := bytes.Clone(raw)
		flipped[at] ^= 1 << rng.IntN(8)
		checkRefused(t, flipped, nil, signedBy(key))
	}
	// Install returns an error of the reader, and accepts short reads.
	broken := errors.New("connection lost")
	for range 5 {
		at := rng.IntN(len(raw))
		dir := filepath.Join(t.TempDir(), "index")
		r := io.MultiReader(bytes.NewReader(raw[:at]), iotest.ErrReader(broken))
		if _, err := snapshot.Install(t.Context(), dir, r, snapshot.Options{Wanted: signedBy(key)}); !errors.Is(err, broken) {
			t.Errorf("Install = %v, want the reader's error", err)
		}
	}
	dir := filepath.Join(t.TempDir(), "index")
	if _, err := snapshot.Install(t.Context(), dir, iotest.HalfReader(iotest.DataErrReader(bytes.NewReader(raw))), snapshot.Options{Wanted: signedBy(key)}); err != nil {
		t.Errorf("Install = %v", err)
	}
}

// TestInstallErrors checks that a failed Install leaves existing files, and no
// others.
func TestInstallErrors(t *testing.T) {
	t.Parallel()
	key := newSigner(t)
	raw := snapshotOf(t, newIndex(t, eventstest.History(85, 40).Messages), key)
	dir := t.TempDir()
	if _, err := snapshot.Install(t.Context(), dir, bytes.NewReader(raw), snapshot.Options{Wanted: signedBy(key)}); !errors.Is(err, os.ErrExist) {
		t.Errorf("Install over a folder = %v, want os.ErrExist", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir = filepath.Join(dir, "index")
	if _, err := snapshot.Install(ctx, dir, bytes.NewReader(raw), snapshot.Options{Wanted: signedBy(key)}); !errors.Is(err, context.Canceled) {
		t.Errorf("Install = %v, want context.Canceled", err)
	}
	if _, err := snapshot.Install(t.Context(), dir, bytes.NewReader(raw), snapshot.Options{Wanted: signedBy(key), Reserve: 1 << 62}); !errors.Is(err, projector.ErrDiskFull) {
		t.Errorf("Install = %v, want ErrDiskFull", err)
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
		t.Errorf("Install left %v, %v", left, err)
	}
}

// TestInstallCrashes kills processes during Install. Each must leave the whole
// index, or files that the next Install deletes.
func TestInstallCrashes(t *testing.T) {
	t.Parallel()
	seed, rng := seed.NewRand(t)
	key := newSigner(t)
	run := bigLog(86, 6000)
	p := newIndex(t, run.Messages)
	raw, want := snapshotOf(t, p, key), projectortest.Dump(t, p)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "index")
	whole, none := 0, 0
	rounds := 10
	if testing.Short() {
		rounds = 5
	}
	matches := func(name string) func() bool {
		return func() bool { files, _ := filepath.Glob(filepath.Join(parent, name)); return len(files) > 0 }
	}
	// At once; after the first table; when the index is read back; after the
	// rename.
	stages := []func() bool{nil, matches("*/*.sst"), matches("*/00002.mem"), matches("index")}
	for round := range rounds {
		at := len(raw) // most processes receive the whole snapshot
		if round%5 == 4 {
			at = rng.IntN(len(raw))
		}
		installAndKill(t, self, dir, key, raw, at, stages[round%5%4])
		if _, err := os.Stat(dir); err != nil {
			none++
			continue
		}
		whole++
		got := open(t, dir)
		if !bytes.Equal(projectortest.Dump(t, got), want) {
			t.Fatalf("seed %d: killed after %d of %d bytes, the dump differs", seed, at, len(raw))
		}
		projectortest.Close(t, got)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d processes left the whole index", whole, whole+none)
	if _, err := snapshot.Install(t.Context(), dir, bytes.NewReader(raw), snapshot.Options{Wanted: signedBy(key)}); err != nil {
		t.Errorf("Install after the crashes = %v", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 1 {
		t.Errorf("at the end the files are %v, %v; want only the index", left, err)
	}
}

// installAndKill starts a process that installs a snapshot, and sends it the
// first bytes. When the process has read them, and stage returns true, it kills
// the process.
func installAndKill(t *testing.T, self, dir string, key signer, raw []byte, at int, stage func() bool) {
	t.Helper()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), installDir+"="+dir, installKey+"="+key.public)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	echo, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = in.Write(raw[:at])
		if at == len(raw) {
			_ = in.Close()
		}
	}()
	if _, err := io.CopyN(io.Discard, echo, int64(at)); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for began := time.Now(); stage != nil && !stage(); {
		if time.Since(began) > patience {
			t.Error("the process does not reach the stage")
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// FuzzRead checks that Read accepts only the signed snapshot.
func FuzzRead(f *testing.F) {
	// The key must be the same in all fuzzing processes.
	pair, err := nkeys.FromRawSeed(nkeys.PrefixByteUser, make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		f.Fatal(err)
	}
	key := signer{public, pair.Sign}
	raw := parts{header: map[string]any{
		"form": 1, "index": projector.Form, "epoch": "e", "position": 300, "anchor": strings.Repeat("ab", 32),
		"digest": "0123456789abcdef", "mark": "0123456789abcdef", "records": 3,
	}, records: []byte("\x01\x01ab\x02\x00cd\x01\x80\x01e" + strings.Repeat("f", 128))}.signed(f, key)
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add(raw[:len(raw)-1])
	f.Add([]byte("{}\n"))
	f.Add([]byte(fmt.Sprintf(`{"form":1,"index":%d,"epoch":"e","position":1,"records":18446744073709551615}`, projector.Form) + "\n\x01\x01ab\x01\x00c"))
	f.Add(append(bytes.Clone(raw), raw...))
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		err := snapshot.Read(bytes.NewReader(b), signedBy(key), func(snapshot.Header) error { return nil }, func(k, v []byte) error {
			if size += len(k) + len(v); size > len(b) {
				t.Fatalf("%d bytes of records in %d", size, len(b))
			}
			return nil
		})
		if signed := err == nil; signed != bytes.Equal(b, raw) {
			t.Fatalf("read %.100q: %v", b, err)
		}
		if err != nil && !strings.Contains(err.Error(), "read snapshot") {
			t.Fatalf("%v", err)
		}
	})
}

func BenchmarkInstall(b *testing.B) {
	run := bigLog(88, 100_000)
	key := newSigner(b)
	raw := snapshotOf(b, newIndex(b, run.Messages), key)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		dir := filepath.Join(b.TempDir(), "index")
		if _, err := snapshot.Install(b.Context(), dir, bytes.NewReader(raw), snapshot.Options{Wanted: signedBy(key)}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(run.Messages)*b.N)/b.Elapsed().Seconds(), "tokens/s")
}

package crashtest

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/wait"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/events/eventstest"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/testkit/history"
	"github.com/tokenledger/tokenledger/projector"
	"github.com/tokenledger/tokenledger/projector/projectortest"
)

// serveLog serves the log in the data folder of a stopped node, to this test
// only.
func serveLog(t testing.TB, data string) (*nats.Conn, *embedded.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait.Limit)
	defer cancel()
	key, err := embedded.LoadKey(filepath.Join(data, "ledger.nk"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := embedded.Start(ctx, embedded.Config{Dir: filepath.Join(data, "log"), LedgerKey: key})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	return conn, server
}

// readLog returns the whole log of a stopped node.
func readLog(t testing.TB, data string) []events.Message {
	t.Helper()
	conn, server := serveLog(t, data)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), wait.Limit)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}()
	return collect(t, conn)
}

// fetchLog returns the whole log of a running node, read with the rights of a
// verifier.
func fetchLog(t testing.TB, p *process) []events.Message {
	t.Helper()
	key, err := embedded.LoadKey(p.Path("verifier.nk"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(p.WaitListening(t).NATS, embedded.VerifierOptions(key)...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return collect(t, conn)
}

// collect reads the whole log.
func collect(t testing.TB, conn *nats.Conn) []events.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait.Limit)
	defer cancel()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	info, err := embedded.OpenStream(ctx, js)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, events.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	log, err := history.Read(ctx, stream, uint64(info.Last))
	if err != nil {
		t.Fatalf("read the log: %v", err)
	}
	return log
}

// checkLog compares a log with the acknowledged commands: each is in the log
// once, at the acknowledged position. If complete is true, the log has no other
// changes except its first events.
func checkLog(t testing.TB, log []events.Message, acks []ack, complete bool) {
	t.Helper()
	var root events.AccountID
	first := map[events.CommandKey]events.Position{}
	decoded := make([]*events.Event, len(log))
	state, changes := eventstest.Fold(log), 0
	for i, m := range log {
		e, err := events.DecodeMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		decoded[i] = e
		if e.Change.Kind() == events.KindAccountCreated && root == "" {
			root = events.AccountID(e.About)
		}
		if _, void := state.Void(m.Position); void {
			continue // its command was decided again
		}
		if !e.Change.Kind().Keeps() {
			changes++
		}
		if e.Key == "" {
			continue
		}
		if at, ok := first[e.Key]; ok {
			t.Errorf("positions %d and %d are of one command, a doubled %s", at, m.Position, e.Change.Kind())
		}
		first[e.Key] = m.Position
	}
	for _, a := range acks {
		key := events.NewCommandKey(root, a.key)
		if a.position < 1 || int(a.position) > len(log) {
			t.Errorf("%s was acknowledged at position %d, and the log ends at %d", a.kind, a.position, len(log))
			continue
		}
		if e := decoded[a.position-1]; e.Key != key || e.Change.Kind() != a.kind || e.About != a.about {
			t.Errorf("position %d holds a %s of %s, and a %s of %s was acknowledged there; its own position is %d",
				a.position, e.Change.Kind(), e.About, a.kind, a.about, first[key])
		}
	}
	if want := beginning + len(acks); complete && changes != want {
		t.Errorf("the log holds %d changes, and %d were acknowledged or begin it", changes, want)
	}
}

// beginning is the number of first events of a log: the policy, the first
// account and its token.
const beginning = 3

// dump is the content of an index.
type dump struct {
	what     string // describes the index
	position events.Position
	content  []byte
}

func dumpOf(t testing.TB, what string, p *projector.Projector) dump {
	t.Helper()
	var b bytes.Buffer
	if err := p.Dump(&b); err != nil {
		t.Fatal(err)
	}
	return dump{what, p.Position(), b.Bytes()}
}

// openIndex opens an index that no process has open, or creates one. The test
// must call close.
func openIndex(t testing.TB, dir string) (p *projector.Projector, close func()) {
	t.Helper()
	p, err := projector.Open(projector.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return p, func() {
		t.Helper()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// dumpIndex dumps the index of a stopped node.
func dumpIndex(t testing.TB, what, dir string) dump {
	t.Helper()
	p, closeIndex := openIndex(t, dir)
	defer closeIndex()
	return dumpOf(t, what, p)
}

// checkPrefixes compares each index with the fold of the log up to its
// position.
func checkPrefixes(t testing.TB, log []events.Message, found ...dump) {
	t.Helper()
	slices.SortFunc(found, func(a, b dump) int { return int(a.position) - int(b.position) })
	p, closeIndex := openIndex(t, filepath.Join(t.TempDir(), "fold"))
	defer closeIndex()
	for _, got := range found {
		if int(got.position) > len(log) {
			t.Errorf("%s is at position %d, and the log ends at %d", got.what, got.position, len(log))
			continue
		}
		if err := p.Apply(t.Context(), slices.Clone(log[p.Position():got.position])); err != nil {
			t.Fatal(err)
		}
		if want := dumpOf(t, "fold", p); !bytes.Equal(got.content, want.content) {
			t.Errorf(
				"%s at position %d differs from the fold of the log: %s",
				got.what,
				got.position,
				history.FirstDifference(got.content, want.content),
			)
		}
	}
}

// checkWhole compares the index of a stopped node with the whole log: its
// content with another fold, and its answers with the reference.
func checkWhole(t testing.TB, what, dir string, log []events.Message) {
	t.Helper()
	p, closeIndex := openIndex(t, dir)
	defer closeIndex()
	got := dumpOf(t, what, p)
	if int(got.position) != len(log) {
		t.Errorf("%s is at position %d, and the log ends at %d", what, got.position, len(log))
	}
	checkPrefixes(t, log, got)
	if err := projectortest.Compare(eventstest.Fold(log), p); err != nil {
		t.Errorf("%s differs from the reference: %v", what, err)
	}
}

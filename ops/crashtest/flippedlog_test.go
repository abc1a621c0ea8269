package crashtest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenledger/tokenledger/ops/node"
	"github.com/tokenledger/tokenledger/ops/testkit/wait"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/embedded"
	"github.com/tokenledger/tokenledger/ops/addrtest"
	"github.com/tokenledger/tokenledger/ops/testkit/disk"
)

// past has copies of a ledger's data folder with revocations, after several
// kinds of stops.
type past struct {
	left    []leaving
	victims []victim
	live    string // secret of a valid token
	acks    []ack
}

type leaving struct{ how, folder string }

// victim is a revoked token.
type victim struct {
	place  string // of the revocation in the log
	secret string
	stored []byte // the revocation
}

// The files of the log's events, and the state that the server saves so that it
// need not read all events at its start.
const (
	blockFiles = "log/jetstream/LEDGER/streams/LEDGER/msgs/*.blk"
	stateFile  = "log/jetstream/LEDGER/streams/LEDGER/msgs/index.db"
)

// newPast writes a log of two blocks.
func newPast(t *testing.T) *past {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait.Limit)
	defer cancel()
	ledger := newLedger(t, node.Config{})
	data := ledger.cfg.Data
	w := newWorkload(ledger, 0, 1, 0)
	w.root = rootSecret(t, ledger.run())
	c := w.clients[0]
	finish := func() {
		t.Helper()
		if err := c.finish(ctx); err != nil {
			t.Fatal(err)
		}
	}
	c.createAccount()
	finish()
	for range 4 {
		c.createToken(c.accounts[0])
		finish()
	}
	ledger.process().stop(t)

	const block = 8 << 20
	l := openAuthor(t, data)
	l.pad(c.accounts[0].id, block/2)
	first := l.revoke(c.tokens[0].id)
	l.pad(c.accounts[0].id, block*3/4)
	second := l.revoke(c.tokens[1].id)
	l.pad(c.accounts[0].id, 1<<16)
	l.close()

	p := ledger.run()
	c.revoke(c.tokens[2])
	finish()
	third := c.acks[len(c.acks)-1].position
	log := fetchLog(t, p)
	h := &past{live: c.tokens[3].current, acks: w.acks(), victims: []victim{
		{"first block", c.tokens[0].current, log[first-1].Data},
		{"last block", c.tokens[1].current, log[second-1].Data},
		{"last message", c.tokens[2].current, log[third-1].Data},
	}}
	if int(third) != len(log) {
		t.Fatalf("the log ends at position %d, want the third revocation's, %d", len(log), third)
	}
	leave := func(how string) string {
		to := filepath.Join(t.TempDir(), "left")
		disk.CopyTree(t, data, to)
		h.left = append(h.left, leaving{how, to})
		return to
	}
	p.Pause(t)
	leave("by a crash, with an old state")
	// In the first two minutes of a log the server has not saved a state.
	stateless := leave("by a crash, without a state")
	if err := os.Remove(filepath.Join(stateless, stateFile)); err != nil {
		t.Fatal(err)
	}
	p.Resume(t)
	p.stop(t)
	leave("by a graceful stop")
	if blocks, err := filepath.Glob(filepath.Join(data, blockFiles)); err != nil || len(blocks) != 2 {
		t.Fatalf("the log has the blocks %v, want two: %v", blocks, err)
	}
	return h
}

// author appends to the log of a stopped node.
type author struct {
	t      testing.TB
	js     jetstream.JetStream
	server *embedded.Server
	epoch  string
}

func openAuthor(t testing.TB, data string) *author {
	t.Helper()
	conn, server := serveLog(t, data)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	info, err := embedded.OpenStream(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	return &author{t, js, server, info.Epoch}
}

func (a *author) close() {
	a.t.Helper()
	if err := a.server.Shutdown(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
}

// append stores an event with an unknown field of a given size.
func (a *author) append(about string, change events.Change, padding int) events.Position {
	a.t.Helper()
	e := &events.Event{ID: events.NewEventID(time.Now()), Epoch: a.epoch, Time: time.Now(), About: about, Change: change}
	data, err := events.Encode(e)
	if err != nil {
		a.t.Fatal(err)
	}
	if padding > 0 {
		data = append([]byte(`{"padding":"`+strings.Repeat("x", padding)+`",`), data[1:]...)
	}
	ack, err := a.js.Publish(a.t.Context(), e.Subject(), data)
	if err != nil {
		a.t.Fatal(err)
	}
	return events.Position(ack.Sequence)
}

func (a *author) revoke(token string) events.Position {
	a.t.Helper()
	return a.append(token, &events.TokenRevoked{}, 0)
}

// pad appends events without effect.
func (a *author) pad(account string, bytes int) {
	a.t.Helper()
	const each = 60_000
	for range max(1, bytes/each) {
		a.append(account, &events.AccountResumed{}, each)
	}
}

// findStored returns the file of a data folder with a stored event, and the
// event's offset.
func findStored(t *testing.T, data string, stored []byte) (file string, at int64) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(data, blockFiles))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range blocks {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, stored); i >= 0 {
			return file, int64(i)
		}
	}
	t.Fatal("the event is in no block")
	return "", 0
}

// flipBit changes a bit of a file.
func flipBit(t *testing.T, file string, at int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestFlippedBitInLog flips a bit of a stored revocation. A verifier with an
// empty index waits for the log. It must never accept the token, however the
// log's server treats the damage (I8). If the server truncates the log, the
// ledger's index shows that events are missing; if the index is lost too, the
// last barrier does.
func TestFlippedBitInLog(t *testing.T) {
	seed, _ := seeded(t)
	h := newPast(t)
	for i, left := range h.left {
		for j, v := range h.victims {
			if testing.Short() && i != j {
				continue // each how and each place once
			}
			for lost, what := range []string{"", ", and the index lost"} {
				if lost > 0 && v.place == "last message" && left.how != "by a graceful stop" {
					// No barrier after the event preceded the crash, so nothing
					// shows that the server drops the event from its only copy.
					// A receipt is only issued after a barrier.
					continue
				}
				t.Run(v.place+", left "+left.how+what, func(t *testing.T) {
					t.Parallel()
					rng := rand.New(rand.NewPCG(seed, uint64(20*i+2*j+lost)))
					h.flipped(t, rng, left.folder, v, lost > 0)
				})
			}
		}
	}
}

func (h *past) flipped(t *testing.T, rng *rand.Rand, folder string, v victim, indexLost bool) {
	data := filepath.Join(t.TempDir(), "ledger")
	disk.CopyTree(t, folder, data)
	if indexLost {
		if err := os.RemoveAll(filepath.Join(data, "index")); err != nil {
			t.Fatal(err)
		}
	}
	file, at := findStored(t, data, v.stored)
	at += int64(rng.IntN(len(v.stored)))
	bit := rng.IntN(8)
	flipBit(t, file, at, bit)
	t.Logf("flipped bit %d of byte %d of %s", bit, at, filepath.Base(file))

	// The test asks whether a server listens at this address. No server of another
	// test may be there.
	_, port, err := net.SplitHostPort(addrtest.Free(t))
	if err != nil {
		t.Fatal(err)
	}
	listen := fmt.Sprintf("127.%d.%d.%d:%s", 1+rng.IntN(254), rng.IntN(256), 1+rng.IntN(254), port)
	ledger := newLedger(t, node.Config{Data: data, NATSListen: listen})
	verifier := newVerifier(t, "verifier", newLink(t, ledger), node.Config{Data: filepath.Join(t.TempDir(), "verifier")})
	waiting := verifier.run()
	stopWatching := v.neverAccepted(t, ledger, verifier)
	p := ledger.start()
	open := false // to other nodes
	const gap = "is missing from the log"
	wait.Until(t, "the ledger refuses to start, or the verifier stops at the gap", func() bool {
		open = open || greets(ledger.cfg.NATSListen)
		return p.Exited() || notReady(waiting.Ready(t.Context()), gap) == nil
	})
	if p.Exited() {
		t.Logf("the ledger refused to start:\n%s", p.out.tail())
		if code := p.Wait(t); code != 1 || !p.out.has("is damaged") && !p.out.has("is gone") && !p.out.has("is missing") {
			t.Errorf("the ledger ended with exit status %d", code)
		}
		if open {
			t.Error("the log was open to others before the ledger refused it")
		}
	} else if err := notReady(waiting.Ready(t.Context()), gap); err != nil {
		t.Error(err)
	}
	if r, err := ask(t.Context(), waiting.WaitListening(t).Verify, h.live); err != nil || r.status != http.StatusServiceUnavailable {
		t.Errorf("the verifier answers %v, %s, want 503", err, r)
	}
	if p.Exited() {
		// The server has truncated the damaged block, so the log comes from a
		// backup.
		if err := os.RemoveAll(filepath.Join(data, "log")); err != nil {
			t.Fatal(err)
		}
		disk.CopyTree(t, filepath.Join(folder, "log"), filepath.Join(data, "log"))
	} else {
		p.stop(t)
		flipBit(t, file, at, bit)
	}
	waiting.stop(t)
	ledger.run().WaitReady(t)
	verifier.run().WaitReady(t)
	stopWatching()
	checkLog(t, fetchLog(t, ledger.process()), h.acks, false)
	for _, m := range []*machine{ledger, verifier} {
		for _, want := range []expectation{{"the revoked token", v.secret, "", false}, {"the live token", h.live, "", true}} {
			r, err := ask(t.Context(), m.process().WaitListening(t).Verify, want.secret)
			if err != nil || r.Allowed != want.allowed {
				t.Errorf("%s, after the log was repaired: %s: %v, %s", m.cfg.Name, want.about, err, r)
			}
		}
	}
}

// greets reports whether the server of a log is at an address, by its greeting.
// The ledger also listens there briefly before it starts, to check that the
// address is free, but it sends nothing then.
func greets(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(wait.Limit)); err != nil {
		return false
	}
	n, _ := conn.Read(make([]byte, 1))
	return n > 0
}

// neverAccepted checks a revoked token with all nodes until the returned
// function is called. No node may accept it.
func (v victim) neverAccepted(t *testing.T, nodes ...*machine) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, m := range nodes {
		wg.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				if a, ok := m.addresses(); ok {
					if r, err := ask(ctx, a.Verify, v.secret); err == nil && r.Allowed {
						t.Errorf("%s accepts a revoked token at position %d", m.cfg.Name, r.Position)
						return
					}
				}
				<-tick.C
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

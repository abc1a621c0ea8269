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

// past is a ledger's data folder with revocations that nobody must ever forget,
// as it was left in several ways.
type past struct {
	left    []leaving
	victims []victim
	live    string // secret of a token that is good
	acks    []ack
}

type leaving struct{ how, folder string }

// victim is a token that was revoked.
type victim struct {
	place  string // of the revocation in the log
	secret string
	stored []byte // the revocation
}

// Where the server keeps the log's events, and what it saves when it is stopped
// so that it need not read them all.
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
	leave("by a crash with an old state")
	// In the first two minutes of a log the server has not saved a state.
	stateless := leave("by a crash without a state")
	if err := os.Remove(filepath.Join(stateless, stateFile)); err != nil {
		t.Fatal(err)
	}
	p.Resume(t)
	p.stop(t)
	leave("in peace")
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

// append stores an event, made larger by a field that nobody knows.
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

// pad appends events that change nothing.
func (a *author) pad(account string, bytes int) {
	a.t.Helper()
	const each = 60_000
	for range max(1, bytes/each) {
		a.append(account, &events.AccountResumed{}, each)
	}
}

// findStored returns where an event is stored in a data folder.
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

// TestFlippedBitInLog flips a bit of a stored revocation. A verifier that has
// read nothing yet, and waits for the log, must not take the token for good,
// whichever way the log's server deals with the damage (I8). Where it cuts the
// damage off, the ledger's index knows of what is gone; where that is lost too,
// the last barrier does.
func TestFlippedBitInLog(t *testing.T) {
	seed, _ := seeded(t)
	h := newPast(t)
	for i, left := range h.left {
		for j, v := range h.victims {
			if testing.Short() && i != j {
				continue // each of both once
			}
			for lost, what := range []string{"", ", and the index lost"} {
				if lost > 0 && v.place == "last message" && left.how != "in peace" {
					// The crash came before a barrier named the event, and the
					// server leaves it out as if it had never been: of the one
					// copy that there was, nothing is left to tell of it. A
					// receipt is given only behind a barrier.
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

	// An address of its own: whether anybody listens there is asked below, and
	// another test's server must not be taken for this one's.
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
	open := false // to others
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
		// The server has cut the damaged block: what is lost comes from a
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
				t.Errorf("%s, after the log was put right: %s: %v, %s", m.cfg.Name, want.about, err, r)
			}
		}
	}
}

// greets reports whether a log's server is at an address: it speaks first. The
// ledger takes the address for an instant before it begins anything, to say
// whether it is free, and speaks to nobody then.
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

// neverAccepted asks all nodes about a revoked token, time and again, until the
// function that it returns is called.
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

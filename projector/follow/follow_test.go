package follow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/projector/follow"
)

func TestCatchUpThenLive(t *testing.T) {
	l := newLog(t)
	l.publish(5000)
	r := newReader(t).run(quick(l.connect(readerUser)))
	r.waitFresh(5000)
	if s := r.f.Stats(); s.Fetched != 5000 || s.FromTail != 0 {
		t.Errorf("after catching up: %+v, want 5000 fetched", s)
	}

	for range 200 {
		p := l.publish(1)
		r.waitApplied(p)
	}
	l.publish(2000)
	r.waitFresh(7200)
	r.check(7200)
	s := r.f.Stats()
	t.Logf("%+v", s)
	if s.Position != 7200 || s.Fetched+s.FromTail != 7200 || s.FromTail == 0 || s.Refused != 0 {
		t.Errorf("at the end: %+v", s)
	}
	if err := r.stop(); err != nil {
		t.Errorf("Run = %v, want nil after its context ended", err)
	}
}

func TestEmptyLogIsFresh(t *testing.T) {
	l := newLog(t)
	r := newReader(t).run(quick(l.connect(readerUser)))
	r.waitFresh(0)
	r.waitFresh(l.publish(1))
	r.check(1)
}

func TestTailNeedsNoPoll(t *testing.T) {
	l := newLog(t)
	l.publish(10)
	cfg := quick(l.connect(readerUser))
	cfg.Poll = time.Hour
	r := newReader(t).run(cfg)
	r.waitApplied(10)
	r.wait("the first reading", func() bool { return len(r.fresh) > 0 })
	for range 100 {
		r.waitApplied(l.publish(1))
	}
	r.check(110)
	if s := r.f.Stats(); s.FromTail != 100 || len(r.told()) != 1 {
		t.Errorf("%+v and %d readings, want 100 messages from the tail and 1 reading", s, len(r.told()))
	}
}

func TestResume(t *testing.T) {
	l := newLog(t)
	r := newReader(t)
	conn := l.connect(readerUser)
	for i := range 5 {
		p := l.publish(100 * (i + 1))
		r.run(quick(conn)).waitFresh(p)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	r.check(1500)
}

func TestWithoutTail(t *testing.T) {
	l := newLog(t)
	r := newReader(t).run(quick(l.connect(noTailUser)))
	for range 5 {
		r.waitFresh(l.publish(20))
	}
	r.check(100)
	if s := r.f.Stats(); s.FromTail != 0 {
		t.Errorf("%+v, want nothing from the tail", s)
	}
}

func TestTailOverflows(t *testing.T) {
	l := newLog(t)
	cfg := quick(l.connect(readerUser))
	cfg.Tail = 4
	cfg.Batch = 50
	r := newReader(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	r.apply = func(batch []events.Message) error {
		if batch[0].Position == 1 {
			close(entered)
			<-leave
		}
		return nil
	}
	r.run(cfg)
	l.publish(1)
	<-entered
	l.publish(500)
	close(leave)
	r.waitFresh(501)
	l.publish(1)
	r.waitFresh(502)
	r.check(502)
	if s := r.f.Stats(); s.Fetched < 400 {
		t.Errorf("%+v, want at least 400 fetched", s)
	}
}

// republish switches the tail on or off.
func (l *log) republish(on bool) {
	l.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cfg := must(l.js.Stream(ctx, events.StreamName)).CachedInfo().Config
	cfg.RePublish = nil
	if on {
		cfg.RePublish = &jetstream.RePublish{Source: events.SubjectFilter, Destination: events.TailFilter}
	}
	if _, err := l.js.UpdateStream(ctx, cfg); err != nil {
		l.tb.Fatal(err)
	}
}

func TestTailGapIsFilledAtOnce(t *testing.T) {
	l := newLog(t)
	cfg := quick(l.connect(readerUser))
	cfg.Poll = time.Hour // so that only the tail shows the gap
	r := newReader(t).run(cfg)
	r.waitApplied(l.publish(10))
	for range 3 {
		l.republish(false)
		l.publish(1500)
		l.republish(true)
		r.waitApplied(l.publish(10))
	}
	r.check(10 + 3*1510)
}

func TestForgedTail(t *testing.T) {
	l := newLog(t)
	r := newReader(t).run(quick(l.connect(readerUser)))
	r.waitFresh(l.publish(10))

	subject, _ := event(11)
	h := func(stream, sequence, subject string, more ...string) nats.Header {
		h := nats.Header{}
		for i, v := range []string{stream, sequence, subject} {
			if v != "" {
				h.Set([]string{"Nats-Stream", "Nats-Sequence", "Nats-Subject"}[i], v)
			}
		}
		for _, k := range more {
			h.Set(k, "1")
		}
		return h
	}
	forge := func(h nats.Header) {
		m := &nats.Msg{Subject: events.TailPrefix + subject, Header: h, Data: []byte("forged")}
		if err := l.admin.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	refused := []nats.Header{
		nil,
		h("", "11", subject),
		h("OTHER", "11", subject),
		h("ledger", "11", subject),
		h("LEDGER", "", subject),
		h("LEDGER", "0", subject),
		h("LEDGER", "-1", subject),
		h("LEDGER", "0x0b", subject),
		h("LEDGER", "11 ", subject+"."),
		h("LEDGER", "18446744073709551616", subject),
		h("LEDGER", "11", ""),
		h("LEDGER", "11", "ledger.token.00.revoked"),
		h("LEDGER", "11", "other.subject"),
		h("LEDGER", "11", subject, "Nats-Msg-Size"),
	}
	for _, h := range refused {
		forge(h)
	}
	for _, sequence := range []string{
		"1", "10", // already handed over
		"17", "1000000", "18446744073709551615", // not next
	} {
		forge(h("LEDGER", sequence, subject))
		l.admin.Flush()
		r.waitFresh(l.publish(1))
	}
	r.check(15)
	if s := r.f.Stats(); s.Refused != uint64(len(refused)) {
		t.Errorf("%+v, want %d refused", s, len(refused))
	}

	// A forged message with the next position looks like a real one. The real
	// one reveals it.
	forge(h("LEDGER", "16", subject))
	l.admin.Flush()
	r.waitApplied(16)
	l.publish(1)
	r.waitEnd(follow.ErrReplaced)
}

// TestTailGoesBack repeats positions on the tail with other data and continues
// from there, while the real messages still wait in the channel. The same happens
// if a log is cut back and grows again.
func TestTailGoesBack(t *testing.T) {
	for _, lost := range []bool{false, true} { // the tail lost the message before the waiting ones
		t.Run(fmt.Sprintf("lost=%v", lost), func(t *testing.T) {
			l := newLog(t)
			r := newReader(t)
			entered, leave := make(chan struct{}), make(chan struct{})
			r.apply = func(batch []events.Message) error {
				if batch[0].Position == 11 {
					close(entered)
					<-leave
				}
				return nil
			}
			r.run(quick(l.connect(readerUser)))
			r.waitFresh(l.publish(10))
			l.publish(1)
			<-entered
			if lost {
				l.republish(false)
				l.publish(1)
				l.republish(true)
			}
			p := l.publish(4)
			for i := range 4 { // the last two, again, and two more
				subject, _ := event(0)
				if err := l.admin.PublishMsg(&nats.Msg{
					Subject: events.TailPrefix + subject, Data: []byte("forged"), Header: nats.Header{
						"Nats-Stream": {events.StreamName}, "Nats-Subject": {subject}, "Nats-Sequence": {fmt.Sprint(int(p) - 1 + i)},
					},
				}); err != nil {
					t.Fatal(err)
				}
			}
			l.admin.Flush()
			close(leave)
			p = l.publish(10)
			r.waitFresh(p)
			r.check(int(p))
		})
	}
}

func TestStoredHeaders(t *testing.T) {
	l := newLog(t)
	subject, data := event(1)
	header := nats.Header{
		"Status": {"204"}, "Description": {"EOB"},
		"Nats-Stream": {"OTHER"}, "Nats-Subject": {"other"}, "Nats-Sequence": {"77"}, "Nats-Last-Sequence": {"76"}, "Nats-Num-Pending": {"0"},
	}
	publish := func() {
		if _, err := l.js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Header: header, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		publish()
	}
	r := newReader(t)
	r.apply = func(batch []events.Message) error {
		for _, m := range batch {
			if m.Subject != subject || string(m.Data) != string(data) {
				return fmt.Errorf("handed over %s: %s", m.Subject, m.Data)
			}
		}
		return nil
	}
	r.run(quick(l.connect(readerUser))).waitFresh(3)
	publish()
	r.waitFresh(4)
}

func TestForeignAnswer(t *testing.T) {
	l := newLog(t)
	l.publish(3)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cfg := must(l.js.Stream(ctx, events.StreamName)).CachedInfo().Config
	cfg.AllowDirect = false
	must(l.js.UpdateStream(ctx, cfg))

	r := newReader(t).run(quick(l.connect(readerUser)))
	r.wait("no answer", func() bool { return r.away })
	must(l.admin.Subscribe("$JS.API.DIRECT.GET.LEDGER", func(m *nats.Msg) {
		l.admin.PublishMsg(&nats.Msg{Subject: m.Reply, Data: []byte("{}"), Header: nats.Header{
			"Nats-Stream": {"OTHER"}, "Nats-Subject": {"ledger.token.00.created"}, "Nats-Sequence": {"1"},
		}})
	}))
	r.waitEnd(follow.ErrForeign)
	if r.last != 0 || len(r.fresh) != 0 {
		t.Errorf("%d messages and %d readings, want none", r.last, len(r.fresh))
	}
}

func TestHandlerEndsRun(t *testing.T) {
	l := newLog(t)
	l.publish(20)
	cfg := quick(l.connect(readerUser))
	cfg.Batch = 7
	broken := errors.New("broken")
	r := newReader(t)
	r.apply = func(batch []events.Message) error {
		if len(batch) > 7 {
			t.Errorf("batch of %d messages, want at most 7", len(batch))
		}
		if batch[0].Position == 8 {
			return broken
		}
		return nil
	}
	r.run(cfg).waitEnd(broken)
	if r.last != 7 {
		t.Errorf("position %d, want 7", r.last)
	}
}

// TestHandlers gives two handlers the same messages and readings.
func TestHandlers(t *testing.T) {
	l := newLog(t)
	first, second := newReader(t), newReader(t)
	broken := errors.New("broken")
	second.apply = func(batch []events.Message) error {
		if batch[0].Position > first.last {
			t.Errorf("the second handler got position %d before the first", batch[0].Position)
		}
		if batch[0].Position > 50 {
			return broken
		}
		return nil
	}
	first.run(quick(l.connect(readerUser)), second)
	p := l.publish(50)
	first.waitFresh(p)
	second.wait("the same reading", func() bool { return len(second.fresh) > 0 && second.fresh[len(second.fresh)-1].end >= p })
	l.publish(1)
	first.waitEnd(broken)
	first.check(51)
	second.check(50)
}

func TestRunRefuses(t *testing.T) {
	l := newLog(t)
	conn := l.connect(readerUser)
	f, err := follow.New(quick(conn))
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t)
	for _, c := range []struct {
		after  events.Position
		anchor []byte
		h      follow.Handler
		want   string
	}{
		{0, nil, nil, "handler"},
		{1, nil, r, "anchor"},
		{1, make([]byte, 31), r, "anchor"},
		{0, make([]byte, 32), r, "anchor"},
	} {
		if err := f.Run(t.Context(), c.after, c.anchor, c.h); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Run(%d, %d bytes) = %v, want an error about %s", c.after, len(c.anchor), err, c.want)
		}
	}

	r.run(quick(conn)).waitFresh(0)
	if err := r.f.Run(t.Context(), 0, nil, r); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("second Run = %v, want an error", err)
	}
	conn.Close()
	r.waitEnd(follow.ErrClosed)
	if err := f.Run(t.Context(), 0, nil, r); !errors.Is(err, follow.ErrClosed) {
		t.Errorf("Run on a closed connection = %v, want ErrClosed", err)
	}

	_, err = follow.New(follow.Config{Batch: -1, Tail: -1, Poll: -1, Timeout: -1, GapTimeout: -1})
	for _, want := range []string{"Conn", "Batch", "Tail", "Poll", "Timeout", "GapTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want+" is") {
			t.Errorf("New = %v, want %s named", err, want)
		}
	}
}

func TestEndedContext(t *testing.T) {
	l := newLog(t)
	l.publish(5)
	r := newReader(t)
	started := make(chan struct{})
	r.apply = func([]events.Message) error {
		close(started)
		return context.Canceled
	}
	r.run(quick(l.connect(readerUser)))
	<-started
	<-r.done
	if !errors.Is(r.err, context.Canceled) {
		t.Errorf("Run = %v, want the handler's error: the context has not ended", r.err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := must(follow.New(quick(l.connect(readerUser))))
	if err := f.Run(ctx, 0, nil, newReader(t)); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

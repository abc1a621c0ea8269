package embedded

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// wantDenied waits for the server's error about a denied publish on subject,
// which has no other answer.
func wantDenied(t *testing.T, errs <-chan error, what, subject string) {
	t.Helper()
	select {
	case err := <-errs:
		if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), fmt.Sprintf("%s to %q", what, subject)) {
			t.Errorf("%s to %s: the server said %v", what, subject, err)
		}
	case <-testContext(t).Done():
		t.Fatalf("%s to %s was not refused", what, subject)
	}
}

// servedKit is a server with a stream of one event, a bucket of one record and
// a durable consumer.
func servedKit(t *testing.T) (*fixture, jetstream.JetStream) {
	t.Helper()
	k := startKit(t)
	js := k.asLedger()
	mustCreateStream(t, js)
	mustPublish(t, js, "ledger.token.aa.created", "one")
	kv, err := js.CreateKeyValue(testContext(t), jetstream.KeyValueConfig{Bucket: "people", MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(testContext(t), "usr_1", "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateConsumer(testContext(t), "LEDGER", jetstream.ConsumerConfig{Durable: "own"}); err != nil {
		t.Fatal(err)
	}
	return k, js
}

func TestVerifierMayNot(t *testing.T) {
	k, js := servedKit(t)
	nc, errs := k.asVerifier()

	publish := []string{
		// The log, and what follows it.
		"ledger.token.aa.created", "ledger.account.aa.granted", "ledger.policy.set", "ledger",
		"tail.ledger.token.aa.revoked",
		// The server's interface.
		"$JS.API.INFO", "$JS.API.ACCOUNT.PURGE.LEDGER",
		"$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST",
		"$JS.API.STREAM.CREATE.LEDGER", "$JS.API.STREAM.CREATE.OTHER",
		"$JS.API.STREAM.UPDATE.LEDGER", "$JS.API.STREAM.DELETE.LEDGER", "$JS.API.STREAM.PURGE.LEDGER",
		"$JS.API.STREAM.MSG.DELETE.LEDGER", "$JS.API.STREAM.MSG.GET.LEDGER",
		"$JS.API.STREAM.SNAPSHOT.LEDGER", "$JS.API.STREAM.RESTORE.LEDGER",
		"$JS.API.STREAM.PEER.REMOVE.LEDGER", "$JS.API.STREAM.LEADER.STEPDOWN.LEDGER",
		"$JS.API.STREAM.INFO.KV_people", "$JS.API.STREAM.INFO.LEDGER.x",
		"$JS.API.CONSUMER.CREATE.LEDGER", "$JS.API.CONSUMER.CREATE.LEDGER.c", "$JS.API.CONSUMER.CREATE.LEDGER.c.ledger.>",
		"$JS.API.CONSUMER.DURABLE.CREATE.LEDGER.c",
		"$JS.API.CONSUMER.DELETE.LEDGER.own", "$JS.API.CONSUMER.INFO.LEDGER.own", "$JS.API.CONSUMER.LIST.LEDGER",
		"$JS.API.CONSUMER.NAMES.LEDGER", "$JS.API.CONSUMER.MSG.NEXT.LEDGER.own",
		"$JS.API.CONSUMER.PAUSE.LEDGER.own", "$JS.API.CONSUMER.UNPIN.LEDGER.own", "$JS.API.CONSUMER.RESET.LEDGER.own",
		"$JS.API.DIRECT.GET.KV_people", "$JS.API.DIRECT.GET.KV_people.$KV.people.usr_1",
		"$JS.API.META.LEADER.STEPDOWN", "$JS.API.SERVER.REMOVE",
		"$JS.ACK.LEDGER.own.1.1.1.1.0", "$JS.FC.LEDGER.own.x",
		// Records that can be erased.
		"$KV.people.usr_1",
		// Another node's reports, inboxes and the server itself.
		"node.status", "node.status.a.b", "node.other.a", "_INBOX_ledger.x", "_INBOX_verifier.x",
		"$SYS.REQ.SERVER.PING", "anything",
	}
	for _, subject := range publish {
		if err := nc.PublishRequest(subject, nc.NewInbox(), []byte("{}")); err != nil {
			t.Fatal(err)
		}
		wantDenied(t, errs, "Publish", subject)
	}

	subscribe := []string{
		">", "*", "ledger.>", "ledger.token.aa.created", "tail.>", "node.>", "node.status.*",
		"_INBOX.>", "_INBOX_ledger.>", "$JS.>", "$JS.API.>", "$JS.EVENT.>", "$KV.>", "$KV.people.>", "$SYS.>",
	}
	for _, subject := range subscribe {
		sub, err := nc.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		wantDenied(t, errs, "Subscription", subject)
		if _, err := sub.NextMsgWithContext(testContext(t)); !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("NextMsg on %s = %v, want %v", subject, err, nats.ErrPermissionViolation)
		}
	}

	info, err := OpenStream(testContext(t), js)
	if err != nil {
		t.Error(err)
	}
	if info.Last != 1 {
		t.Errorf("the stream has grown to %d events", info.Last)
	}
	kv, err := js.KeyValue(testContext(t), "people")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(testContext(t), "usr_1"); err != nil || e.Revision() != 1 {
		t.Errorf("the record is %v, %v, want revision 1", e, err)
	}
}

func TestVerifierMay(t *testing.T) {
	k, js := servedKit(t)
	nc, errs := k.asVerifier()
	tail, err := nc.SubscribeSync("tail.ledger.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushWithContext(testContext(t)); err != nil {
		t.Fatal(err)
	}
	reports, err := js.Conn().SubscribeSync("node.status.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := js.Conn().FlushWithContext(testContext(t)); err != nil {
		t.Fatal(err)
	}

	// Follow the tail.
	mustPublish(t, js, "ledger.token.ab.revoked", "two")
	msg, err := tail.NextMsgWithContext(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if msg.Subject != "tail.ledger.token.ab.revoked" || string(msg.Data) != "two" ||
		msg.Header.Get("Nats-Stream") != "LEDGER" || msg.Header.Get("Nats-Sequence") != "2" ||
		msg.Header.Get("Nats-Subject") != "ledger.token.ab.revoked" {
		t.Errorf("the tail has %s %v %q", msg.Subject, msg.Header, msg.Data)
	}

	// Read one event, the last of a subject, and the state.
	stream, err := newJetStream(t, nc).Stream(testContext(t), "LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.LastSeq; got != 2 {
		t.Errorf("the last position is %d, want 2", got)
	}
	if m, err := stream.GetMsg(testContext(t), 1); err != nil || string(m.Data) != "one" {
		t.Errorf("GetMsg(1) = %v, %v", m, err)
	}
	if m, err := stream.GetLastMsgForSubject(testContext(t), "ledger.token.ab.*"); err != nil || m.Sequence != 2 {
		t.Errorf("GetLastMsgForSubject = %v, %v", m, err)
	}

	// Read a batch.
	inbox := nc.NewInbox()
	batch, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("$JS.API.DIRECT.GET.LEDGER", inbox, []byte(`{"seq":1,"batch":10}`)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two", ""} { // the last one says that it is the end
		m, err := batch.NextMsgWithContext(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Data) != want {
			t.Errorf("the batch has %q, want %q", m.Data, want)
		}
		if end := m.Header.Get("Status") == "204"; end != (want == "") {
			t.Errorf("after %q the batch says %v", want, m.Header)
		}
	}

	// Report.
	if err := nc.Publish("node.status.ams1", []byte("applied 2")); err != nil {
		t.Fatal(err)
	}
	report, err := reports.NextMsgWithContext(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if report.Subject != "node.status.ams1" || string(report.Data) != "applied 2" || report.Reply != "" {
		t.Errorf("the report is %s %q, reply to %q", report.Subject, report.Data, report.Reply)
	}

	select {
	case err := <-errs:
		t.Errorf("the server said %v", err)
	default:
	}
}

// A request names its reply subject, and the server does not check whether the
// verifier may publish there. In one account with the stream, each of these
// would append to it.
func TestVerifierCannotAppendAnAnswer(t *testing.T) {
	k, js := servedKit(t)
	nc, errs := k.asVerifier()
	reports, err := js.Conn().SubscribeSync("node.status.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := js.Conn().FlushWithContext(testContext(t)); err != nil {
		t.Fatal(err)
	}
	inbox := nc.NewInbox()
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	requests := []struct{ subject, body string }{
		{"$JS.API.DIRECT.GET.LEDGER", `{"seq":1}`},
		{"$JS.API.DIRECT.GET.LEDGER", `{"seq":1,"batch":10}`},
		{"$JS.API.DIRECT.GET.LEDGER", `nonsense`},
		{"$JS.API.DIRECT.GET.LEDGER.ledger.token.aa.created", ""},
		{"$JS.API.STREAM.INFO.LEDGER", ""},
	}
	targets := []string{"ledger.token.aa.created", "$KV.people.usr_1", "$JS.API.STREAM.DELETE.LEDGER", "$JS.API.STREAM.PURGE.KV_people"}
	for _, r := range requests {
		// The same request with an honest reply comes last: its answer proves
		// that those before it were processed.
		for _, reply := range append(targets, inbox) {
			if err := nc.PublishRequest(r.subject, reply, []byte(r.body)); err != nil {
				t.Fatal(err)
			}
		}
		for {
			m, err := answers.NextMsgWithContext(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(r.body, "batch") || m.Header.Get("Status") == "204" {
				break
			}
		}
	}
	for _, reply := range targets {
		if err := nc.PublishRequest("node.status.ams1", reply, nil); err != nil {
			t.Fatal(err)
		}
		report, err := reports.NextMsgWithContext(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		// A ledger's answer would go here.
		if !strings.HasPrefix(report.Reply, "_R_.") {
			t.Errorf("a report has reply %q, want one that leads back to the verifier's account", report.Reply)
		}
	}
	if got := mustPublish(t, js, "ledger.token.aa.revoked", "two"); got != 2 {
		t.Errorf("the next event has position %d, want 2", got)
	}
	kv, err := js.KeyValue(testContext(t), "people")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(testContext(t), "usr_1"); err != nil || e.Revision() != 1 {
		t.Errorf("the record is %v, %v, want revision 1", e, err)
	}
	select {
	case err := <-errs:
		t.Errorf("the server said %v", err)
	default:
	}
}

func TestLedgerMay(t *testing.T) {
	_, js := servedKit(t)
	ctx := testContext(t)

	// Append several events at once, or none.
	for i, commit := range []string{"", "1"} {
		m := nats.NewMsg("ledger.token.aa.scoped")
		m.Header.Set("Nats-Batch-Id", "b1")
		m.Header.Set("Nats-Batch-Sequence", fmt.Sprint(i+1))
		if commit != "" {
			m.Header.Set("Nats-Batch-Commit", commit)
		}
		answer, err := js.Conn().RequestMsgWithContext(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		if commit != "" && !strings.Contains(string(answer.Data), `"count":2`) {
			t.Errorf("the batch is answered by %s", answer.Data)
		}
	}

	// Append on condition.
	_, err := js.Publish(ctx, "ledger.token.aa.revoked", nil, jetstream.WithExpectLastSequenceForSubject(1, "ledger.token.aa.*"))
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
		t.Errorf("append after an event that the caller has not seen = %v", err)
	}
	if _, err := js.Publish(ctx, "ledger.token.aa.revoked", nil, jetstream.WithExpectLastSequenceForSubject(3, "ledger.token.aa.*")); err != nil {
		t.Error(err)
	}

	// Read in order.
	c, err := js.OrderedConsumer(ctx, "LEDGER", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for want := uint64(1); want <= 4; want++ {
		m, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if meta, err := m.Metadata(); err != nil || meta.Sequence.Stream != want {
			t.Errorf("read %+v, %v, want position %d", meta, err, want)
		}
	}
	// Read and acknowledge.
	own, err := js.Consumer(ctx, "LEDGER", "own")
	if err != nil {
		t.Fatal(err)
	}
	m, err := own.Next()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DoubleAck(ctx); err != nil {
		t.Error(err)
	}

	// Keep, watch and erase records.
	kv, err := js.KeyValue(ctx, "people")
	if err != nil {
		t.Fatal(err)
	}
	w, err := kv.WatchAll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.Updates(); e == nil || e.Key() != "usr_1" {
		t.Errorf("the bucket has %v, want usr_1", e)
	}
	if e := <-w.Updates(); e != nil {
		t.Errorf("the bucket has more: %v", e)
	}
	if err := kv.Purge(ctx, "usr_1"); err != nil {
		t.Error(err)
	}
	if err := kv.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(-1)); err != nil {
		t.Error(err)
	}
}

func TestClientOptions(t *testing.T) {
	key := newKey(t)
	for inbox, options := range map[string][]nats.Option{"_INBOX_ledger": LedgerOptions(key), "_INBOX_verifier": VerifierOptions(key)} {
		var o nats.Options
		for _, set := range options {
			if err := set(&o); err != nil {
				t.Fatal(err)
			}
		}
		if o.InboxPrefix != inbox || o.Nkey != key.Public() {
			t.Errorf("connects with inbox %s and key %s, want %s and %s", o.InboxPrefix, o.Nkey, inbox, key.Public())
		}
		if o.MaxReconnect != -1 || !o.IgnoreAuthErrorAbort {
			t.Error("gives up reconnecting")
		}
		if o.ReconnectBufSize != -1 {
			t.Error("sends what was published while disconnected")
		}
		if cut := o.PingInterval * time.Duration(o.MaxPingsOut+1); cut <= 0 || cut > 3*time.Second {
			t.Errorf("notices a cut link after %v, want 3s at most", cut)
		}
		if longest := o.ReconnectWait + o.ReconnectJitter; longest > 250*time.Millisecond {
			t.Errorf("waits up to %v to reconnect, want 250ms at most", longest)
		}
	}
}

// Frequent requests of a verifier must not grow the server's memory.
func TestAnswersAreForgotten(t *testing.T) {
	k, _ := servedKit(t)
	nc, _ := k.asVerifier()
	stream, err := newJetStream(t, nc).Stream(testContext(t), "LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := stream.Info(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.GetLastMsgForSubject(testContext(t), "ledger.token.aa.created"); err != nil {
			t.Fatal(err)
		}
	}
	acc, err := k.ns.LookupAccount(ledgerAccount)
	if err != nil {
		t.Fatal(err)
	}
	if n := acc.NumPendingAllResponses(); n > 10 {
		t.Errorf("the server remembers %d answered requests", n)
	}
}

func newMsg(subject, header, value string) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Header.Set(header, value)
	return m
}

package embedded

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tokenledger/tokenledger/ops/addrtest"
)

// api lists every subject of the server's stream API, with wildcards that the
// test fills in, and the streams for which a verifier may use it.
var api = map[string][]string{
	"$JS.API.INFO":                           nil,
	"$JS.API.STREAM.CREATE.*":                nil,
	"$JS.API.STREAM.UPDATE.*":                nil,
	"$JS.API.STREAM.NAMES":                   nil,
	"$JS.API.STREAM.LIST":                    nil,
	"$JS.API.STREAM.INFO.*":                  {"LEDGER"},
	"$JS.API.STREAM.DELETE.*":                nil,
	"$JS.API.STREAM.PURGE.*":                 nil,
	"$JS.API.STREAM.SNAPSHOT.*":              nil,
	"$JS.API.STREAM.RESTORE.*":               nil,
	"$JS.API.STREAM.MSG.DELETE.*":            nil,
	"$JS.API.STREAM.MSG.GET.*":               nil,
	"$JS.API.DIRECT.GET.*":                   {"LEDGER", "LEASES", "OBJ_SNAPSHOTS"},
	"$JS.API.DIRECT.GET.*.>":                 {"LEDGER", "LEASES", "OBJ_SNAPSHOTS"},
	"$JS.API.CONSUMER.CREATE.*":              nil,
	"$JS.API.CONSUMER.CREATE.*.>":            nil,
	"$JS.API.CONSUMER.DURABLE.CREATE.*.*":    nil,
	"$JS.API.CONSUMER.NAMES.*":               nil,
	"$JS.API.CONSUMER.LIST.*":                nil,
	"$JS.API.CONSUMER.INFO.*.*":              nil,
	"$JS.API.CONSUMER.DELETE.*.*":            nil,
	"$JS.API.CONSUMER.PAUSE.*.*":             nil,
	"$JS.API.CONSUMER.MSG.NEXT.*.*":          nil,
	"$JS.API.CONSUMER.RESET.*.*":             nil,
	"$JS.API.CONSUMER.UNPIN.*.*":             nil,
	"$JS.API.STREAM.PEER.REMOVE.*":           nil,
	"$JS.API.STREAM.PEER.EVACUATE.*":         nil,
	"$JS.API.STREAM.CANCEL_MOVE.*":           nil,
	"$JS.API.STREAM.LEADER.STEPDOWN.*":       nil,
	"$JS.API.CONSUMER.LEADER.STEPDOWN.*.*":   nil,
	"$JS.API.CONSUMER.PEER.REMOVE.*.*":       nil,
	"$JS.API.CONSUMER.PEER.EVACUATE.*.*":     nil,
	"$JS.API.META.LEADER.STEPDOWN":           nil,
	"$JS.API.SERVER.REMOVE":                  nil,
	"$JS.API.SERVER.EVACUATE":                nil,
	"$JS.API.META.RESCUE":                    nil,
	"$JS.API.ACCOUNT.PURGE.*":                nil,
	"$JS.API.ACCOUNT.STREAM.MOVE.*.*":        nil,
	"$JS.API.ACCOUNT.STREAM.CANCEL_MOVE.*.*": nil,
}

// prefixes are constants of the server that are prefixes of several subjects.
var prefixes = []string{"$JS.API", "$JS.API.>", "$JS.API.DIRECT.GET", "$JS.API.CONSUMER.MSG.NEXT.", "$JS.API.ACCOUNT."}

// TestWholeAPI compares the table with the server's source, so that a new
// subject of a later version is noticed.
func TestWholeAPI(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/nats-io/nats-server/v2").Output()
	if err != nil {
		t.Fatalf("find the server's source: %v", err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(out)), "server", "jetstream_api.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			for _, v := range s.(*ast.ValueSpec).Values {
				lit, ok := v.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					continue
				}
				subject, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(subject, "$JS.API") || slices.Contains(prefixes, subject) {
					continue
				}
				subject = strings.ReplaceAll(subject, "%s", "*")
				switch subject { // a template for a subject with more parts
				case "$JS.API.DIRECT.GET.*.*", "$JS.API.CONSUMER.CREATE.*.*.*":
					subject = strings.TrimSuffix(strings.TrimSuffix(subject, ".*"), ".*") + ".>"
					if strings.HasPrefix(subject, "$JS.API.DIRECT") {
						subject = "$JS.API.DIRECT.GET.*.>"
					} else {
						subject = "$JS.API.CONSUMER.CREATE.*.>"
					}
				}
				seen[subject] = true
				if _, ok := api[subject]; !ok {
					t.Errorf("the server has %s, and the table does not say who may ask it", subject)
				}
			}
		}
	}
	for subject := range api {
		if !seen[subject] {
			t.Errorf("the table has %s, and the server does not", subject)
		}
	}
	if len(seen) < 30 {
		t.Errorf("found %d subjects in the server's source, want them all", len(seen))
	}
}

// fill replaces the wildcards of a subject.
func fill(subject, stream string) string {
	subject = strings.Replace(subject, "*", stream, 1)
	subject = strings.ReplaceAll(subject, "*", "own")
	return strings.ReplaceAll(subject, ">", "ledger.token.aa.created")
}

var tableStreams = []string{"LEDGER", "LEASES", "OBJ_SNAPSHOTS", "KV_people", "OTHER", "*"}

// bus is a log to which a role connects, on one kind of server.
type bus struct {
	ledger func() *nats.Conn
	// connect connects as a verifier, to one of the servers.
	connect func(t *testing.T, opts ...nats.Option) *nats.Conn
	name    string // that the verifier's key is pinned to; empty for a shared one
}

// roleTests are the roles' rights on one kind of bus.
func roleTests(t *testing.T, b bus) {
	js := newJetStream(t, b.ledger())
	mustPublish(t, js, "ledger.token.aa.created", "one")
	kv, err := js.CreateKeyValue(testContext(t), jetstream.KeyValueConfig{Bucket: "people", MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	led(t, func() error {
		_, err := kv.PutString(testContext(t), "usr_1", "alice")
		return err
	})
	store, err := js.CreateObjectStore(testContext(t), jetstream.ObjectStoreConfig{Bucket: SnapshotBucket, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	led(t, func() error {
		_, err := store.PutBytes(testContext(t), "index", []byte("snapshot"))
		return err
	})
	led(t, func() error {
		_, err := js.CreateConsumer(testContext(t), "LEDGER", jetstream.ConsumerConfig{Durable: "own"})
		return err
	})
	state := func() (states []string) {
		for name := range js.StreamNames(testContext(t)).Name() {
			s, err := js.Stream(testContext(t), name)
			if err != nil {
				t.Fatal(err)
			}
			info := s.CachedInfo()
			states = append(states, fmt.Sprint(info.Config.Name, info.State.FirstSeq, info.State.LastSeq, info.State.Msgs, info.State.Consumers, len(info.Config.Subjects)))
		}
		slices.Sort(states)
		return states
	}
	before := state()
	t.Run("verifier may not", func(t *testing.T) { verifierMayNot(t, b) })
	t.Run("answers go back", func(t *testing.T) { answersGoBack(t, b) })
	if after := state(); !slices.Equal(leaseless(before), leaseless(after)) {
		t.Errorf("the streams are\n%q\nand were\n%q", after, before)
	}
	t.Run("verifier may", func(t *testing.T) { verifierMay(t, b) })
	t.Run("ledger", func(t *testing.T) { ledgerMayAskAll(t, b) })
	if got := mustPublish(t, js, "ledger.token.aa.revoked", "two"); got != 2 {
		t.Errorf("the next event has position %d, want 2", got)
	}
}

// led retries while a new stream has no leader.
func led(t *testing.T, try func() error) {
	t.Helper()
	err := try()
	for (errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse)) && t.Context().Err() == nil {
		err = try()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// leaseless leaves out the lease stream, to which verifiers write.
func leaseless(states []string) []string {
	return slices.DeleteFunc(slices.Clone(states), func(s string) bool { return strings.HasPrefix(s, "LEASES") })
}

// gathered collects a connection's errors.
func gathered() (chan error, nats.Option) {
	errs := make(chan error, 4096)
	return errs, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err })
}

func verifierMayNot(t *testing.T, b bus) {
	errs, handler := gathered()
	nc := b.connect(t, handler)
	var denied []string
	for subject, streams := range api {
		for _, stream := range tableStreams {
			if !slices.Contains(streams, stream) && stream != "*" {
				denied = append(denied, fill(subject, stream))
			}
		}
	}
	denied = append(denied,
		"$JS.API.STREAM.INFO.LEDGER.x", "$JS.API.CONSUMER.CREATE.LEDGER.c.ledger.>", "$JS.API.NEW.LEDGER",
		"$JS.ACK.LEDGER.own.1.1.1.1.0", "$JS.FC.LEDGER.own.x", "$JS.EVENT.ADVISORY.x", "$JSC.x", "$NRG.x",
		"ledger", "ledger.token.aa.created", "ledger.account.aa.granted", "ledger.policy.set", "ledger.receipt.issued",
		"tail.ledger.token.aa.revoked", "tail.lease.barrier",
		"lease", "lease.barrier", "lease.node", "lease.node.a.b", "lease.other",
		"node.status", "node.status.a.b", "node.other.a", "node.began", "node.began.answer.x",
		"$KV.people.usr_1", "$O.SNAPSHOTS.C.x", "$O.SNAPSHOTS.M.x",
		"_INBOX.x", "_INBOX_ledger.x", "_INBOX_verifier.x", "_INBOX_v_v1.x", "_INBOX_v_v2.x", "_R_.x.y",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "$SYS.REQ.ACCOUNT.PING.CONNZ", "anything")
	if b.name != "" {
		denied = append(denied, "lease.node.other", "lease.node.l1", "node.status.other", "node.status.l1")
	}
	denied = slices.Compact(slices.Sorted(slices.Values(denied)))
	for _, subject := range denied {
		if err := nc.PublishRequest(subject, nc.NewInbox(), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	wantAllDenied(t, nc, errs, "Publish", denied)

	subscribe := []string{
		">", "*", "*.>", "ledger.>", "ledger.token.aa.created", "tail.>", "tail.*", "lease.>", "lease.barrier", "lease.node.*", "node.>", "node.status.*",
		"node.began", "node.began.answer.>", "_INBOX.>", "_INBOX_ledger.>", "_INBOX_v_other.>", "_INBOX_v_v2.>", "_R_.>", "$JS.>", "$JS.API.>", "$JS.EVENT.>",
		"$KV.>", "$KV.people.>", "$O.>", "$O.SNAPSHOTS.>", "$SYS.>",
	}
	if b.name != "" {
		subscribe = append(subscribe, "_INBOX_verifier.>")
	} else {
		subscribe = append(subscribe, "_INBOX_v_v1.>")
	}
	for _, subject := range subscribe {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
	}
	wantAllDenied(t, nc, errs, "Subscription", subscribe)
}

// wantAllDenied waits until the server has refused each subject.
func wantAllDenied(t *testing.T, nc *nats.Conn, errs <-chan error, what string, subjects []string) {
	t.Helper()
	if err := nc.FlushWithContext(testContext(t)); err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, s := range subjects {
		left[s] = true
	}
	for ctx := testContext(t); len(left) > 0; {
		select {
		case err := <-errs:
			_, quoted, ok := strings.Cut(err.Error(), what+" to ")
			subject, uerr := strconv.Unquote(quoted)
			if !errors.Is(err, nats.ErrPermissionViolation) || !ok || uerr != nil || !left[subject] {
				t.Errorf("the server said %v", err)
			}
			delete(left, subject)
		case <-time.After(patience):
			// The server refuses in order, and it has answered the flush.
			for s := range left {
				t.Errorf("%s to %s was not refused", what, s)
			}
			return
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
}

func verifierMay(t *testing.T, b bus) {
	errs, handler := gathered()
	nc := b.connect(t, handler)
	inbox, name := inboxOf(b.name), b.name
	if name == "" {
		name = "whoever"
	}
	for _, subject := range []string{inbox + ".>", "tail.ledger.>", "tail.lease.>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
	}
	reports, err := b.ledger().SubscribeSync("node.status.*")
	if err != nil {
		t.Fatal(err)
	}
	defer reports.Unsubscribe()
	if err := b.ledger().FlushWithContext(testContext(t)); err != nil {
		t.Fatal(err)
	}
	ask := func(subject, body string) *nats.Msg {
		t.Helper()
		ctx := testContext(t)
		for {
			m, err := nc.RequestWithContext(ctx, subject, []byte(body))
			if errors.Is(err, nats.ErrNoResponders) && ctx.Err() == nil {
				continue // interest travels between servers
			}
			if err != nil {
				t.Fatalf("%s: %v", subject, err)
			}
			return m
		}
	}
	for subject, streams := range api {
		for _, stream := range streams {
			ask(fill(subject, stream), `{"seq":1}`)
		}
	}
	if m := ask("$JS.API.DIRECT.GET.OBJ_SNAPSHOTS", `{"seq":1}`); string(m.Data) != "snapshot" {
		t.Errorf("the snapshot's first chunk is %q", m.Data)
	}
	for i := range 2 {
		if m := ask("lease.node."+name, "renewed"); !strings.Contains(string(m.Data), `"stream":"LEASES"`) || strings.Contains(string(m.Data), "error") {
			t.Errorf("renewal %d is acknowledged by %s", i, m.Data)
		}
	}
	for ctx := testContext(t); ; {
		if err := nc.Publish("node.status."+name, []byte("applied")); err != nil {
			t.Fatal(err)
		}
		if m, err := reports.NextMsg(100 * time.Millisecond); err == nil {
			if m.Subject != "node.status."+name {
				t.Errorf("the report is %s", m.Subject)
			}
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the report does not arrive")
		}
	}
	select {
	case err := <-errs:
		t.Errorf("the server said %v", err)
	default:
	}
}

// answersGoBack has a verifier name the ledger's subjects as reply subjects,
// above all for the acknowledgement of a renewal.
func answersGoBack(t *testing.T, b bus) {
	nc := b.connect(t)
	name := b.name
	if name == "" {
		name = "whoever"
	}
	spy, err := b.ledger().SubscribeSync("ledger.token.>")
	if err != nil {
		t.Fatal(err)
	}
	defer spy.Unsubscribe()
	lease, err := b.ledger().SubscribeSync("lease.barrier")
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Unsubscribe()
	if err := b.ledger().FlushWithContext(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{"lease.node." + name, "node.status." + name, "$JS.API.DIRECT.GET.LEDGER", "$JS.API.STREAM.INFO.LEDGER", "$JS.API.DIRECT.GET.LEASES"} {
		for _, reply := range []string{"ledger.token.aa.created", "lease.barrier", "$KV.people.usr_1", "$JS.API.STREAM.DELETE.LEDGER", "$JS.API.STREAM.PURGE.KV_people", "$O.SNAPSHOTS.M.x"} {
			if err := nc.PublishRequest(request, reply, []byte(`{"seq":1}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// An acknowledged renewal after them proves that the server has processed
	// them.
	if _, err := newJetStream(t, nc).Publish(testContext(t), "lease.node."+name, nil); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []*nats.Subscription{spy, lease} {
		if n, _, err := sub.Pending(); n > 0 || err != nil {
			t.Errorf("%s got %d answers meant for a verifier (%v)", sub.Subject, n, err)
		}
	}
}

// ledgerMayAskAll asks everything about a stream that does not exist.
func ledgerMayAskAll(t *testing.T, b bus) {
	nc := b.ledger()
	for subject := range api {
		if _, err := nc.Request(fill(subject, "NONE"), []byte(`{}`), 50*time.Millisecond); errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", subject, err)
		}
	}
	errs := make(chan error, 256)
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err })
	denied := []string{
		"tail.ledger.token.aa.revoked", "tail.lease.barrier", "$O.OTHER.M.x", "_INBOX_ledger.x", "_INBOX_verifier.x", "_INBOX_v_v1.x",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "anything",
	}
	for _, subject := range denied {
		if err := nc.PublishRequest(subject, nc.NewInbox(), nil); err != nil {
			t.Fatal(err)
		}
	}
	wantAllDenied(t, nc, errs, "Publish", denied)
}

func TestRolesOnOneServer(t *testing.T) {
	k := startKit(t)
	js := k.asLedger()
	mustCreateStream(t, js)
	roleTests(t, bus{
		ledger: js.Conn,
		connect: func(t *testing.T, opts ...nats.Option) *nats.Conn {
			return mustConnect(t, "", append(append(VerifierOptions(k.verifier), nats.InProcessServer(k)), opts...)...)
		},
	})
}

func mustConnect(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestRolesInCluster(t *testing.T) {
	k := startCluster(t)
	js := k.begin()
	for i, s := range k.servers {
		t.Run(fmt.Sprint("verifier on server ", i), func(t *testing.T) {
			nc := mustConnect(t, s.URL(), k.creds["v1"].Options()...)
			ack, err := newJetStream(t, nc).Publish(testContext(t), "lease.node.v1", []byte("renewed"))
			if err != nil || ack.Stream != "LEASES" {
				t.Errorf("renewal: %+v, %v", ack, err)
			}
		})
	}
	stream, err := js.Stream(testContext(t), "LEASES")
	if err != nil {
		t.Fatal(err)
	}
	// One of the three is the leader, so the answers came from another server
	// on the two others. Ask on one of those.
	leader := stream.CachedInfo().Cluster.Leader
	at := slices.IndexFunc(k.servers, func(s *Server) bool { return s.ns.Name() != leader })
	roleTests(t, bus{
		ledger: js.Conn, name: "v1",
		connect: func(t *testing.T, opts ...nats.Option) *nats.Conn {
			return mustConnect(t, k.servers[at].URL(), append(k.creds["v1"].Options(), opts...)...)
		},
	})
}

// TestRolesOnServersOfOnesOwn runs three nats-servers with the configuration of
// nats init.
func TestRolesOnServersOfOnesOwn(t *testing.T) {
	dir := t.TempDir()
	creds := issued(t, dir, ledgerOn("l1", "127.0.0.1"), ledgerOn("l2", "127.0.0.2", "127.0.0.1"), ledgerOn("l3", "127.0.0.3", "127.0.0.1"), verifierNamed("v1"))
	var routes, clients []string
	for range 3 {
		routes, clients = append(routes, addrtest.Free(t)), append(clients, addrtest.Free(t))
	}
	urls, err := parseRoutes(routes)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"l1", "l2", "l3"} {
		node := filepath.Join(dir, "nodes", name)
		for variable, value := range map[string]string{
			"NATS_NAME": name, "NATS_CLIENT": clients[i], "NATS_CLUSTER": routes[i], "NATS_ROUTE": routes[i], "NATS_STORE": t.TempDir(),
			"NATS_CERT": filepath.Join(node, "tls.crt"), "NATS_CERT_KEY": filepath.Join(node, "tls.key"), "NATS_CA": filepath.Join(node, "ca.crt"),
		} {
			t.Setenv(variable, value)
		}
		opts, err := server.ProcessConfigFile(filepath.Join(dir, "nats.conf"))
		if err != nil {
			t.Fatal(err)
		}
		if !opts.SyncAlways || opts.TLSConfig == nil || opts.Cluster.TLSConfig == nil || len(opts.Cluster.TLSPinnedCerts) != 3 || len(opts.Routes) != 3 {
			t.Errorf("the configuration lacks what a promise rests on: %+v", opts)
		}
		opts.Routes = urls // these ports are the test's
		opts.NoSigs, opts.NoLog = true, true
		ns, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		ns.SetLoggerV2(&serverLog{log: slog.New(slog.DiscardHandler), failed: make(chan error, 1)}, false, false, false)
		go ns.Start()
		t.Cleanup(func() {
			ns.Shutdown()
			ns.WaitForShutdown()
		})
	}
	nc := mustConnect(t, "tls://"+clients[0], append(creds["l1"].Options(), nats.RetryOnFailedConnect(true))...)
	js := newJetStream(t, nc)
	beginLog(t, js)
	roleTests(t, bus{
		ledger: func() *nats.Conn { return nc }, name: "v1",
		connect: func(t *testing.T, opts ...nats.Option) *nats.Conn {
			return mustConnect(t, "tls://"+clients[2], append(creds["v1"].Options(), opts...)...)
		},
	})
}

package embedded

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestLeasesAreMadeWithTheLog(t *testing.T) {
	js := startKit(t).asLedger()
	if _, err := OpenLeases(testContext(t), js); !errors.Is(err, ErrNoLeases) {
		t.Errorf("OpenLeases = %v, want %v", err, ErrNoLeases)
	}
	if _, err := CreateStream(testContext(t), js, StreamLimits{MaxBytes: 1 << 28, Epoch: "first", Lease: 7 * time.Second}); err != nil {
		t.Fatal(err)
	}
	info, err := OpenLeases(testContext(t), js)
	if err != nil {
		t.Fatal(err)
	}
	if info.Lease != 7*time.Second || info.Epoch != "first" || info.Last != 0 {
		t.Errorf("OpenLeases = %+v", info)
	}
	again, err := EnsureLeases(testContext(t), js, LeaseLimits{Epoch: "first", Lease: 7 * time.Second})
	if err != nil || again != info {
		t.Errorf("EnsureLeases = %+v, %v, want %+v", again, err, info)
	}

	// The lease is fixed, and the error names the right one.
	for _, lease := range []time.Duration{0, 6 * time.Second, 7*time.Second + time.Millisecond} {
		_, err := EnsureLeases(testContext(t), js, LeaseLimits{Epoch: "first", Lease: lease})
		if !errors.Is(err, ErrOtherLease) || !strings.Contains(err.Error(), "--lease 7s") {
			t.Errorf("with lease %s: %v, want %v that names 7s", lease, err, ErrOtherLease)
		}
	}
	if _, err := EnsureLeases(testContext(t), js, LeaseLimits{Epoch: "second", Lease: 7 * time.Second}); !errors.Is(err, ErrDrifted) || !strings.Contains(err.Error(), "epoch first") {
		t.Errorf("with another epoch: %v, want %v", err, ErrDrifted)
	}
	for _, bad := range []LeaseLimits{{}, {Epoch: "first", Lease: -time.Second}, {Epoch: "first", Lease: time.Microsecond}, {Epoch: "first", Lease: time.Second + time.Microsecond}} {
		if _, err := EnsureLeases(testContext(t), js, bad); err == nil {
			t.Errorf("EnsureLeases(%+v) = nil, want an error", bad)
		}
	}
}

// A log without a lease stream gets one.
func TestLeasesAreMadeWhereTheyAreMissing(t *testing.T) {
	js := startKit(t).asLedger()
	mustCreateStream(t, js)
	mustPublish(t, js, "ledger.token.aa.created", "one")
	if err := js.DeleteStream(testContext(t), "LEASES"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStream(testContext(t), js); err != nil {
		t.Errorf("the log without leases: %v", err)
	}
	info, err := EnsureLeases(testContext(t), js, LeaseLimits{Epoch: "first", Lease: 9 * time.Second})
	if err != nil || info.Lease != 9*time.Second {
		t.Errorf("EnsureLeases = %+v, %v", info, err)
	}
	if log, err := OpenStream(testContext(t), js); err != nil || log.Last != 1 {
		t.Errorf("the log is %+v, %v", log, err)
	}
}

func TestLeasesKeepTheNewest(t *testing.T) {
	js := startKit(t).asLedger()
	mustCreateStream(t, js)
	stream, err := js.Stream(testContext(t), "LEASES")
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	if c.MaxAge != 0 || c.Discard != jetstream.DiscardOld || c.MaxMsgs != maxLeaseMsgs || !c.DenyDelete || !c.DenyPurge || !c.AllowDirect {
		t.Errorf("the stream is %+v; want the newest kept, by count, and nothing else removed", c)
	}
	tail, err := js.Conn().SubscribeSync("tail.lease.>")
	if err != nil {
		t.Fatal(err)
	}
	mustPublish(t, js, "lease.barrier", "b")
	m, err := tail.NextMsgWithContext(testContext(t))
	if err != nil || m.Subject != "tail.lease.barrier" || m.Header.Get("Nats-Sequence") != "1" {
		t.Errorf("the tail has %v, %v", m, err)
	}
	// Settings that would replace, expire or join messages are refused.
	for header, value := range map[string]string{"Nats-Rollup": "all", "Nats-TTL": "1s", "Nats-Incr": "1", "Nats-Batch-Id": "b"} {
		answer, err := js.Conn().RequestMsgWithContext(testContext(t), newMsg("lease.barrier", header, value))
		if err != nil || !strings.Contains(string(answer.Data), "error") {
			t.Errorf("%s: %s, %v; want a refusal", header, answer.Data, err)
		}
	}
	if _, err := js.Publish(testContext(t), "lease.barrier", make([]byte, maxLeaseMsgSize+1)); err == nil {
		t.Error("a message above the limit was stored")
	}
}

func TestLeasesDrift(t *testing.T) {
	for name, edit := range map[string]func(*jetstream.StreamConfig){
		"max_age":     func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		"discard":     func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardNew },
		"max_msgs":    func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 },
		"republish":   func(c *jetstream.StreamConfig) { c.RePublish = nil },
		"subjects":    func(c *jetstream.StreamConfig) { c.Subjects = []string{"lease.>", "more"} },
		leaseKey:      func(c *jetstream.StreamConfig) { delete(c.Metadata, leaseKey) },
		epochKey:      func(c *jetstream.StreamConfig) { delete(c.Metadata, epochKey) },
		"deny_delete": func(c *jetstream.StreamConfig) { c.DenyDelete = false },
	} {
		t.Run(name, func(t *testing.T) {
			js := startKit(t).asLedger()
			c := leaseSettings(LeaseLimits{Epoch: "first", Lease: time.Second, Replicas: 1})
			edit(&c)
			if _, err := js.CreateStream(testContext(t), c); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenLeases(testContext(t), js); !errors.Is(err, ErrDrifted) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "LEASES") {
				t.Errorf("OpenLeases = %v, want %v that names %s", err, ErrDrifted, name)
			}
		})
	}
}

// The verifier that sent a renewal gets the answer, and the renewal is stored
// unchanged.
func TestRenewalIsStored(t *testing.T) {
	k := startKit(t)
	js := k.asLedger()
	mustCreateStream(t, js)
	nc, _ := k.asVerifier()
	ack, err := newJetStream(t, nc).Publish(testContext(t), "lease.node.v1", []byte("renewed"))
	if err != nil || ack.Sequence != 1 || ack.Stream != "LEASES" {
		t.Fatalf("renewal: %+v, %v", ack, err)
	}
	stream, err := js.Stream(testContext(t), "LEASES")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(testContext(t), 1)
	if err != nil || m.Subject != "lease.node.v1" || string(m.Data) != "renewed" {
		t.Errorf("stored: %+v, %v", m, err)
	}
	if err := nc.Publish("lease.barrier", nil); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushWithContext(testContext(t)); err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
		t.Fatal(err)
	}
}
